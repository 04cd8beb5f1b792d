"""What `fsmm cache show` says of classes and clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet, draw_split, drawn_split
from fsmm.cache.exchange.importing import import_features
from fsmm.cache.upkeep.contents import contents
from fsmm.cache.upkeep.merge import unite
from fsmm.errors import CacheError, UsageError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two label sets over 6 classes of 4 clips, 3 clips without a label, and modalities that clips lack."""
    root = synthetic_cache(tmp_path_factory.mktemp("cache"), classes=6, clips=4, absent=0.3, unlabelled=3)
    catalog = Catalog.read(root / "toy")
    hot = np.zeros((len(catalog), 3), np.uint8)
    hot[:5, 0], hot[3:8, 2] = 1, 1
    splits = {"default": np.array([1, 3, 0]), "other": np.array([3, 2, 1])}
    origin = {"default": "the split file a.json"}
    catalog.label_sets["tags"] = LabelSet(["loud", "never", "slow"], hot, splits=splits, split_origin=origin)
    catalog.write(root / "toy")
    return root


def test_classes_come_in_the_order_of_their_split_with_the_clips_of_each_modality(cache: Path) -> None:
    found = contents(cache)
    assert [(entry.name, entry.split) for entry in found.classes] == [
        (f"class {i}", ("base", "val", "novel")[i // 2]) for i in range(6)
    ]
    assert all(entry.word_streams == ["word/toy"] for entry in found.classes)
    for part in ("base", "val", "novel"):
        bank = FeatureBank.load(cache, split=part)
        for c, name in enumerate(bank.class_names):
            entry = next(entry for entry in found.classes if entry.name == name)
            of_class = bank.label == c
            held = {m: int((table.present & of_class).sum()) for m, table in bank.tables.items()}
            assert entry.with_modality == held
            assert entry.clips == 4


def test_clips_are_listed_with_labels_splits_and_modalities(cache: Path) -> None:
    found = contents(cache)
    assert [clip.id for clip in found.clips] == [f"clip{i}" for i in range(27)]
    assert (found.clips[5].labels, found.clips[5].splits) == (["class 1"], ["base"])
    assert (found.clips[26].labels, found.clips[26].splits) == ([], [])
    bank = FeatureBank.load(cache, split="all")
    for row, clip in enumerate(bank.clip_row):
        held = {modality for modality, table in bank.tables.items() if table.present[row]}
        assert set(found.clips[clip].modalities) == held
    assert sum(found.combinations.values()) == 27


def test_several_labels_and_classes_in_no_split_are_shown(cache: Path) -> None:
    found = contents(cache, "toy", "tags")
    assert [(c.name, c.split, c.clips) for c in found.classes] == [
        ("loud", "base", 5),
        ("never", "novel", 0),
        ("slow", "", 5),
    ]
    assert (found.split_origin, found.label_sets) == ("the split file a.json", ["event", "tags"])
    assert found.clips[3].labels == ["loud", "slow"]
    assert found.clips[3].splits == ["base"]
    assert contents(cache, "toy", "tags", "other").split_origin == ""
    assert [c.name for c in contents(cache, "toy", "tags", "other").classes] == ["slow", "never", "loud"]
    assert json.dumps(found.to_json())


def test_clips_that_are_gone_are_shown_and_count_for_nothing(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    catalog = Catalog.read(tmp_path / "cache" / "toy")
    catalog.sources.listed[:3] = False
    catalog.group[4] = "film 7"
    catalog.write(tmp_path / "cache" / "toy")
    found = contents(tmp_path / "cache")
    assert [clip.id for clip in found.clips if clip.gone] == ["clip0", "clip1", "clip2"]
    assert found.classes[0].clips == 1
    assert found.clips[0].labels == ["class 0"]
    assert sum(found.combinations.values()) == 24
    assert [clip.group for clip in found.clips[3:6]] == ["", "film 7", ""]


def test_unknown_names_are_one_sentence(cache: Path) -> None:
    with pytest.raises(UsageError, match="Unknown label set"):
        contents(cache, "toy", "mood")
    with pytest.raises(UsageError, match="Unknown class split"):
        contents(cache, "toy", None, "fold-9")
    with pytest.raises(CacheError, match="not in the cache"):
        contents(cache, "nowhere")


def test_a_split_says_where_it_comes_from_after_an_import_and_a_merge(tmp_path: Path) -> None:
    y = np.array([f"k{i % 6}" for i in range(24)])
    np.savez(tmp_path / "toy.npz", x=np.random.default_rng(0).standard_normal((24, 4)), y=y)
    splits = {
        "default": {"seed": 3, "base": 3, "val": 1, "novel": 2},
        "named": {"base": ["k0"], "novel": ["k1"]},
        "same": "default",
    }
    mapping = {
        "dataset": "toy",
        "source": "toy.npz",
        "arrays": {"x": "frame/net"},
        "label_sets": {"l": {"label": "y", "splits": splits}},
    }
    (tmp_path / "toy.json").write_text(json.dumps(mapping))
    import_features(tmp_path / "toy.json", tmp_path / "cache")
    drawn = "drawn by seed 3 from 6 classes: 3 base, 1 val, 2 novel"
    assert drawn_split(6, (3, 1, 2), 3) == drawn
    catalog = Catalog.read(tmp_path / "cache" / "toy")
    labels = catalog.labels("l")
    assert labels.split_origin == {"default": drawn, "same": drawn, "named": "the lists of the mapping file"}
    assert np.array_equal(labels.splits["default"], draw_split(6, 3, 1, 2, 3))
    assert catalog.take(np.arange(5)).labels("l").split_origin == labels.split_origin
    bare = Catalog.read(tmp_path / "cache" / "toy")
    bare.label_sets["l"].split_origin = {}
    for catalogs in ((catalog, bare), (bare, catalog)):
        assert (
            unite([("one", catalogs[0]), ("two", catalogs[1])]).labels("l").split_origin
            == labels.split_origin
        )
