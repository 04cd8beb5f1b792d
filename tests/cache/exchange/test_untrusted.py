"""Sources of strangers: pipes, devices and files that declare or stand for more than they hold."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from import_support import NAMES, changed, run, save

from fsmm.cache.exchange.importing import import_features
from fsmm.errors import FsmmError


@pytest.mark.parametrize("kind", ["csv", "npz", "npy", "hdf5", "pickle", "folder", None])
def test_a_source_that_is_a_pipe_or_device_is_refused(tmp_path: Path, kind: str | None) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for place in ("pipe.csv", "/dev/zero"):
        source = place if kind is None else {"path": place, "format": kind}
        with pytest.raises(FsmmError, match="is a pipe or a device"):
            run(tmp_path, changed(source=source))


def test_a_clip_of_a_folder_that_is_a_pipe_is_refused_and_not_taken_for_absent(tmp_path: Path) -> None:
    (tmp_path / "feats").mkdir()
    np.save(tmp_path / "feats" / "a.npy", np.ones((2, 3), np.float32))
    os.mkfifo(tmp_path / "feats" / "b.npy")
    mapping = {
        "dataset": "made",
        "sources": {"feats": "feats"},
        "arrays": {"feats": "frame/net"},
        "label_sets": {"y": {"label": "feats"}},
    }
    (tmp_path / "m.json").write_text(json.dumps(mapping))
    with pytest.raises(FsmmError, match=r"b.npy' is a pipe"):
        import_features(tmp_path / "m.json", tmp_path / "cache")


def lying_npz(folder: Path, shape: tuple[int, ...], data: bytes) -> None:
    """An npz whose array 'frames' declares a shape that its bytes need not fill; they compress well."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(folder / "made.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames.npy", header.getvalue() + data)
        labels = io.BytesIO()
        np.save(labels, np.arange(2) % 2)
        archive.writestr("label.npy", labels.getvalue())


@pytest.mark.parametrize("shape", [(10**12, 7), (2, 10**12), (2, 3, 10**9)])
def test_an_npz_that_declares_more_than_it_holds_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    lying_npz(tmp_path, shape, bytes(1 << 20))
    mapping = {
        "dataset": "made",
        "source": "made.npz",
        "arrays": {"frames": "frame/net"},
        "label_sets": {"y": {"label": "label", "class_names": ["a", "b"]}},
    }
    (tmp_path / "m.json").write_text(json.dumps(mapping))
    with pytest.raises(FsmmError, match=r"'frames'.*declares"):
        import_features(tmp_path / "m.json", tmp_path / "cache")


@pytest.mark.parametrize("shape", [(10**12, 4), (30, 10**11)])
def test_hdf5_that_declares_more_than_it_holds_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("x", shape, "f4", chunks=(1, 4))[0, :4] = 1
    with pytest.raises(FsmmError, match=r"'x'.* never written"):
        run(
            tmp_path,
            changed(
                sources={"made": "made.npz", "huge": "huge.h5"}, source=None, arrays={"huge:x": "frame/x"}
            ),
        )


def test_yaml_aliases_that_stand_for_too_much_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 {k: x}"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    merged = ["a0: &a0 {k: x}"] + [
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)
    ]
    for text in (lines, merged, ["a: &a [*a]"]):
        (tmp_path / "m.yaml").write_text("\n".join(text))
        with pytest.raises(FsmmError, match="not valid YAML"):
            import_features(tmp_path / "m.yaml", tmp_path / "cache")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"])
def test_class_names_that_hdf5_cannot_hold_are_one_sentence(tmp_path: Path, name: str) -> None:
    path = save(
        tmp_path,
        changed(label_sets__kind__class_names=[name, *NAMES[1:]], label_sets__kind__splits=None, words=None),
    )
    with pytest.raises(FsmmError, match=r"could not be written|half of a surrogate pair"):
        import_features(path, tmp_path / "cache")
    assert not (tmp_path / "cache" / "made" / "catalog.h5").exists()
