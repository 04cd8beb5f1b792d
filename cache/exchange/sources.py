"""Arrays of npz, npy, HDF5, pickle and CSV files and of folders of npy files are read a few clips at a time.

A folder holds one npy file for each clip (format "folder"), or one for each array (format "arrays").
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import CacheError, unknown
from ...machine.files import refuse_special
from ...machine.texts import CsvTable, plain_text, read_csv
from .columns import ArrayColumn, Column, CsvColumn, FolderColumn, ListColumn, NpzColumn
from .hdf5_source import Hdf5Arrays
from .pickles import load_untrusted

_BY_SUFFIX = {
    ".npz": "npz",
    ".npy": "npy",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".mat": "hdf5",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".csv": "csv",
}
FORMATS = ("npz", "npy", "hdf5", "folder", "arrays", "pickle", "csv")


class Source:
    """A file or folder with named arrays; a single npy file, or a folder of clips, has one array, named ""."""

    def __init__(self, path: Path, kind: str | None = None) -> None:
        if not path.exists():
            raise CacheError(
                f"Source {str(path)!r} does not exist; mend its path, or give it as --source NAME=PATH."
            )
        refuse_special(path, "source", error=CacheError)
        self.path = path
        self.kind = kind or ("folder" if path.is_dir() else _BY_SUFFIX.get(path.suffix.lower(), ""))
        if self.kind not in FORMATS:
            raise unknown(f"format of source {path.name!r}", self.kind, FORMATS)
        if (self.kind in ("folder", "arrays")) != path.is_dir():
            raise CacheError(
                f"Source {str(path)!r} is {'a' if path.is_dir() else 'no'} folder; mend its format."
            )
        self.warnings: list[str] = []
        self._open: dict[str, Any] = {}
        self._file: h5py.File | None = None
        self._arrays: Hdf5Arrays | None = None
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
            if self.path.suffix.lower() == ".mat" and not h5py.is_hdf5(self.path):
                raise CacheError(f"{str(self.path)!r} is of an older MATLAB format; save it with '-v7.3'.")
            self._file = h5py.File(self.path, "r")
            self._arrays = Hdf5Arrays(self._file, self.path.name)
            return self._arrays.names
        if self.kind == "arrays":
            return FolderColumn(self.path).values().tolist()
        if self.kind == "pickle":
            self._open = _named(load_untrusted(self.path), self.path)
            return list(self._open)
        if self.kind == "csv":
            table = read_csv(self.path, error=CacheError)
            self._open, self.warnings = dict(_csv_columns(table)), table.warnings
            return list(self._open)
        return [""]

    def column(self, name: str) -> Column:
        """The array of that name. Raises UsageError for an unknown one, CacheError where it cannot be read."""
        if self._arrays is not None:
            return self._arrays.column(name)
        if self.kind == "csv":
            name = _in_other_case(name, self.names)
        if name not in self.names:
            raise unknown(f"array of source {self.path.name!r}", name, self.names)
        try:
            if self.kind == "npz":
                return NpzColumn(self.path, name)
            if self.kind == "folder":
                return FolderColumn(self.path)
            if self.kind in ("npy", "arrays"):
                path = self.path if self.kind == "npy" else self.path / f"{name}.npy"
                refuse_special(path, "array", error=CacheError)
                return ArrayColumn(name, np.load(path, mmap_mode="r", allow_pickle=False))
        except CacheError:
            raise
        except Exception as error:  # Each format's reader raises its own errors.
            raise CacheError(f"Array {name!r} of {self.path.name!r} cannot be read ({error}).") from None
        found = self._open[name]
        if isinstance(found, CsvColumn):
            return found
        return ArrayColumn(name, found) if isinstance(found, np.ndarray) else ListColumn(name, list(found))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _named(content: object, path: Path) -> dict[str, Any]:
    if isinstance(content, dict) and all(
        isinstance(name, (str, int)) and isinstance(value, (np.ndarray, list, tuple))
        for name, value in content.items()
    ):
        return {str(name): value for name, value in content.items()}
    if isinstance(content, (np.ndarray, list, tuple)):
        return {"": content}
    raise CacheError(
        f"Pickle {path.name!r} must hold an array, or a dict from names to arrays or lists of arrays."
    )


def _in_other_case(name: str, names: Sequence[str]) -> str:
    """The only one of ``names`` that differs from ``name`` in case at most; ``name`` itself where there is none."""
    same = [other for other in names if other.lower() == name.lower()]
    return same[0] if len(same) == 1 else name


def _csv_columns(table: CsvTable) -> Iterator[tuple[str, CsvColumn]]:
    for i, name in enumerate(table.columns):
        yield name, CsvColumn(name, [plain_text(cells[i]) for _, cells in table.rows])
