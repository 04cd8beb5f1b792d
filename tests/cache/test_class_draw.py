"""A class split that its name draws is the stated draw, and every reader of a class split takes it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.class_draw import ClassDraw
from fsmm.cache.exchange.exporting import export_features
from fsmm.cache.upkeep.contents import contents
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.runs.banks import Banks
from fsmm.runs.job import Place
from fsmm.runs.run import episode_eval
from fsmm.runs.spec import RunSpec
from fsmm.studies.grid.sweep import sweep
from fsmm.studies.tuning.data import tuning_data

CLASSES = 18


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets: one with three stored parts and a multi-hot label set, and one without any class split."""
    root = tmp_path_factory.mktemp("cache")
    for name in ("toy", "bare"):
        synthetic_cache(root, dataset=name, clips=8, streams={"frame/net": (1, 6)}, seed=len(name))
    catalog = Catalog.read(root / "toy")
    event = catalog.label_sets["event"]
    tags = (np.arange(CLASSES * 8)[:, None] % np.array([2, 3, 5, 7]) == 0).astype(np.uint8)
    stored = {"default": np.array([1, 1, 2, 3])}
    catalog.label_sets["tags"] = LabelSet([*"abcd"], tags, splits=stored)
    catalog.write(root / "toy")
    bare = Catalog.read(root / "bare")
    bare.label_sets["event"] = replace(event, splits={}, class_names=[f"other {i}" for i in range(CLASSES)])
    bare.write(root / "bare")
    return root


def drawn(seed: int, novel: int, val: int = 0) -> tuple[set[int], set[int], set[int]]:
    """The novel, the val and the other classes by the definition."""
    order = np.random.default_rng(seed).permutation(CLASSES).tolist()
    return {*order[:novel]}, {*order[novel : novel + val]}, {*order[novel + val :]}


def test_a_name_draws_the_stated_classes_and_a_limit_keeps_the_first_base_classes() -> None:
    for seed in range(5):
        codes = ClassDraw.parse(f"random:6+3:{seed}").codes(CLASSES)
        assert [{*np.flatnonzero(codes == code).tolist()} for code in (3, 2, 1)] == [*drawn(seed, 6, 3)]
        few = ClassDraw.parse(f"random:6+3/4:{seed}").codes(CLASSES)
        assert np.array_equal(few > 1, codes > 1)
        assert np.flatnonzero(few == 1).tolist() == sorted(drawn(seed, 6, 3)[2])[:4]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("random:", "not of the form random:NOVEL"),
        ("random:8", "not of the form"),
        ("random:-8:3", "not of the form"),
        ("random:8:x", "not of the form"),
        ("random:8:-1", "not of the form"),
        ("random:8/4+2:1", "not of the form"),
        ("random:8:1\n", "not of the form"),
        ("random:8:" + "9" * 5000, "not of the form"),
        ("random:٨:3", "not of the form"),  # a digit that int() would take
        ("random:0+4:3", "no novel class"),
        ("random:19:0", "0 base, 0 val and 19 novel classes needs 19 classes, and the label set has 18"),
        ("random:8+4/7:0", "7 base, 4 val and 8 novel classes needs 19 classes"),
        ("rando:8:3", "Unknown class split"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(cache: Path, name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        episode_eval(cache=cache, dataset="toy", protocol=Protocol(class_split=name), episodes=1)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_clip_with_several_labels_would_be_in_two_parts(cache: Path) -> None:
    for label_set in ("tags", "event+tags"):
        with pytest.raises(UsageError, match="several: such a clip would be in two of its parts"):
            FeatureBank.load(cache, dataset="toy", label_set=label_set, class_split="random:1:0")


def test_base_val_and_novel_clips_of_a_run_are_those_of_the_draw(cache: Path) -> None:
    for dataset in ("toy", "bare"):
        spec = RunSpec(method="protonet", protocol=Protocol(class_split="random:6+4/5:2"))
        banks = Banks(spec, Place(cache=cache, dataset=dataset))
        novel, val, rest = drawn(2, 6, 4)
        assert banks.val is not None
        held = [{*bank.class_id.tolist()} for bank in (banks.test, banks.val, banks.base)]
        assert held == [novel, val, {*sorted(rest)[:5]}]
        assert {*banks.test.class_id[banks.test.label].tolist()} == novel
    with pytest.raises(UsageError, match="draw one"):
        FeatureBank.load(cache, dataset="bare")


def test_training_on_another_data_set_leaves_out_what_is_drawn_as_novel_or_val(cache: Path) -> None:
    spec = RunSpec(
        method="relation", protocol=Protocol(class_split="random:5+2:1"), train_dataset="toy", words=None
    )
    catalog = Catalog.read(cache / "bare")
    names = Catalog.read(cache / "toy").label_sets["event"].class_names
    same = replace(catalog.label_sets["event"], class_names=names)
    replace(catalog, label_sets={"event": same}).write(cache / "bare")
    try:
        other = Banks(spec, Place(cache=cache, dataset="bare")).other
    finally:
        catalog.write(cache / "bare")
    assert other is not None
    novel, val, _ = drawn(1, 5, 2)
    assert other.class_split == "default"
    assert {*other.left_out} == {names[c] for c in (novel | val) & {*range(6)}}  # base classes there: 0 to 5


def test_a_tuning_reads_no_class_that_the_draw_makes_novel(cache: Path) -> None:
    spec = RunSpec(method="ridge", protocol=Protocol(class_split="random:6+4:2"))
    found = tuning_data(spec, Place(cache=cache, dataset="toy"), ["random:6+4:3"])
    assert found.val is not None
    assert {*found.base.class_id.tolist(), *found.val.class_id.tolist()} == {*range(CLASSES)} - drawn(2, 6)[0]
    assert {c for c, code in found.codes["random:6+4:3"].items() if code == 3} == drawn(3, 6)[0]


def test_the_cache_shows_and_exports_the_parts_of_a_draw(cache: Path, tmp_path: Path) -> None:
    found = contents(cache, "toy", class_split="random:6:2")
    names = [f"class {c}" for c in sorted(drawn(2, 6)[0])]
    assert [each.name for each in found.classes if each.split == "novel"] == names
    assert found.split_origin == "drawn by seed 2 from 18 classes: 12 base, 0 val, 6 novel"
    report = export_features(cache, tmp_path / "out.npz", "toy", split="novel", class_split="random:6:2")
    assert report.clips == 6 * 8


def test_a_study_runs_draws_and_names_the_line_of_one_that_cannot_be(cache: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    lines = ["name: s", "fixed: {dataset: toy, episodes: 20, n_query: 3}", "blocks:", "  - name: b"]
    lines += ["    fixed: {method: protonet}", "    grid:", "      class_split: [random:5:0-1, random:5:1]"]
    study.write_text("\n".join(lines))
    done = sweep(study, cache, out=tmp_path / "out", jobs=1)
    assert len({row.key for row in done.done}) == 2
    for seed, row in enumerate(done.done):
        metrics = done.metrics(row)
        assert metrics["class_split"] == f"random:5:{seed}"
        assert {*metrics["per_class"]} == {f"class {c}" for c in drawn(seed, 5)[0]}
    for wrong, sentence in (
        ("random:50:1", "A class split of 0 base, 0 val and 50 novel"),
        ("random:5:3-1", "the seeds of 'random:5:3-1' descend"),
        ("random:5:0-99999999", "the study asks for 100,000,000 runs"),
        ("random:5-1", "Class split 'random:5-1' is not of the form"),
    ):
        study.write_text("\n".join(lines).replace("random:5:1", wrong))
        with pytest.raises(UsageError, match=rf"study\.yaml, line \d: {re.escape(sentence)}"):
            sweep(study, cache, out=tmp_path / "out", jobs=1)
