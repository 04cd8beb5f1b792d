"""Arrays of npz, npy, HDF5, pickle and CSV files and of folders of npy files are read a few clips at a time.

A folder holds one npy file for each clip (format "folder"), or one for each array (format "arrays").
"""

from __future__ import annotations

import csv
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from ...errors import CacheError, unknown
from ..catalog import check_inside
from ..hdf5 import dataset_names, own_dataset
from .pickles import load_plain

BLOCK_BYTES = 8 << 20
_BY_SUFFIX = {
    ".npz": "npz",
    ".npy": "npy",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".csv": "csv",
}
FORMATS = ("npz", "npy", "hdf5", "folder", "arrays", "pickle", "csv")


class Column(ABC):
    """One array of a source."""

    rows: int | None
    """The length of the first axis, or None where rows are found by clip id."""

    @abstractmethod
    def values(self) -> np.ndarray:
        """The whole array in memory, for labels, ids and the like."""

    @abstractmethod
    def clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        """The rows one by one, in the order of ``ids``; None where a source that is indexed by id lacks a clip."""


class ArrayColumn(Column):
    """An array in memory, a memory-mapped array, or an HDF5 dataset."""

    def __init__(self, data: np.ndarray | h5py.Dataset) -> None:
        self.data = data
        self.rows = data.shape[0] if data.shape else 0

    def values(self) -> np.ndarray:
        if isinstance(self.data, h5py.Dataset) and h5py.check_string_dtype(self.data.dtype):
            return np.asarray(self.data.asstr()[()], dtype=str)
        return np.asarray(self.data[()])

    def clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        step = _block_rows(self.data.shape, self.data.dtype)
        for start in range(0, self.data.shape[0], step):
            yield from np.asarray(self.data[start : start + step])


class ListColumn(Column):
    """A list of arrays that may differ in length."""

    def __init__(self, items: Sequence[object]) -> None:
        self.items = items
        self.rows = len(items)

    def values(self) -> np.ndarray:
        return np.array(self.items)

    def clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        return (None if item is None else np.asarray(item) for item in self.items)


class NpzColumn(Column):
    """A member of an npz archive, decompressed a block of clips at a time."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            self.shape, self.fortran, self.dtype = _npy_header(member)
        self.rows = self.shape[0] if self.shape else 0

    def values(self) -> np.ndarray:
        with np.load(self.path, allow_pickle=False) as archive:
            return np.asarray(archive[self.name])

    def clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        if self.fortran:  # The rows are then not contiguous in the file.
            yield from self.values()
            return
        step = _block_rows(self.shape, self.dtype)
        row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as member:
            _npy_header(member)
            for start in range(0, self.shape[0], step):
                rows = min(step, self.shape[0] - start)
                data = member.read(rows * row_bytes)
                if len(data) != rows * row_bytes:
                    raise CacheError(f"Array {self.name!r} of {self.path.name!r} is cut short.")
                yield from np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])


class FolderColumn(Column):
    """A folder with one npy file for each clip, named for the clip's id."""

    rows = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def values(self) -> np.ndarray:
        found = (
            path.relative_to(self.folder).with_suffix("").as_posix() for path in self.folder.rglob("*.npy")
        )
        return np.array(sorted(found), dtype=str)

    def clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        for clip in ids:
            check_inside(clip)
            path = self.folder / f"{clip}.npy"
            yield _load_npy(path) if path.is_file() else None


class Source:
    """A file or folder with named arrays; a single npy file, or a folder of clips, has one array, named ""."""

    def __init__(self, path: Path, kind: str | None = None) -> None:
        if not path.exists():
            raise CacheError(
                f"Source {str(path)!r} does not exist; mend its path, or give it as --source NAME=PATH."
            )
        self.path = path
        self.kind = kind or ("folder" if path.is_dir() else _BY_SUFFIX.get(path.suffix.lower(), ""))
        if self.kind not in FORMATS:
            raise unknown(f"format of source {path.name!r}", self.kind, FORMATS)
        if (self.kind in ("folder", "arrays")) != path.is_dir():
            raise CacheError(
                f"Source {str(path)!r} is {'a' if path.is_dir() else 'no'} folder; mend its format."
            )
        self._open: dict[str, Any] = {}
        self._file: h5py.File | None = None
        try:
            self.names = self._list()
        except CacheError:
            raise
        except Exception as error:  # Each format's reader raises its own errors for a file of another format.
            raise CacheError(f"Source {str(path)!r} cannot be read as {self.kind} ({error}).") from None

    def _list(self) -> list[str]:
        if self.kind == "npz":
            with zipfile.ZipFile(self.path) as archive:
                return [name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")]
        if self.kind == "hdf5":
            self._file = h5py.File(self.path, "r")
            return list(dataset_names(self._file))
        if self.kind == "arrays":
            return FolderColumn(self.path).values().tolist()
        if self.kind == "pickle":
            self._open = _named(load_plain(self.path), self.path)
            return list(self._open)
        if self.kind == "csv":
            self._open = dict(_csv_columns(self.path))
            return list(self._open)
        return [""]

    def column(self, name: str) -> Column:
        """The array of that name. Raises UsageError for an unknown one, CacheError where it cannot be read."""
        if self._file is not None:
            return self._hdf5_column(self._file, name)
        if name not in self.names:
            raise unknown(f"array of source {self.path.name!r}", name, self.names)
        try:
            if self.kind == "npz":
                return NpzColumn(self.path, name)
            if self.kind == "folder":
                return FolderColumn(self.path)
            if self.kind in ("npy", "arrays"):
                path = self.path if self.kind == "npy" else self.path / f"{name}.npy"
                return ArrayColumn(np.load(path, mmap_mode="r", allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise CacheError(f"Array {name!r} of {self.path.name!r} cannot be read ({error}).") from None
        found = self._open[name]
        return ArrayColumn(found) if isinstance(found, np.ndarray) else ListColumn(list(found))

    def _hdf5_column(self, file: h5py.File, name: str) -> Column:
        try:
            return ArrayColumn(own_dataset(file, name))
        except KeyError:
            raise unknown(f"array of source {self.path.name!r}", name, self.names) from None
        except Exception as error:  # Damaged HDF5 makes h5py raise nearly anything.
            raise CacheError(f"Array {name!r} of {self.path.name!r} cannot be read: {error}.") from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _named(content: object, path: Path) -> dict[str, Any]:
    if isinstance(content, dict) and all(isinstance(v, (np.ndarray, list, tuple)) for v in content.values()):
        return {str(name): value for name, value in content.items()}
    if isinstance(content, (np.ndarray, list, tuple)):
        return {"": content}
    raise CacheError(
        f"Pickle {path.name!r} must hold an array, or a dict from names to arrays or lists of arrays."
    )


def _csv_columns(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise CacheError(f"Source {str(path)!r} is empty; its first line must name the columns.")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise CacheError(
                f"Line {number} of {path.name!r} has {len(row)} fields; its first line has {len(rows[0])}."
            )
    for i, name in enumerate(rows[0]):
        yield name, np.array([row[i] for row in rows[1:]], dtype=str)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects; save it with a numeric or text type")
    return shape, fortran, dtype


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        raise CacheError(f"{str(path)!r} cannot be read ({error}).") from None


def _block_rows(shape: Sequence[int], dtype: np.dtype) -> int:
    row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    return max(1, BLOCK_BYTES // max(row, 1))
