"""Files as people have them: CSV tables, HDF5 with one group a clip, and what MATLAB writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from import_support import import_with, rows

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.exchange.importing import import_features
from fsmm.errors import FsmmError


def from_csv(folder: Path, text: str | bytes, **label: Any) -> LabelSet:
    """The labels that a CSV file with the columns id and label gives to the clips of an array."""
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "l.csv").write_bytes(data)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float16)
    np.savez(folder / "f.npz", x=x)
    mapping = {
        "dataset": "made",
        "sources": {"f": "f.npz", "l": "l.csv"},
        "ids": "l:id",
        "arrays": {"f:x": "frame/net"},
        "label_sets": {"c": {"label": "l:label", **label}},
    }
    (folder / "m.json").write_text(json.dumps(mapping))
    import_features(folder / "m.json", folder / "cache")
    catalog = Catalog.read(folder / "cache" / "made")
    assert catalog.clip_id == ["v0", "v1", "v2", "v3"]
    return catalog.labels()


ROWS = "v0,cat\nv1,dog\nv2,cat\nv3,\n"


@pytest.mark.parametrize(
    "text",
    [
        "id,label\n" + ROWS,
        "\ufeffid,label\n" + ROWS,
        "id,label\n\n" + ROWS.replace("v2", "\n  \nv2") + "\n",
        "ID,Label\r\n" + ROWS.replace("\n", "\r\n"),
        " id , label \n" + ROWS.replace(",", " , "),
        ("id;label\n" + ROWS.replace(",", ";")),
        ("id\tlabel\n" + ROWS.replace(",", "\t")),
        ("id,label\n" + ROWS).encode("utf-16"),
        ",id,label\n" + "".join(f"{i},{row}\n" for i, row in enumerate(ROWS.split())),
        "id,label,\n" + ROWS.replace("\n", ",\n"),
        "id,label\n" + ROWS.replace("\n", ",\n"),
        "id,label\n" + ROWS.replace("v3,", "v3,-1"),
        "id,label\n" + ROWS.replace("v3,", "v3,NaN"),
        "id,label\n" + ROWS.replace("v3,", "v3,None"),
        "id,label\n" + ROWS.replace("v3,", "v3,<NA>"),
        ("id,label\n" + ROWS).encode("utf-16-le"),
        "sep=;\nid;label\n" + ROWS.replace(",", ";"),
    ],
    ids=[
        "plain", "mark", "blank lines", "case", "blanks", "semicolons", "tabs", "utf-16", "pandas", "trailing comma",
        "surplus cells", "-1", "nan", "None", "NA", "utf-16 without a mark", "sep",
    ],
)  # fmt: skip
def test_csv_files_as_people_have_them_give_the_same_labels(tmp_path: Path, text: str | bytes) -> None:
    labels = from_csv(tmp_path, text)
    assert labels.class_names == ["cat", "dog"]
    assert labels.label.tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize("cells", ["0,1,0,-1", "0.0,1.0,0.0,nan", "0,1,0,"])
def test_class_numbers_of_a_csv_file_are_numbers_where_class_names_are_given(
    tmp_path: Path, cells: str
) -> None:
    rows = "".join(f"v{i},{cell}\n" for i, cell in enumerate(cells.split(",")))
    labels = from_csv(tmp_path, "id,label\n" + rows, class_names=["cat", "dog"])
    assert labels.label.tolist() == [0, 1, 0, -1]


def test_a_class_that_is_given_may_have_a_name_like_an_unlabelled_one(tmp_path: Path) -> None:
    labels = from_csv(tmp_path, "id,label\nv0,nan\nv1,-1\nv2,cat\nv3,\n", class_names=["-1", "cat", "nan"])
    assert labels.label.tolist() == [2, 0, 1, -1]


def test_a_csv_cell_may_name_several_classes(tmp_path: Path) -> None:
    labels = from_csv(tmp_path, "id,label\nv0,dog|cat\nv1,dog\nv2, cat | cow \nv3,\n")
    assert labels.class_names == ["cat", "cow", "dog"]
    assert labels.label.tolist() == [[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_two_spellings_of_one_accent_are_one_class(tmp_path: Path) -> None:
    text = "id,label\nv0,caf\u00e9\nv1,cafe\u0301\nv2,bar\nv3,bar\n"
    split = {"base": ["cafe\u0301"], "novel": ["bar"]}
    labels = from_csv(tmp_path, text, splits={"default": split})
    assert labels.class_names == ["bar", "caf\u00e9"]
    assert labels.label.tolist() == [1, 1, 0, 0]
    assert labels.splits["default"].tolist() == [3, 1]


def test_spellings_are_one_class_where_class_names_and_word_keys_are_given(tmp_path: Path) -> None:
    """Names, splits and the keys of word vectors may spell an accent in either way."""
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.savez(
        tmp_path / "f.npz",
        x=x,
        y=np.array([0.0, np.nan, 1.0, 0.0]),
        keys=np.array(["c/cafe\u0301", "c/bar"]),
        vectors=x[:2],
    )
    catalog = import_with(
        tmp_path,
        source="f.npz",
        arrays={"x": "frame/net"},
        label_sets={
            "c": {
                "label": "y",
                "class_names": ["cafe\u0301", "bar"],
                "splits": {"default": {"base": ["caf\u00e9"], "novel": ["bar"]}},
            }
        },
        words={"word/net": {"keys": "keys", "vectors": "vectors"}},
    )
    assert catalog.labels().class_names == ["caf\u00e9", "bar"]
    assert catalog.labels().label.tolist() == [0, -1, 1, 0]
    assert catalog.labels().splits["default"].tolist() == [1, 3]
    assert set(rows(tmp_path / "cache", "word/net")) == {"c/caf\u00e9", "c/bar"}


def test_names_that_may_be_one_or_none_are_warned_about(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", x=np.eye(4, dtype=np.float32), y=np.array(["Cat", "cat", "null", ""]))
    mapping = {"dataset": "made", "source": "f.npz", "arrays": {"x": "frame/net"}, "label_sets": {"c": "y"}}
    (tmp_path / "m.json").write_text(json.dumps(mapping))
    warnings = import_features(tmp_path / "m.json", tmp_path / "cache").warnings
    assert any("'Cat', 'cat'" in warning for warning in warnings)
    assert any("'null'" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,label\nv0,cat,more\n", r"Line 2 of .* has 3 cells; its first line has 2"),
        ("id,label,label\nv0,cat,dog\n", "different names"),
        ("", "must name its columns"),
        ('id,label\nv0,"cat\n', "is not CSV"),
    ],
)
def test_a_csv_file_of_another_form_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(FsmmError, match=says):
        from_csv(tmp_path, text)


C3D = {
    f"v_{i}": np.random.default_rng(i).normal(size=(i % 3 + 1, 4)).astype(np.float32) for i in (3, 10, 2, 1)
}


@pytest.mark.parametrize(
    ("place", "array"),
    [
        ("{}/c3d", "c3d"),
        ("{}/c3d", "*/c3d"),
        ("a/{}/c3d", "a/*/c3d"),
        ("feats/{}", "feats"),
        ("feats/{}", "feats/*"),
    ],
)
def test_hdf5_with_one_group_or_dataset_a_clip(tmp_path: Path, place: str, array: str) -> None:
    with h5py.File(tmp_path / "c3d.h5", "w") as file:
        for clip, x in C3D.items():
            file[place.format(clip)] = x
    (tmp_path / "l.csv").write_text("id,label\nv_1,b\nv_10,a\nv_3,b\nv_2,a\ngone,a\n")
    catalog = import_with(
        tmp_path,
        sources={"f": "c3d.h5", "l": "l.csv"},
        ids="l:id",
        arrays={f"f:{array}": {"stream": "frame/c3d", "dtype": "float32"}},
        label_sets={"y": "l:label"},
    )
    assert catalog.labels().label.tolist() == [1, 0, 1, 0, 0]
    found = rows(tmp_path / "cache", "frame/c3d")
    assert found.pop("gone") is None
    assert list(found) == ["v_1", "v_10", "v_3", "v_2"]
    assert all(x is not None and np.array_equal(x, C3D[clip]) for clip, x in found.items())


def test_groups_of_hdf5_may_hold_their_labels_and_give_the_ids(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c3d.h5", "w") as file:
        for number, (clip, x) in enumerate(C3D.items()):
            file[f"{clip}/c3d"] = x
            file[f"{clip}/label"] = number
            file[f"{clip}/kind"] = "odd" if number % 2 else "even"
        file["y"] = np.arange(4)
    mapping = {"source": "c3d.h5", "arrays": {"c3d": {"stream": "frame/c3d", "dtype": "float32"}}}
    names = ["a", "b", "c", "d"]
    labels = {"number": {"label": "label", "class_names": names}, "kind": "kind"}
    catalog = import_with(tmp_path, **mapping, label_sets=labels)
    assert dict(zip(catalog.clip_id, catalog.labels("number").label.tolist())) == {
        clip: number for number, clip in enumerate(C3D)
    }
    kinds = catalog.labels("kind")
    assert [kinds.class_names[i] for i in kinds.label] == [
        "odd" if list(C3D).index(clip) % 2 else "even" for clip in catalog.clip_id
    ]
    with pytest.raises(FsmmError, match="rows of array 'y' have no ids"):
        import_with(tmp_path, **mapping, label_sets={"z": {"label": "y", "class_names": names}})


def test_an_unknown_array_of_thousands_of_groups_is_a_short_sentence_with_the_remedy(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c3d.h5", "w") as file:
        for i in range(1000):
            file[f"v_{i:05d}/c3d_features"] = np.ones((1, 2), np.float32)
    with pytest.raises(FsmmError, match=r"Known: \*/c3d_features\. The file has one group a clip") as caught:
        import_with(
            tmp_path, source="c3d.h5", arrays={"c3d_features": "frame/c3d"}, label_sets={"c": {"label": "y"}}
        )
    assert len(str(caught.value)) < 400


def write_matlab(path: Path, **arrays: np.ndarray | list[str]) -> None:
    """A file as MATLAB's save -v7.3 writes it: axes in reverse order, texts in cells, everything else in doubles."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            if isinstance(values, list):
                cells = np.empty((1, len(values)), h5py.ref_dtype)
                for i, text in enumerate(values):
                    cell = file.create_dataset(
                        f"#refs#/{name}{i}", data=np.array([[ord(c)] for c in text], np.uint16)
                    )
                    cell.attrs["MATLAB_class"] = np.bytes_("char")
                    cells[0, i] = cell.ref
                file.create_dataset(name, data=cells, dtype=h5py.ref_dtype)
                file[name].attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                file[name] = np.atleast_2d(values).astype(float).T
                file[name].attrs["MATLAB_class"] = np.bytes_("double")


@pytest.mark.parametrize("shape", [(6, 4), (6, 3, 4), (6, 6)])
def test_what_matlab_writes_is_read_the_right_way_round(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    names = ["cat", "dog", "h\u00e9ron"]
    label = np.array([0.0, 1, 2, 0, 1, 2])
    write_matlab(
        tmp_path / "m.mat",
        x=x,
        row=label,
        column=label[:, None],
        texts=[names[int(i)] for i in label],
        names=names,
    )
    catalog = import_with(
        tmp_path,
        source="m.mat",
        arrays={"x": {"stream": "frame/net", "dtype": "float64"}},
        label_sets={
            "row": {"label": "row", "class_names": "names"},
            "column": {"label": "column", "class_names": names},
            "texts": "texts",
        },
    )
    for labels in catalog.label_sets.values():
        assert (labels.class_names, labels.label.tolist()) == (names, [0, 1, 2, 0, 1, 2])
    found = rows(tmp_path / "cache", "frame/net")
    for i in range(6):
        row = found[f"{i:06d}"]
        assert row is not None
        assert np.array_equal(row, x[i].reshape(-1, shape[-1]))


def test_clips_in_the_columns_of_a_matlab_matrix_are_read_where_it_is_said(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, 6))
    write_matlab(tmp_path / "m.mat", x=x, y=np.arange(6) % 2, id=[f"v{i}" for i in range(6)])
    mapping = {"source": "m.mat", "ids": "id", "label_sets": {"y": {"label": "y", "class_names": ["a", "b"]}}}
    with pytest.raises(FsmmError, match="'transposed': true"):
        import_with(tmp_path, **mapping, arrays={"x": "frame/net"})
    import_with(
        tmp_path, **mapping, arrays={"x": {"stream": "frame/net", "dtype": "float64", "transposed": True}}
    )
    found = rows(tmp_path / "cache", "frame/net")
    assert list(found) == [f"v{i}" for i in range(6)]
    assert np.array_equal(np.concatenate([row for row in found.values() if row is not None]), x.T)


def test_a_transposed_array_is_pointed_out_and_read_where_it_is_said(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = x.T
        file["y"] = np.arange(6) % 2
        file["id"] = np.arange(6)
    mapping = {"source": "f.h5", "ids": "id", "label_sets": {"y": {"label": "y", "class_names": ["a", "b"]}}}
    with pytest.raises(
        FsmmError, match=r"'x' has 4 rows where the clips are 6; its last axis .* 'transposed': true"
    ):
        import_with(tmp_path, **mapping, arrays={"x": "frame/net"})
    array = {"stream": "frame/net", "dtype": "float32", "transposed": True}
    import_with(tmp_path, **mapping, arrays={"x": array})
    found = rows(tmp_path / "cache", "frame/net")
    assert np.array_equal(np.concatenate([row for row in found.values() if row is not None]), x)
    np.savez(tmp_path / "f.npz", x=x.T, y=np.arange(6) % 2, id=np.arange(6))
    import_with(tmp_path, **{**mapping, "source": "f.npz"}, arrays={"x": array})


def test_an_old_matlab_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "m.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(1000, b" "))
    with pytest.raises(FsmmError, match=r"older MATLAB format; save it with '-v7.3'"):
        import_with(tmp_path, source="m.mat", arrays={"x": "frame/net"}, label_sets={"y": "y"})
