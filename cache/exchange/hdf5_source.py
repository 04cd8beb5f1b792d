"""Arrays of an HDF5 file: with a row a clip, with a group or dataset a clip, and as MATLAB writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import h5py
import numpy as np

from ...errors import CacheError, FsmmError, UsageError, unknown
from ..hdf5 import dataset_names, declared_bytes, own_dataset
from .columns import CLIP_BYTES, ArrayColumn, Column

_MATLAB = (
    "MATLAB_class"  # The attribute that MATLAB gives to each array, whose axes it writes in reverse order.
)
_MATLAB_OWN = ("#refs#/", "#subsystem#/")


class Hdf5Arrays:
    """The arrays of an open HDF5 file.

    A name may hold one ``*``, which stands for the clip: ``features/*`` is one dataset a clip, ``*/c3d`` one group a
    clip.
    """

    def __init__(self, file: h5py.File, title: str) -> None:
        self.file, self.title = file, title
        self.names = [name for name in dataset_names(file) if not name.startswith(_MATLAB_OWN)]

    def column(self, name: str) -> Column:
        """The array of that name. Raises UsageError for an unknown one, CacheError where it cannot be read."""
        try:
            return self._whole(name)
        except FsmmError:
            raise
        except KeyError:
            pass
        except Exception as error:  # Damaged HDF5 makes h5py raise nearly anything.
            raise CacheError(f"Array {name!r} of {self.title!r} cannot be read: {error}.") from None
        for pattern in (name, f"*/{name}", f"{name}/*"):
            if members := self._members(pattern):
                return ClipColumn(name, self.file, members)
        raise self._unknown(name)

    def _whole(self, name: str) -> Column:
        dataset = own_dataset(self.file, name)
        return MatlabColumn(name, dataset) if _MATLAB in dataset.attrs else ArrayColumn(name, dataset)

    def _members(self, pattern: str) -> dict[str, str]:
        """The path of the dataset of each clip, by the part of the path that ``*`` stands for."""
        before, star, after = pattern.partition("*")
        if not star or "*" in after:
            return {}
        found = {
            name[len(before) : len(name) - len(after)]: name
            for name in self.names
            if name.startswith(before) and name.endswith(after)
        }
        return {
            clip: name for clip, name in found.items() if "/" not in clip and name == f"{before}{clip}{after}"
        }

    def _unknown(self, name: str) -> UsageError:
        inner = Counter(path.partition("/")[2] for path in self.names if path.count("/") == 1)
        repeated = {array for array, count in inner.items() if count > 1}
        if not repeated:
            return unknown(f"array of source {self.title!r}", name, self.names)
        single = [
            path for path in self.names if path.count("/") != 1 or path.partition("/")[2] not in repeated
        ]
        known = [*(f"*/{array}" for array in repeated), *single]
        return UsageError(
            f"{unknown(f'array of source {self.title!r}', name, known)} The file has one group a clip: name what each "
            "group holds as an array; ids and labels come from another source, such as a CSV file."
        )


class ClipColumn(Column):
    """One dataset for each clip.

    members: the path of each clip's dataset, by clip id.
    """

    rows = None

    def __init__(self, name: str, file: h5py.File, members: dict[str, str]) -> None:
        super().__init__(name)
        self.file, self.members = file, members

    def ids(self) -> list[str]:
        return list(self.members)

    def _values(self) -> np.ndarray:
        raise ValueError("it has one dataset a clip where one array is needed")

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        for clip in ids:
            yield self._read(self.members[clip]) if clip in self.members else None

    def _read(self, path: str) -> np.ndarray:
        dataset = own_dataset(self.file, path)
        if declared_bytes(dataset) > CLIP_BYTES:
            raise ValueError(f"{path!r} is too large for one clip")
        if h5py.check_string_dtype(dataset.dtype):
            return np.asarray(dataset.asstr()[()], dtype=str)
        values = np.asarray(dataset[()])
        return values.T if _MATLAB in dataset.attrs else values


class MatlabColumn(ArrayColumn):
    """An array of a MATLAB file of version 7.3: its axes are in reverse order, and texts are characters or cells."""

    def __init__(self, name: str, data: h5py.Dataset) -> None:
        self.file: h5py.File = data.file
        self.kind = _text(data.attrs[_MATLAB])
        self.is_cell = h5py.check_ref_dtype(data.dtype) is not None
        super().__init__(name, data, transposed=True)
        if self.is_cell or 1 in self.shape:
            self.rows = max(self.shape, default=0)  # A vector of MATLAB is a matrix of one row or one column.

    def _values(self) -> np.ndarray:
        if self.is_cell:
            return np.array([_matlab_text(cell) for cell in self._cells()], dtype=str)
        values = super()._values()
        if self.kind == "char":
            return np.array(["".join(map(chr, row)).rstrip() for row in np.atleast_2d(values)], dtype=str)
        values = values.reshape(-1) if values.ndim == 2 and 1 in values.shape else values
        if self.kind == "logical":
            return values.astype(bool)
        whole = values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.rint(values)).all()
        return values.astype(np.int64) if whole else values

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        if self.is_cell:
            yield from (np.asarray(cell[()]).T for cell in self._cells())
        elif self.rows != self.shape[0]:  # One number a clip, as a row of MATLAB.
            yield from super()._values().reshape(-1)[:, None]
        else:
            yield from super()._clips(ids)

    def _cells(self) -> Iterator[h5py.Dataset]:
        """The datasets that the cells of a cell array refer to."""
        for reference in np.asarray(self.data[()]).T.reshape(-1):
            path = self.file[reference].name
            cell = own_dataset(self.file, path)
            if declared_bytes(cell) > CLIP_BYTES:
                raise ValueError(f"{path!r} is too large for one clip")
            yield cell


def _matlab_text(cell: h5py.Dataset) -> str:
    if "MATLAB_empty" in cell.attrs:
        return ""
    if _text(cell.attrs.get(_MATLAB, "")) != "char":
        raise ValueError("its cells hold no texts")
    return "".join(map(chr, np.asarray(cell[()]).T.reshape(-1)))


def _text(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
