"""The catalog comes back as it was written, and refuses what cannot be."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmm.cache.catalog import Catalog, LabelSet, draw_split, readable, split_codes
from fsmm.cache.header import READ_SCHEMAS
from fsmm.cache.origin import ClipSources, Origin
from fsmm.errors import CacheError, FsmmError, UsageError

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=9)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    ids = draw(st.lists(texts, unique=True, max_size=6))
    n = len(ids)
    sets = {}
    for name in draw(st.lists(st.sampled_from(["a", "b.c", "d-1"]), unique=True, min_size=1)):
        classes = draw(st.lists(texts, unique=True, min_size=1, max_size=4))
        c = len(classes)
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        label = rng.integers(0, 2, (n, c)) if draw(st.booleans()) else rng.integers(-1, c, n)
        splits = {
            s: rng.integers(0, 4, c) for s in draw(st.lists(st.sampled_from(["default", "s1"]), unique=True))
        }
        sets[name] = LabelSet(classes, label, draw(st.lists(texts, min_size=c, max_size=c)), splits)
    facts = {"duration": np.linspace(0, 1, n), "sha256": np.full(n, b"ab" * 32, "S64")}
    split = draw(st.lists(st.sampled_from(["", "train"]), min_size=n, max_size=n))
    return Catalog(
        dataset="toy",
        clip_id=ids,
        label_sets=sets,
        default_label_set=next(iter(sets)),
        path=[f"x/{i}" for i in range(n)],
        clip_split=split,
        attrs={"title": "ü"},
        facts=facts,
        group=draw(st.lists(st.sampled_from(["", "film", "ü"]), min_size=n, max_size=n)),
        sources=draw(sources(n)),
    )


@st.composite
def sources(draw: st.DrawFn, n: int) -> ClipSources:
    origins = [Origin("folder", "/a/ü", "/a/ü"), Origin("demo", options={"seed": "0"})][
        : draw(st.integers(1, 2))
    ]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return ClipSources(
        origins=origins,
        origin=rng.integers(0, len(origins), n),
        listed=rng.random((n, len(origins))) < 0.5,
        size=rng.integers(-1, 2**40, n),
        mtime_ns=rng.integers(-1, 2**62, n),
    )


def assert_same(a: Catalog, b: Catalog) -> None:
    for name in ("dataset", "clip_id", "path", "clip_split", "group", "attrs", "default_label_set"):
        assert getattr(a, name) == getattr(b, name), name
    assert set(a.label_sets) == set(b.label_sets)
    for name, labels in a.label_sets.items():
        other = b.label_sets[name]
        assert (labels.class_names, labels.words, labels.multi) == (
            other.class_names,
            other.words,
            other.multi,
        )
        assert np.array_equal(labels.label, other.label)
        assert set(labels.splits) == set(other.splits)
        assert all(np.array_equal(codes, other.splits[split]) for split, codes in labels.splits.items())
    for name, values in a.facts.items():
        np.testing.assert_array_equal(values, b.facts[name])
    assert a.sources.origins == b.sources.origins
    for name in ("origin", "listed", "size", "mtime_ns"):
        np.testing.assert_array_equal(getattr(a.sources, name), getattr(b.sources, name))


@given(catalogs())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(catalog: Catalog) -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog.write(Path(folder))
        assert_same(catalog, Catalog.read(Path(folder)))
        assert [p.name for p in Path(folder).iterdir()] == ["catalog.h5"]


@given(catalogs(), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_taking_all_clips_in_another_order_and_back_is_nothing(catalog: Catalog, random) -> None:
    order = np.array(random.sample(range(len(catalog)), len(catalog)), np.int64)
    assert_same(catalog, catalog.take(order).take(np.argsort(order)))


def toy(**given: Any) -> Catalog:
    labels = {"s": LabelSet(["x"], np.array([0, -1]))}
    values: dict[str, Any] = {"dataset": "toy", "clip_id": ["a", "b"], "label_sets": labels}
    return Catalog(**{**values, "default_label_set": "s", **given})


def test_any_flipped_bit_is_noticed_on_reading(tmp_path: Path) -> None:
    toy().write(tmp_path)
    path = tmp_path / "catalog.h5"
    whole = path.read_bytes()
    for at in range(0, len(whole), 131):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << (at % 8)]) + whole[at + 1 :])
        with pytest.raises(CacheError, match=r"damaged.*delete it and run the same extract or import again"):
            Catalog.read(tmp_path)
    path.write_bytes(whole)
    assert_same(Catalog.read(tmp_path), toy())


def test_another_schema_is_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(READ_SCHEMAS, "fsmm-catalog", (7,))
        toy().write(tmp_path)
    with pytest.raises(CacheError, match=r"has cache schema 7; this fsmm .* reads schema 1 and 2"):
        Catalog.read(tmp_path)


def test_a_catalog_is_as_readable_as_other_files(tmp_path: Path) -> None:
    """A cache is often shared; a file made by a temporary-file function would be the owner's alone."""
    (tmp_path / "other").write_text("")
    toy().write(tmp_path)
    assert (tmp_path / "catalog.h5").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"clip_id": ["a", "a"]}, "same clip id twice"),
        ({"clip_id": ["a", ""]}, "cannot be stored"),
        ({"clip_id": ["a", "b\0c"]}, "cannot be stored"),
        ({"clip_id": ["a", "b", "c"]}, "labels 2 clips of 3"),
        ({"path": ["../x", "y"]}, "leaves the data folder"),
        ({"path": ["/x", "y"]}, "leaves the data folder"),
        ({"dataset": "../up"}, "not usable as a folder"),
        ({"default_label_set": "t"}, "label set 't'"),
    ],
)
def test_a_catalog_that_cannot_be_is_refused(given: dict, says: str) -> None:
    with pytest.raises(FsmmError, match=says):
        toy(**given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (([], [0]), "there are 0 classes"),
        ((["x", "x"], [0]), "same class twice"),
        ((["x"], [1]), "run from 1 to 1"),
        ((["x"], [-2]), "run from -2"),
        ((["x"], [[1, 0]]), "2 columns for 1 classes"),
        ((["x"], [0], ["a", "b"]), "one entry a class"),
        ((["x"], [0], [], {"s": [1, 2]}), "one entry a class"),
        ((["x"], [0], [], {"a/b": [1]}), "not usable"),
    ],
)
def test_a_label_set_that_cannot_be_is_refused(given: tuple, says: str) -> None:
    names, label, *more = given
    with pytest.raises(FsmmError, match=says):
        LabelSet(names, np.array(label), *more)


@given(st.integers(0, 40), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99))
def test_a_drawn_split_has_the_sizes_asked_for(
    classes: int, base: int, val: int, novel: int, seed: int
) -> None:
    if base + val + novel > classes:
        with pytest.raises(UsageError, match=f"there are {classes}"):
            draw_split(classes=classes, base=base, val=val, novel=novel, seed=seed)
        return
    codes = draw_split(classes=classes, base=base, val=val, novel=novel, seed=seed)
    assert [int((codes == c).sum()) for c in (1, 2, 3)] == [base, val, novel]
    assert np.array_equal(codes, draw_split(classes=classes, base=base, val=val, novel=novel, seed=seed))


def test_split_lists_name_each_class_once() -> None:
    assert split_codes(["a", "b", "c"], ["b"], [], ["a"]).tolist() == [3, 1, 0]
    with pytest.raises(UsageError, match="'b' is in two splits"):
        split_codes(["a", "b"], ["b"], ["b"], [])
    with pytest.raises(UsageError, match="class 'd'"):
        split_codes(["a"], ["d"], [], [])


@pytest.mark.parametrize(
    "name", ["ApplyEyeMakeup", "apply_eye_makeup", "apply-eye  makeup", "Apply eye makeup"]
)
def test_class_names_become_words(name: str) -> None:
    assert readable(name) == "apply eye makeup"
