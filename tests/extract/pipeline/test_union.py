"""A run's catalog joined with the cache's: rows stay, labels follow, splits change only when asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmm.cache.catalog import UNLABELLED, Catalog, LabelSet
from fsmm.extract.pipeline.union import united


def catalog(
    labels: dict[str, str | None], splits: dict[str, int] | None = None, default: str = "kind"
) -> Catalog:
    """Clips labelled by class name (None: unlabelled); split codes by class name."""
    names = sorted({name for name in labels.values() if name is not None})
    index = [UNLABELLED if name is None else names.index(name) for name in labels.values()]
    codes = {"default": np.array([(splits or {}).get(name, 0) for name in names])}
    kind = LabelSet(names, np.array(index, np.int32), [f"words of {name}" for name in names], codes)
    clips = list(labels)
    return Catalog("toy", clips, {default: kind}, default, path=[f"{clip}.mp4" for clip in clips])


def named(joined: Catalog, label_set: str = "kind") -> dict[str, str | None]:
    """From clip to class name."""
    labels = joined.labels(label_set)
    names = [*labels.class_names, None]
    return {clip: names[i] for clip, i in zip(joined.clip_id, labels.label)}


def codes(joined: Catalog, split: str = "default") -> dict[str, int]:
    labels = joined.labels()
    return dict(zip(labels.class_names, labels.splits[split].tolist()))


LABELLED = st.dictionaries(
    st.sampled_from([f"clip{i}" for i in range(8)]),
    st.one_of(st.none(), st.sampled_from(["cat", "dog", "emu", "fox"])),
    min_size=1,
)


@given(LABELLED, LABELLED)
@settings(max_examples=60, deadline=None)
def test_rows_stay_and_the_newest_label_holds(
    before: dict[str, str | None], after: dict[str, str | None]
) -> None:
    old, new = catalog(before), catalog(after)
    joined, _ = united(old, new)
    assert joined.clip_id[: len(old)] == old.clip_id
    assert set(joined.clip_id) == before.keys() | after.keys()
    assert named(joined) == before | after
    assert joined.path == [f"{clip}.mp4" for clip in joined.clip_id]
    words = dict(zip(joined.labels().class_names, joined.labels().words))
    assert words == {name: f"words of {name}" for name in words}


@given(LABELLED)
@settings(max_examples=20, deadline=None)
def test_joining_the_same_changes_nothing_and_says_nothing(labels: dict[str, str | None]) -> None:
    old = catalog(labels, {"cat": 1, "dog": 3})
    joined, notes = united(old, old)
    assert notes == []
    assert joined.clip_id == old.clip_id
    assert named(joined) == labels
    assert codes(joined) == codes(old)


def test_a_listing_of_all_clips_replaces_the_split() -> None:
    old = catalog({"a": "cat", "b": "dog"}, {"cat": 1, "dog": 3})
    joined, notes = united(old, catalog({"a": "cat", "b": "dog", "c": "emu"}, {"cat": 3, "dog": 1, "emu": 2}))
    assert codes(joined) == {"cat": 3, "dog": 1, "emu": 2}
    assert notes == ["The classes of label set 'kind' changed (new: emu)."]


@pytest.mark.parametrize(("asked", "expected"), [(False, {"cat": 1, "dog": 3}), (True, {"cat": 2, "dog": 3})])
def test_a_listing_of_fewer_clips_keeps_the_split_unless_asked(asked: bool, expected: dict[str, int]) -> None:
    old = catalog({"a": "cat", "b": "dog"}, {"cat": 1, "dog": 3})
    joined, notes = united(old, catalog({"a": "cat"}, {"cat": 2}), new_split=asked)
    assert codes(joined) == expected
    assert any("class split" in note for note in notes) != asked


def test_gone_classes_are_told_when_all_clips_are_listed() -> None:
    old = catalog({"a": "cat", "b": "dog"})
    _, notes = united(old, catalog({"a": "cat", "b": "cat"}))
    assert notes == ["The classes of label set 'kind' changed (gone: dog)."]


def test_facts_and_other_label_sets_are_kept() -> None:
    old = catalog({"a": "cat", "b": "dog"}, default="mood")
    old.facts["duration"][:] = [1.5, 2.5]
    joined, _ = united(old, catalog({"c": "emu", "b": "fox"}))
    assert joined.clip_id == ["a", "b", "c"]
    assert joined.facts["duration"][:2].tolist() == [1.5, 2.5]
    assert np.isnan(joined.facts["duration"][2])
    assert named(joined, "mood") == {"a": "cat", "b": "dog", "c": None}
    assert named(joined) == {"a": None, "b": "fox", "c": "emu"}
    assert joined.default_label_set == "kind"


def test_labels_that_become_many_stay_true() -> None:
    old = catalog({"a": "cat", "b": "dog", "c": None})
    many = LabelSet(["dog", "emu"], np.array([[1, 1]], np.uint8))
    new = replace(catalog({"b": "dog"}), label_sets={"kind": many})
    labels = united(old, new)[0].labels()
    assert labels.class_names == ["cat", "dog", "emu"]
    assert labels.label.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
