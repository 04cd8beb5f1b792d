"""Arrays of npz, npy, HDF5, pickle and CSV files and of folders of npy files are read a few clips at a time.

A folder holds one npy file for each clip (format "folder"), one for each array ("arrays"), one HDF5 file or pickle for
each class ("classes"), or a folder for each video ("videos").
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import CacheError, listed, unknown
from ...machine.files import refuse_special
from ...machine.texts import CsvTable, plain_text, read_csv
from . import class_files, video_folders
from .class_files import ClassFiles
from .columns import ArrayColumn, Column, CsvColumn, FolderColumn, ListColumn, NpzColumn
from .hdf5_source import Hdf5Arrays
from .per_clip import ClipColumn, members_of, unknown_array
from .pickles import holds_objects, load_untrusted
from .video_folders import VideoFolders

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
_FOLDERS = ("folder", "arrays", "classes", "videos")
FORMATS = ("npz", "npy", "hdf5", "pickle", "csv", *_FOLDERS)


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
        if (self.kind in _FOLDERS) != path.is_dir():
            raise CacheError(
                f"Source {str(path)!r} is {'a' if path.is_dir() else 'no'} folder; mend its format."
            )
        self.warnings: list[str] = []
        self._open: dict[str, Any] = {}
        self._archive: zipfile.ZipFile | None = None
        self._file: h5py.File | None = None
        self._arrays: Hdf5Arrays | ClassFiles | VideoFolders | None = None
        try:
            self.names = self._list()
        except CacheError:
            raise
        except Exception as error:  # Each format's reader raises its own errors for a file of another format.
            raise CacheError(f"Source {str(path)!r} cannot be read as {self.kind} ({error}).") from None

    def _list(self) -> list[str]:
        if self.kind == "npz":
            self._archive = zipfile.ZipFile(self.path)
            return [name[: -len(".npy")] for name in self._archive.namelist() if name.endswith(".npy")]
        if self.kind == "hdf5":
            if self.path.suffix.lower() == ".mat" and not h5py.is_hdf5(self.path):
                raise CacheError(f"{str(self.path)!r} is of an older MATLAB format; save it with '-v7.3'.")
            self._file = h5py.File(self.path, "r")
            self._arrays = found = Hdf5Arrays(self._file, self.path.name)
            return found.names
        if self.kind in ("classes", "videos"):
            self._arrays = ClassFiles(self.path) if self.kind == "classes" else VideoFolders(self.path)
            return list(class_files.NAMES if self.kind == "classes" else video_folders.NAMES)
        if self.kind == "folder":
            _refuse_other_files(self.path)
        if self.kind == "arrays":
            return FolderColumn(self.path).values().tolist()
        if self.kind == "pickle" or (self.kind == "npy" and holds_objects(self.path)):
            self.kind = "pickle"
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
            if self.kind in ("npz", "pickle") and (members := members_of(name, self.names)):
                return ClipColumn(name, members, lambda member: self.column(member).values())
            raise unknown_array(self.path.name, name, self.names)
        try:
            if self._archive is not None:
                return NpzColumn(self._archive, name)
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
        if isinstance(found, (list, tuple)):
            return ListColumn(name, list(found))
        return ArrayColumn(name, np.asarray(found))

    def close(self) -> None:
        for opened in (self._archive, self._file):
            if opened is not None:
                opened.close()


def _refuse_other_files(folder: Path) -> None:
    """Raise CacheError for a folder without any npy file, with the endings of the files that it has."""
    if next(folder.rglob("*.npy"), None) is None:
        endings = sorted({path.suffix or "none" for path in folder.rglob("*") if path.is_file()})
        raise CacheError(
            f"Source {str(folder)!r} holds no .npy file (endings there: {listed(endings)}); save one .npy a clip, "
            "named for its id, or all clips in one .npz or HDF5 file."
        )


def _named(content: object, path: Path) -> dict[str, Any]:
    """The arrays in a pickle by name: those of nested dicts by path, those of a list of equal records by key."""
    if isinstance(content, dict) and content:
        return dict(_flat(content, path))
    if isinstance(content, (list, tuple)) and content and all(isinstance(item, dict) for item in content):
        records = [dict(_flat(item, path)) for item in content]
        if any(record.keys() != records[0].keys() for record in records):
            raise CacheError(
                f"Pickle {path.name!r} is a list of dicts with different keys; give all the same keys."
            )
        return {name: [record[name] for record in records] for name in records[0]}
    if isinstance(content, (np.ndarray, list, tuple)):
        return {"": content}
    raise CacheError(
        f"Pickle {path.name!r} must hold an array, a dict from names to arrays or lists of arrays, or a list of dicts."
    )


def _flat(table: dict[Any, Any], path: Path, above: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts with their paths, such as ``v1/rgb``."""
    for key, value in table.items():
        if not isinstance(key, (str, int)) or isinstance(value, (set, frozenset)):
            raise CacheError(
                f"Pickle {path.name!r} has a key or a value that is no name, number, text or array."
            )
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _flat(value, path, f"{name}/")
        else:
            yield name, value


def _in_other_case(name: str, names: Sequence[str]) -> str:
    """The only one of ``names`` that differs from ``name`` in case at most; ``name`` itself where there is none."""
    same = [other for other in names if other.lower() == name.lower()]
    return same[0] if len(same) == 1 else name


def _csv_columns(table: CsvTable) -> Iterator[tuple[str, CsvColumn]]:
    for i, name in enumerate(table.columns):
        yield name, CsvColumn(name, [plain_text(cells[i]) for _, cells in table.rows])
