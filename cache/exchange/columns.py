"""One array of a source: read as a whole where it holds labels or ids, a few clips at a time where it holds features.

Sources may come from anywhere: no declared size is believed, and what cannot be read ends in one sentence.
"""

from __future__ import annotations

import io
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from ...errors import CacheError, FsmmError
from ...machine.files import refuse_special
from ...machine.texts import spellings
from ...machine.trees import tree_size
from ..catalog import check_inside
from ..hdf5 import declared_bytes

BLOCK_BYTES = 8 << 20
CLIP_BYTES = 1 << 30  # The most that one clip may take.
_LIST_NUMBERS = 10_000_000  # The most numbers that one clip may have as nested lists.
_BOMB_BYTES, _BOMB_RATIO = (
    2 << 30,
    256,
)  # An array beyond both, in size and in compression, is taken for a bomb.
_HEADER_BYTES = 1 << 16


class Column(ABC):
    """One array of a source."""

    rows: int | None
    """The length of the first axis, or None where rows are found by clip id."""

    def __init__(self, name: str) -> None:
        self.name = name

    def values(self) -> np.ndarray:
        """The whole array in memory, for labels, ids and the like. Raises CacheError where it cannot be read."""
        try:
            return self._values()
        except Exception as error:  # Each format's reader raises its own errors.
            raise self._unreadable(error) from None

    def clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        """The rows one by one, in the order of ``ids``; None where a source that is indexed by id lacks a clip.

        Raises CacheError where a row cannot be read.
        """
        try:
            yield from self._clips(ids)
        except Exception as error:
            raise self._unreadable(error) from None

    def ids(self) -> list[str]:
        """The ids of the clips of an array that is indexed by id. Raises CacheError where it cannot be read."""
        return [str(clip) for clip in self.values()]

    def transposed(self) -> Column:
        """The same array with its axes in reverse order. Raises CacheError where it cannot be read so."""
        return ArrayColumn(self.name, self.values(), transposed=True)

    @abstractmethod
    def _values(self) -> np.ndarray:
        """The whole array; any error means that it cannot be read."""

    @abstractmethod
    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        """The rows one by one, as ``clips`` gives them; any error means that one cannot be read."""

    def _unreadable(self, error: Exception) -> FsmmError:
        if isinstance(error, FsmmError):
            return error
        reason = "it needs more memory than there is" if isinstance(error, MemoryError) else str(error)
        return CacheError(f"Array {self.name!r} cannot be read ({reason or type(error).__name__}).")


class ArrayColumn(Column):
    """An array in memory, a memory-mapped array, or an HDF5 dataset.

    transposed: the axes are stored in reverse order, as MATLAB does, so that clips are the last one.
    """

    def __init__(self, name: str, data: np.ndarray | h5py.Dataset, *, transposed: bool = False) -> None:
        super().__init__(name)
        self.data, self.is_transposed = data, transposed
        self.shape = data.shape[::-1] if transposed else data.shape
        self.rows = self.shape[0] if self.shape else 0
        if isinstance(data, h5py.Dataset):
            file_bytes = Path(data.file.filename).stat().st_size
            stored = file_bytes if data.is_virtual else data.id.get_storage_size()
            _refuse_bomb(name, data.shape, declared_bytes(data), stored)

    def _values(self) -> np.ndarray:
        if isinstance(self.data, h5py.Dataset) and h5py.check_string_dtype(self.data.dtype):
            return np.asarray(self.data.asstr()[()], dtype=str)
        values = np.asarray(self.data[()])
        return values.T if self.is_transposed else values

    def transposed(self) -> Column:
        return ArrayColumn(self.name, self.data, transposed=not self.is_transposed)

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        step = block_rows(self.shape, self.data.dtype)
        for start in range(0, self.shape[0], step):
            if self.is_transposed:
                yield from np.asarray(self.data[..., start : start + step]).T
            else:
                yield from np.asarray(self.data[start : start + step])


class ListColumn(Column):
    """A list of arrays that may differ in length, or of texts."""

    def __init__(self, name: str, items: Sequence[object]) -> None:
        super().__init__(name)
        self.items = items
        self.rows = len(items)

    def _values(self) -> np.ndarray:
        """The items as one array; None among texts becomes "", which is unlabelled."""
        if all(item is None or isinstance(item, str) for item in self.items):
            texts = [item or "" for item in self.items]
            longest = max((len(str(text)) for text in texts), default=0)
            if 4 * longest * len(texts) > _BOMB_BYTES:
                raise ValueError("its texts are too long")
            return np.array(texts, dtype=str)
        if tree_size(self.items) > 10 * _LIST_NUMBERS:
            raise ValueError("its lists stand for too many numbers")
        return np.array(self.items)

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        for number, item in enumerate(self.items):
            if isinstance(item, (list, tuple)) and tree_size(item) > _LIST_NUMBERS:
                raise CacheError(
                    f"Row {number} of {self.name!r} is a list of more than {_LIST_NUMBERS:,} numbers."
                )
            yield None if item is None else np.asarray(item)


class CsvColumn(ListColumn):
    """A column of a CSV file: texts, of which a label may name several classes divided by ``|``."""


class NpzColumn(Column):
    """A member of an open npz archive, decompressed a block of clips at a time."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        super().__init__(name)
        self.archive = archive
        with self._open() as member:
            self.shape, self.fortran, self.dtype = _npy_header(member)
        about = archive.getinfo(f"{name}.npy")
        self.rows = self.shape[0] if self.shape else 0
        self.bytes = math.prod(self.shape) * self.dtype.itemsize
        if self.bytes > about.file_size:
            raise ValueError(f"it declares {self.bytes:,} bytes and holds fewer than {about.file_size:,}")
        _refuse_bomb(name, self.shape, self.bytes, about.compress_size)

    def _values(self) -> np.ndarray:
        with self._open() as member:
            _npy_header(member)
            values = np.frombuffer(self._read(member, self.bytes), self.dtype)
        return values.reshape(self.shape, order="F" if self.fortran else "C")

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        if self.fortran:  # The rows are then not contiguous in the file.
            yield from self._values()
            return
        step = block_rows(self.shape, self.dtype)
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        with self._open() as member:
            _npy_header(member)
            for start in range(0, self.shape[0], step):
                rows = min(step, self.shape[0] - start)
                data = self._read(member, rows * row_bytes)
                yield from np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])

    def _open(self) -> IO[bytes]:
        return self.archive.open(f"{self.name}.npy")

    def _read(self, member: IO[bytes], size: int) -> bytes:
        data = member.read(size)
        if len(data) != size:
            raise CacheError(
                f"Array {self.name!r} of {Path(str(self.archive.filename)).name!r} is cut short."
            )
        return data


class FolderColumn(Column):
    """A folder with one npy file for each clip, named for the clip's id."""

    rows = None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.name)
        self.folder = folder

    def _values(self) -> np.ndarray:
        found = (
            path.relative_to(self.folder).with_suffix("").as_posix() for path in self.folder.rglob("*.npy")
        )
        return np.array(sorted(found), dtype=str)

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        for clip in ids:
            check_inside(clip)
            spelt = (self.folder / f"{name}.npy" for name in spellings(clip))
            path = next((path for path in spelt if path.exists()), self.folder / f"{clip}.npy")
            refuse_special(path, "clip's file", error=CacheError)
            yield _load_npy(path) if path.is_file() else None


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        length = file.read(4)
        if int.from_bytes(length, "little") > _HEADER_BYTES:  # It would be read as a whole, whatever it says.
            raise ValueError("its header is too long")
        header = io.BytesIO(length + file.read(int.from_bytes(length, "little")))
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(header)
    if dtype.hasobject:
        raise ValueError("it holds Python objects; save it with a numeric or text type")
    if any(size < 0 for size in shape):
        raise ValueError("its shape is negative")
    return shape, fortran, dtype


def _load_npy(path: Path) -> np.ndarray:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.nbytes > CLIP_BYTES:
            raise ValueError("it is too large for one clip")
        return np.array(mapped)
    except (ValueError, OSError, EOFError) as error:
        raise CacheError(f"{str(path)!r} cannot be read ({error}).") from None


def block_rows(shape: Sequence[int], dtype: np.dtype) -> int:
    """The number of rows that are read at once. Raises ValueError where one row is too large."""
    row = math.prod(shape[1:]) * dtype.itemsize
    if row > CLIP_BYTES:
        raise ValueError(f"one clip of it takes {row:,} bytes")
    return max(1, BLOCK_BYTES // max(row, 1))


def _refuse_bomb(name: str, shape: Sequence[int], declared: int, stored: int) -> None:
    if declared > _BOMB_BYTES and declared > _BOMB_RATIO * stored:
        raise CacheError(
            f"Array {name!r} declares the shape {list(shape)}, {declared:,} bytes, of which the file holds {stored:,}; "
            "it is not read."
        )
