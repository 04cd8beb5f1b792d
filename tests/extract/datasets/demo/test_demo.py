"""Dataset ``demo`` as the pipeline sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fsmm.cache.catalog import Catalog
from fsmm.errors import UsageError
from fsmm.extract.contract import AudioNeed, FrameNeed, Sampling
from fsmm.extract.datasets import load
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.extract.datasets.demo.labels import catalog_of
from fsmm.extract.datasets.demo.plan import plan_clips
from fsmm.extract.datasets.demo.reader import default_folder, listing
from fsmm.extract.decoding.decode import decode

FACTORS = ("content", "motion", "sound")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


def test_the_small_form_is_made_whole(data: Path) -> None:
    made = load("demo", data, DatasetOptions(small=True))
    assert made.catalog.dataset == "demo"
    assert made.catalog.attrs["synthetic"] == "true"
    assert list(made.sources) == made.catalog.clip_id
    assert len(made.catalog) == len(plan_clips(small=True))
    for clip, path in zip(made.catalog.clip_id, made.catalog.path):
        assert made.sources[clip].video == made.root / path
        assert (made.root / path).stat().st_size > 1000
    assert not list(made.root.rglob("*.tmp"))


def test_the_decoder_reads_the_clips(data: Path) -> None:
    made = load("demo", data, DatasetOptions(small=True, limit=20))
    planned = {clip.clip_id: clip for clip in plan_clips(small=True)}
    frames, sound = FrameNeed(size=64), AudioNeed()
    silent = 0
    for clip, source in made.sources.items():
        seen = decode(source, clip, [frames, sound], Sampling())
        assert seen.frames[frames].shape == (8, 1, 64, 64, 3)
        assert (sound in seen.audio) == planned[clip].has_sound == seen.facts.has_audio
        assert seen.facts.duration == pytest.approx(planned[clip].seconds, abs=0.1)
        silent += not planned[clip].has_sound
    assert 0 < silent < 20


def test_the_scenes_follow_one_another_as_the_order_label_says(data: Path) -> None:
    """The corner pixel's colour, of the eight sampled frames in pairs, names the four scenes in order."""
    made = load("demo", data, DatasetOptions(small=True, limit=12))
    labels = made.catalog.labels("order")
    need = FrameNeed(size=64)
    hues = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
    for row, (clip, source) in enumerate(made.sources.items()):
        shown = decode(source, clip, [need], Sampling()).frames[need][:, 0].astype(float)
        border = np.concatenate([shown[:, :6].reshape(8, -1, 3), shown[:, -6:].reshape(8, -1, 3)], 1)
        # The median over the border is the background's: sign and ball cover less than half of it.
        colour = np.median(border, 1).reshape(4, 2, 3).mean(1)
        colour = colour - colour.min(1, keepdims=True)
        score = colour / np.linalg.norm(colour, axis=1, keepdims=True) @ _unit(list(hues.values())).T
        seen = "-".join(list(hues)[i] for i in score.argmax(1))
        assert seen == labels.class_names[labels.label[row]]


def _unit(rows: list[tuple[int, int, int]]) -> np.ndarray:
    found = np.array(rows, float)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_only_the_clips_asked_for_are_made(tmp_path: Path) -> None:
    made = listing(tmp_path, DatasetOptions(small=True, limit=3))
    assert len(list(tmp_path.rglob("*.mp4"))) == len(made.catalog) == 3
    assert len(set(made.catalog.labels().label)) == 3


def test_per_class_and_clips_draw_a_smaller_benchmark(data: Path) -> None:
    made = listing(data, DatasetOptions(small=True, per_class=2))
    assert set(made.catalog.labels().counts()) == {2}
    fewer = listing(data, DatasetOptions(small=True, clips=20))
    assert len(fewer.catalog) == 20
    assert fewer.catalog.labels().counts().min() == 1


def test_the_design_splits_stand_unless_others_are_asked_for(data: Path, tmp_path: Path) -> None:
    designed = catalog_of(plan_clips(small=True), True, 0)

    def changed(options: DatasetOptions) -> set[str]:
        catalog: Catalog = listing(data, options).catalog
        pairs = ((name, catalog.label_sets[name].splits["default"]) for name in catalog.label_sets)
        return {name for name, codes in pairs if (codes != designed.label_sets[name].splits["default"]).any()}

    assert changed(DatasetOptions(small=True, limit=1)) == set()
    assert changed(DatasetOptions(small=True, limit=1, split_sizes=(4, 2, 10))) == {"event"}
    assert changed(DatasetOptions(small=True, limit=1, split_seed=7, label_set="order")) == {"order"}
    names = designed.labels("sound").class_names
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"base": names[1:], "novel": names[:1]}))
    assert changed(DatasetOptions(small=True, limit=1, label_set="sound", split_file=file)) == {"sound"}


def test_a_split_seed_alone_keeps_the_sizes_of_the_design(data: Path) -> None:
    drawn = listing(data, DatasetOptions(small=True, limit=1, split_seed=7)).catalog.labels()
    assert [len(drawn.class_split(split)) for split in ("base", "val", "novel")] == [5, 5, 6]


def test_unknown_label_sets_are_refused(data: Path) -> None:
    with pytest.raises(UsageError, match="Unknown label set 'colour'"):
        listing(data, DatasetOptions(small=True, label_set="colour"))


def test_the_clips_go_to_the_users_cache_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = listing(None, DatasetOptions(small=True, limit=1))
    assert default_folder() == tmp_path / "fsmm-demo-clips"
    assert default_folder() in made.root.parents


def test_forms_and_seeds_do_not_share_clips(tmp_path: Path) -> None:
    made = [
        listing(tmp_path, DatasetOptions(small=small, seed=seed, limit=1))
        for small in (True, False)
        for seed in (0, 1)
    ]
    assert len({found.root for found in made}) == 4
    assert len({clip for found in made for clip in found.sources}) == 4
