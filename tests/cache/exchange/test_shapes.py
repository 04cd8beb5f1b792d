"""The shapes in which strangers keep features and labels: apart for each clip, as attributes, records and dicts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from import_support import import_with, rows

from fsmm.errors import FsmmError

CLIPS = {
    f"v_{i}": np.random.default_rng(i).normal(size=(i % 3 + 1, 4)).astype(np.float32) for i in (3, 10, 2, 1)
}
LABEL = {"v_3": "run", "v_10": "jump", "v_2": "run", "v_1": "walk"}
STREAM = {"stream": "frame/net", "dtype": "float32"}


def check(folder: Path, source: str, array: str, label: Any, **more: Any) -> None:
    """Import features and labels of the four clips, and compare both with what they are."""
    catalog = import_with(folder, source=source, arrays={array: STREAM}, label_sets={"y": label}, **more)
    labels = catalog.labels()
    found = {clip: labels.class_names[i] for clip, i in zip(catalog.clip_id, labels.label.tolist())}
    assert found == LABEL
    stored = rows(folder / "cache", "frame/net")
    assert stored.keys() == CLIPS.keys()
    for clip, x in CLIPS.items():
        np.testing.assert_array_equal(stored[clip], x)


@pytest.mark.parametrize(
    ("place", "on_group", "array", "label"),
    [
        ("{}/rgb", True, "*/rgb", "*@label"),
        ("{}/rgb", True, "rgb", "*@label"),
        ("{}/rgb", True, "*/rgb", "*/label"),
        ("{}/rgb", False, "*/rgb", "label"),
        ("features/{}", False, "features", "label"),
        ("{}/rgb", False, "*/rgb", "*/rgb@label"),
        ("{}", False, "*", "*@label"),
        ("features/{}", False, "features", "features/*@label"),
        ("all/{}/rgb", True, "all/*/rgb", "all/*@label"),
    ],
)
def test_labels_as_attributes_of_hdf5_groups_and_datasets(
    tmp_path: Path, place: str, on_group: bool, array: str, label: str
) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for clip, x in CLIPS.items():
            file[place.format(clip)] = x
            holder = file[place.format(clip)].parent if on_group else file[place.format(clip)]
            holder.attrs["label"] = LABEL[clip] if clip != "v_1" else np.bytes_(LABEL[clip])
    check(tmp_path, "f.h5", array, label)


def test_class_numbers_as_attributes_and_class_names_as_one_of_the_file(tmp_path: Path) -> None:
    names = ["run", "jump", "walk"]
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.attrs["classes"] = names
        for clip, x in CLIPS.items():
            file[f"{clip}/rgb"] = x
            file[clip].attrs["label"] = names.index(LABEL[clip])
    check(tmp_path, "f.h5", "*/rgb", {"label": "*@label", "class_names": "@classes"})


def test_a_clip_without_the_attribute_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for clip, x in CLIPS.items():
            file[f"{clip}/rgb"] = x
        file["v_1"].attrs["label"] = "walk"
    with pytest.raises(FsmmError, match="'\\*@label' has no value for clip 'v_"):
        check(tmp_path, "f.h5", "*/rgb", "*@label")


def test_an_unknown_array_names_the_attributes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for clip, x in CLIPS.items():
            file[f"{clip}/rgb"] = x
            file[clip].attrs["label"] = LABEL[clip]
    with pytest.raises(FsmmError, match=r"Known: \*/rgb, \*@label"):
        check(tmp_path, "f.h5", "*/rgb", "labels")


@pytest.mark.parametrize(
    ("datasets", "holders", "told"),
    [
        (["features"], ["features"], "features@kinds"),
        (["all/v1", "all/v2"], ["all/v1", "all/v2"], r"all/\*@kinds"),
        (["all/v1", "all/v2"], ["all"], "all@kinds"),
        (["v1/a", "v1/b", "v2/a", "v2/b"], ["v1/a"], r"\*/a@kinds"),
        (["features"], ["/"], "@kinds"),
    ],
)
def test_attributes_are_named_where_an_array_is_unknown(
    tmp_path: Path, datasets: list[str], holders: list[str], told: str
) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name in datasets:
            file[name] = np.ones((2, 3), np.float32)
        for name in holders:
            file[name].attrs["kinds"] = [0, 1]
    with pytest.raises(FsmmError, match=rf"Known: .*{told}"):
        import_with(tmp_path, source="f.h5", arrays={"x": STREAM}, label_sets={"y": "x"})


def test_features_and_labels_of_one_row_a_clip(tmp_path: Path) -> None:
    x = np.stack([clip.mean(0) for clip in CLIPS.values()])
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"], file["labels"], file["names"] = x, list(LABEL.values()), list(CLIPS)
    catalog = import_with(
        tmp_path, source="f.h5", ids="names", arrays={"features": STREAM}, label_sets={"y": "labels"}
    )
    assert catalog.clip_id == list(CLIPS)
    np.testing.assert_array_equal(rows(tmp_path / "cache", "frame/net")["v_10"], x[1:2])


def test_records_as_pytables_and_pandas_write_them(tmp_path: Path) -> None:
    kinds = np.dtype([("index", "i8"), ("name", "S8"), ("x", "f4", (4,)), ("y", h5py.string_dtype())])
    records = np.zeros(4, kinds)
    for row, (clip, x) in zip(records, CLIPS.items()):
        row["name"], row["x"], row["y"] = clip.encode(), x[0], LABEL[clip]
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["df/table"] = records
    catalog = import_with(
        tmp_path,
        source="f.h5",
        ids="df/table/name",
        arrays={"df/table/x": STREAM},
        label_sets={"y": "df/table/y"},
    )
    assert catalog.clip_id == list(CLIPS)
    assert catalog.labels().class_names == ["jump", "run", "walk"]
    stored = rows(tmp_path / "cache", "frame/net")
    for clip, x in CLIPS.items():
        np.testing.assert_array_equal(stored[clip], x[:1])
    with pytest.raises(
        FsmmError, match="table of records; name a field of it: df/table/index, df/table/name"
    ):
        import_with(tmp_path, source="f.h5", arrays={"df/table": STREAM}, label_sets={"y": "df/table/y"})


def test_npz_with_one_member_a_clip(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **CLIPS)
    text = "id,y\n" + "".join(f"{clip},{label}\n" for clip, label in LABEL.items())
    (tmp_path / "l.csv").write_text(text)
    catalog = import_with(
        tmp_path,
        sources={"f": "f.npz", "l": "l.csv"},
        ids="l:id",
        arrays={"f:*": STREAM},
        label_sets={"y": "l:y"},
    )
    assert len(catalog) == 4
    np.testing.assert_array_equal(rows(tmp_path / "cache", "frame/net")["v_2"], CLIPS["v_2"])
    nested = {f"{clip}/rgb": x for clip, x in CLIPS.items()} | {
        f"{c}/y": np.array(y) for c, y in LABEL.items()
    }
    np.savez(tmp_path / "n.npz", **nested)
    (tmp_path / "n").mkdir()
    check(tmp_path / "n", "../n.npz", "*/rgb", "*/y")


@pytest.mark.parametrize("form", ["folder", "npz", "h5"])
def test_ids_and_names_may_spell_an_accent_differently(tmp_path: Path, form: str) -> None:
    """A list written on one system, features on another."""
    x = {"cafe\u0301": CLIPS["v_1"], "\u00e9t\u00e9": CLIPS["v_2"]}
    (tmp_path / "l.csv").write_text("id,y,g\ncaf\u00e9,a,nan\ne\u0301te\u0301,b,p1\n", "utf-8")
    if form == "folder":
        (tmp_path / "f").mkdir()
        for clip, features in x.items():
            np.save(tmp_path / "f" / f"{clip}.npy", features)
    elif form == "npz":
        np.savez(tmp_path / "f.npz", **x)
    else:
        with h5py.File(tmp_path / "f.h5", "w") as file:
            for clip, features in x.items():
                file[clip] = features
    source = "f" if form == "folder" else f"f.{form}"
    catalog = import_with(
        tmp_path,
        sources={"f": source, "l": "l.csv"},
        ids="l:id",
        arrays={"f" if form == "folder" else "f:*": STREAM},
        label_sets={"y": "l:y"},
        groups="l:g",
    )
    stored = rows(tmp_path / "cache", "frame/net")
    for clip, features in zip(catalog.clip_id, x.values()):
        np.testing.assert_array_equal(stored[clip], features)
    assert catalog.group == ["", "p1"]


def contents(form: str) -> Any:
    """One data set in the forms in which pickles hold it."""
    nested = {clip: {"rgb": x, "y": LABEL[clip]} for clip, x in CLIPS.items()}
    return {
        "clip first": nested,
        "array first": {"rgb": CLIPS, "y": LABEL},
        "records": [{"id": clip, **nested[clip]} for clip in CLIPS],
    }[form]


@pytest.mark.parametrize("ending", ["pkl", "npy"])
@pytest.mark.parametrize(
    ("form", "array", "label", "more"),
    [
        ("clip first", "*/rgb", "*/y", {}),
        ("array first", "rgb", "y", {}),
        ("array first", "rgb/*", "y/*", {}),
        ("records", "rgb", "y", {"ids": "id"}),
    ],
)
def test_dicts_and_records_in_pickles_and_in_npy_files_of_objects(
    tmp_path: Path, ending: str, form: str, array: str, label: str, more: dict[str, str]
) -> None:
    content = contents(form)
    path = tmp_path / f"f.{ending}"
    if ending == "npy":
        np.save(
            path, np.array(content, dtype=object) if isinstance(content, dict) else np.array(content), True
        )
    else:
        path.write_bytes(pickle.dumps(content))
    check(tmp_path, path.name, array, label, **more)


def test_records_with_different_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f.pkl").write_bytes(pickle.dumps([{"x": CLIPS["v_1"]}, {"z": 1}]))
    with pytest.raises(FsmmError, match="list of dicts with different keys"):
        import_with(tmp_path, source="f.pkl", arrays={"x": STREAM}, label_sets={"y": "y"})


def test_a_npy_file_of_objects_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    np.save(tmp_path / "f.npy", np.array({"x": Evil()}, dtype=object), True)
    with pytest.raises(FsmmError, match="not a pickle of numpy arrays"):
        import_with(tmp_path, source="f.npy", arrays={"x": STREAM}, label_sets={"y": "y"})
    assert not (tmp_path / "run").exists()


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    np.savez(tmp_path / "clips" / "v_1.npz", x=CLIPS["v_1"])
    with pytest.raises(FsmmError, match=r"holds no \.npy file \(endings there: \.npz\)"):
        import_with(tmp_path, source="clips", arrays={"source": STREAM}, label_sets={"y": "y"})
