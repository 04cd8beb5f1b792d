"""Values of HDF5 files come from the file itself, or there is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.hdf5 import own_dataset, stored_array
from fsmm.cache.header import HEADER_BYTES, READ_SCHEMAS, file_digest, header_is_right
from fsmm.cache.schema import Provenance
from fsmm.cache.shard import build_shard, read_shard, write_shard
from fsmm.errors import CacheError

VALUES = np.arange(12.0).reshape(4, 3)


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "private").write_bytes(b"secret.." * 12)
    file.create_dataset("x", (4, 3), "f8", external=[(str(folder / "private"), 0, 96)])


def absent_virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4, 3), dtype="f8")
    layout[:] = h5py.VirtualSource("gone.h5", "x", shape=(4, 3))
    file.create_virtual_dataset("x", layout)


def virtual_of_another_file(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = VALUES
    layout = h5py.VirtualLayout(shape=(4, 3), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(4, 3))
    file.create_virtual_dataset("x", layout)


def virtual_of_a_linked_dataset(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = VALUES
    file["y"] = h5py.ExternalLink(str(folder / "other.h5"), "x")
    layout = h5py.VirtualLayout(shape=(4, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(".", "y", shape=(4, 3))
    file.create_virtual_dataset("x", layout)


def virtual_with_a_gap(file: h5py.File, folder: Path) -> None:
    file["y"] = VALUES[:2]
    layout = h5py.VirtualLayout(shape=(4, 3), dtype="f8")
    layout[:2] = h5py.VirtualSource(".", "y", shape=(2, 3))
    file.create_virtual_dataset("x", layout)


def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = VALUES
    file["x"] = h5py.ExternalLink(str(folder / "other.h5"), "x")


def never_written(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", (4, 3), "f8")


def partly_written(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", (4, 3), "f8", chunks=(1, 3))[:2] = VALUES[:2]


FOREIGN = [
    external_storage, absent_virtual, virtual_of_another_file, virtual_of_a_linked_dataset, virtual_with_a_gap,
    external_link, never_written, partly_written,
]  # fmt: skip


@pytest.mark.parametrize("make", FOREIGN)
def test_values_that_are_not_all_in_the_file_are_refused(
    tmp_path: Path, make: Callable[[h5py.File, Path], None]
) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        make(file, tmp_path)
    with h5py.File(tmp_path / "f.h5", "r") as file, pytest.raises(ValueError, match=r"'[xy]'"):
        own_dataset(file, "x")


def test_chunks_compression_and_views_within_the_file_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["plain"] = VALUES
        file.create_dataset("packed", data=VALUES, compression="gzip", chunks=(2, 2), maxshape=(None, 3))
        file["packed"].resize((4, 3))
        layout = h5py.VirtualLayout(shape=(8, 3), dtype="f8")
        layout[:4] = h5py.VirtualSource(file["plain"])
        layout[4:] = h5py.VirtualSource(file["packed"])
        file.create_virtual_dataset("deep/view", layout)
        file.create_dataset("empty", (0, 3), "f4")
    with h5py.File(tmp_path / "f.h5", "r") as file:
        for name in ("plain", "packed"):
            assert np.array_equal(own_dataset(file, name)[()], VALUES)
        assert np.array_equal(own_dataset(file, "deep/view")[()], np.concatenate([VALUES, VALUES]))
        assert own_dataset(file, "empty").shape == (0, 3)


def reseal(path: Path, kind: str) -> None:
    """Make a file that was changed by hand look whole, as whoever crafts one would."""
    line = f"{kind} {READ_SCHEMAS[kind][0]} sha256={file_digest(path)}\n"
    with open(path, "rb+") as raw:
        raw.write(line.encode().ljust(HEADER_BYTES, b"\0"))
    assert header_is_right(path, kind)


@pytest.mark.parametrize("make", FOREIGN)
def test_a_crafted_shard_reads_no_other_file(tmp_path: Path, make: Callable[[h5py.File, Path], None]) -> None:
    path = tmp_path / "00000.h5"
    provenance = Provenance("net", "frame", 3, dtype="float64")
    write_shard(path, build_shard("toy", provenance, [("clip", VALUES, {})]))
    with h5py.File(path, "r+") as file:
        del file["features"]
        make(file, tmp_path)
        file.move("x", "features")
    reseal(path, "fsmm-shard")
    for features in (True, False):
        with pytest.raises(CacheError, match=r"Shard .* is damaged"):
            read_shard(path, features=features)


@pytest.mark.parametrize("chunks", [None, (65536,)])
@pytest.mark.parametrize("name", ["clips/duration", "clips/id", "label_sets/kind/label"])
def test_declared_sizes_are_not_believed(tmp_path: Path, name: str, chunks: tuple[int, ...] | None) -> None:
    """The declared 16 GB would be allocated, and filled with zeros, before any other check could find them wrong."""
    labels = {"kind": LabelSet(["a", "b"], np.array([0, 1]))}
    Catalog("toy", ["c1", "c2"], labels, "kind").write(tmp_path / "toy")
    path = tmp_path / "toy" / "catalog.h5"
    with h5py.File(path, "r+") as file:
        dtype = file[name].dtype
        del file[name]
        file.create_dataset(name, (2 * 10**9,), dtype, chunks=chunks)
    reseal(path, "fsmm-catalog")
    with pytest.raises(CacheError, match=r"catalog .* is damaged"):
        Catalog.read(tmp_path / "toy")


def test_a_stored_array_is_one_block(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = VALUES
        file.create_dataset("y", data=VALUES, chunks=(2, 3))
    with h5py.File(tmp_path / "f.h5", "r") as file:
        assert np.array_equal(stored_array(file, "x")[()], VALUES)
        with pytest.raises(ValueError, match="one block"):
            stored_array(file, "y")
        with pytest.raises(KeyError):
            stored_array(file, "z")
