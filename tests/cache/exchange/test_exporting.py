"""An export is plain arrays, and imports as the same cache."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_support import keys
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import flip

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import FACTS, Catalog, LabelSet
from fsmm.cache.exchange.exporting import export_features
from fsmm.cache.exchange.importing import import_features
from fsmm.cache.schema import Provenance, list_streams
from fsmm.cache.stream import StreamWriter, stream_checks, stream_provenance
from fsmm.errors import FsmmError


@st.composite
def caches(draw: st.DrawFn) -> Callable[[Path], None]:
    """A function that writes a small dataset of any mixture: two label sets, one or two streams, words."""
    ids = draw(st.lists(keys.filter(lambda t: t.strip("\0") == t), unique=True, min_size=1, max_size=6))
    n, seed = len(ids), draw(st.integers(0, 99))
    names = draw(st.lists(keys, unique=True, min_size=2, max_size=4))
    dtypes = draw(st.lists(st.sampled_from(["float16", "float32", "float64"]), min_size=1, max_size=2))
    gone = draw(st.lists(st.booleans(), min_size=n, max_size=n))

    def write(root: Path) -> None:
        rng = np.random.default_rng(seed)
        folder = root / "toy"
        c = len(names)
        sets = {
            "one": LabelSet(
                names,
                rng.integers(-1, c, n),
                [f"w {i}" for i in range(c)],
                {"default": rng.integers(0, 4, c)},
            ),
            "many": LabelSet(["p", "q"], rng.integers(0, 2, (n, 2))),
        }
        facts = {"duration": rng.random(n), "sha256": np.array([f"{i:064x}" for i in range(n)], "S64")}
        Catalog(
            dataset="toy",
            clip_id=ids,
            label_sets=sets,
            default_label_set="many",
            path=[f"d/{i}" for i in range(n)],
            clip_split=["train"] * n,
            group=["film" if absent else "" for absent in gone],
            attrs={"k": "v"},
            facts=facts,
        ).write(folder)
        for modality, dtype in zip(("frame", "audio"), dtypes):
            provenance = Provenance(
                "net", modality, 3, dtype=dtype, weights="w", sampling="s", extra={"a": "b"}
            )
            with StreamWriter(folder, provenance, max_clips=4) as writer:
                for i, clip in enumerate(ids):
                    absent = gone[i] and i > 0
                    writer.add(
                        clip, None if absent else rng.normal(size=(rng.integers(1, 5), 3)).astype(dtype)
                    )
        with StreamWriter(
            folder, Provenance(encoder="vec", modality="word", dim=2, axis="class", dtype="float32")
        ) as writer:
            for name in names:
                writer.add(f"one/{name}", rng.normal(size=(1, 2)))

    return write


@given(caches(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_import_of_an_export_is_the_cache(write: Callable[[Path], None], npz: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, again = Path(folder) / "a", Path(folder) / "b"
        write(root)
        out = Path(folder) / ("out.npz" if npz else "out")
        export_features(root, out)
        import_features(out.with_suffix(".json") if npz else out / "mapping.json", again)
        one, other = Catalog.read(root / "toy"), Catalog.read(again / "toy")
        for name in ("clip_id", "path", "clip_split", "group", "attrs", "default_label_set"):
            assert getattr(one, name) == getattr(other, name)
        for name in FACTS:
            np.testing.assert_array_equal(one.facts[name], other.facts[name])
        for name, labels in one.label_sets.items():
            twin = other.label_sets[name]
            assert (labels.class_names, labels.words) == (twin.class_names, twin.words)
            assert np.array_equal(labels.label, twin.label)
            assert {k: v.tolist() for k, v in labels.splits.items()} == {
                k: v.tolist() for k, v in twin.splits.items()
            }
        assert list_streams(root / "toy") == list_streams(again / "toy")
        for stream in list_streams(root / "toy"):
            assert stream_checks(root / "toy", stream) == stream_checks(again / "toy", stream)
            mine, theirs = (stream_provenance(r / "toy", stream) for r in (root, again))
            assert mine is not None
            assert theirs is not None
            assert mine.differences(theirs) == []


def test_an_export_is_plain_padded_arrays(make_cache: Callable[..., Path], tmp_path: Path) -> None:
    root = make_cache(absent=0.3)
    report = export_features(root, tmp_path / "out.npz", split="novel", streams=["frame/net"])
    bank = FeatureBank.load(root, ["frame"])
    with np.load(tmp_path / "out.npz", allow_pickle=False) as plain:
        assert {name: list(plain[name].shape) for name in plain.files} == report.arrays
        assert "audio/net" not in plain.files
        index = {clip: i for i, clip in enumerate(plain["id"].tolist())}
        catalog = Catalog.read(root / "toy")
        at = [index[catalog.clip_id[row]] for row in bank.clip_row]
        got = bank.tables["frame"].gather(bank.label.new_tensor(range(len(bank))))
        assert np.array_equal(plain["frame/net"][at], got.x.numpy())
        assert np.array_equal(plain["frame/net.length"][at], got.length.numpy())
        names = plain["class_names.event"]
        assert names[plain["label.event"][at]].tolist() == [bank.class_names[i] for i in bank.label.tolist()]
    assert json.loads((tmp_path / "out.json").read_text())["dataset"] == "toy"


def test_a_csv_holds_the_labels(tmp_path: Path) -> None:
    many = LabelSet(["p,", "q"], np.array([[1, 1], [0, 0], [0, 1]]))
    one = LabelSet(["x", 'y "z"'], np.array([1, -1, 0]))
    catalog = Catalog("toy", ["a", "b,c", "d"], {"one": one, "many": many}, "one", group=["film", "", "film"])
    catalog.write(tmp_path / "cache" / "toy")
    export_features(tmp_path / "cache", tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "path", "clip_split", "group", "many", "one"],
            ["a", "", "", "film", '["p,", "q"]', 'y "z"'],
            ["b,c", "", "", "", "[]", ""],
            ["d", "", "", "film", '["q"]', "x"],
        ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"streams": ["frame/other"]}, "frame/other"),
        ({"split": "train"}, "split 'train'"),
        ({"label_set": "none"}, "label set 'none'"),
        ({"class_split": "none"}, "class split 'none'"),
        ({"dataset": "none"}, "it holds: toy"),
    ],
)
def test_unknown_names_are_refused_and_nothing_is_written(
    make_cache: Callable[..., Path], tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    root = make_cache()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FsmmError, match=says):
        export_features(root, tmp_path / "out.npz", **{"split": "novel", **given})
    assert sorted(tmp_path.iterdir()) == before


def test_damaged_features_are_not_exported(make_cache: Callable[..., Path], tmp_path: Path) -> None:
    root = make_cache()
    (path,) = root.glob("toy/streams/frame/net/00000.h5")
    flip(path, "features", 0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FsmmError, match=r"is damaged \(clip 'clip0'"):
        export_features(root, tmp_path / "out.npz")
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten(make_cache: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out.npz").write_bytes(b"precious")
    with pytest.raises(FsmmError, match="exists already"):
        export_features(make_cache(), tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == b"precious"


def test_cells_that_a_spreadsheet_would_run_are_neutralised(tmp_path: Path) -> None:
    hostile = ["=HYPERLINK(A1)", "+1+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", "\t=1", " =1", "\uff1d1"]
    ids = [*hostile, "-1", "plain", "a=b"]
    labels = {"kind": LabelSet(["=evil()", "good"], np.arange(len(ids)) % 2)}
    Catalog("toy", ids, labels, "kind").write(tmp_path / "cache" / "toy")
    export_features(tmp_path / "cache", tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    assert [row[0] for row in rows] == [*(f"'{clip}" for clip in hostile), "-1", "plain", "a=b"]
    assert rows[0][4] == "'=evil()"
    assert rows[1][4] == "good"
