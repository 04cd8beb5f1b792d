"""Arrays of an HDF5 file: with a row or a record a clip, with a group or dataset a clip, and as MATLAB writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import h5py
import numpy as np

from ...errors import CacheError, FsmmError, UsageError, listed
from ..hdf5 import dataset_names, declared_bytes, own_dataset, own_object
from .columns import CLIP_BYTES, ArrayColumn, Column, block_rows
from .per_clip import ClipColumn, members_of, one_a_clip, unknown_array

_MATLAB = (
    "MATLAB_class"  # The attribute that MATLAB gives to each array, whose axes it writes in reverse order.
)
_LOOKED_AT = 10  # datasets whose attributes an error names
_MATLAB_OWN = ("#refs#/", "#subsystem#/")


class Hdf5Arrays:
    """The arrays of an open HDF5 file.

    A name may hold one ``*``, which stands for the clip: ``features/*`` is one dataset a clip, ``*/c3d`` one group a
    clip. ``NAME@ATTRIBUTE`` is an attribute of a dataset or group, so that ``*@label`` is one a clip, which ``*/label``
    and ``label`` mean as well where there is no such dataset; ``TABLE/FIELD`` is a field of a dataset of records.
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
        place, at, attribute = name.rpartition("@")
        if at and "*" in place:
            if found := members_of(place, self._places_with(attribute)):
                return self._of_attributes(name, found, attribute)
        elif members := members_of(name, self.names):
            return ClipColumn(name, members, self._read)
        attribute = name.removeprefix("*/")
        if found := one_a_clip(self._places_with(attribute)):
            return self._of_attributes(name, found, attribute)
        raise unknown_array(self.title, name, self.names, self._known_attributes())

    def _whole(self, name: str) -> Column:
        """The array of a dataset, an attribute or a field. Raises KeyError where there is none of this name."""
        place, at, attribute = name.rpartition("@")
        if at and "*" not in place:
            item = own_object(self.file, place)
            if attribute in item.attrs:
                return ArrayColumn(name, _attribute(item, attribute))
        table, _, field = name.rpartition("/")
        holder = own_object(self.file, table)
        if isinstance(holder, h5py.Dataset) and field in (holder.dtype.names or ()):
            return FieldColumn(name, own_dataset(self.file, table), field)
        dataset = own_dataset(self.file, name)
        if dataset.dtype.names:
            raise UsageError(
                f"Array {name!r} of {self.title!r} is a table of records; name a field of it: "
                f"{listed([f'{name}/{field}' for field in dataset.dtype.names])}."
            )
        return MatlabColumn(name, dataset) if _MATLAB in dataset.attrs else ArrayColumn(name, dataset)

    def _read(self, path: str) -> np.ndarray:
        dataset = own_dataset(self.file, path)
        if declared_bytes(dataset) > CLIP_BYTES:
            raise ValueError(f"{path!r} is too large for one clip")
        if h5py.check_string_dtype(dataset.dtype):
            return np.asarray(dataset.asstr()[()], dtype=str)
        values = np.asarray(dataset[()])
        return values.T if _MATLAB in dataset.attrs else values

    def _places_with(self, attribute: str) -> list[str]:
        """The places of the datasets and groups that have an attribute."""
        places: list[str] = []

        def visit(place: str, item: h5py.Group | h5py.Dataset) -> None:
            if attribute in item.attrs:
                places.append(place)

        self.file.visititems(visit)
        return places

    def _of_attributes(self, name: str, members: dict[str, str], attribute: str) -> ClipColumn:
        return ClipColumn(name, members, lambda path: _attribute(own_object(self.file, path), attribute))

    def _known_attributes(self) -> list[str]:
        """The names that attributes of the file, and of its first datasets and their groups, can be read by."""
        found = [f"@{attribute}" for attribute in self.file.attrs]
        apart = (
            len({name.partition("/")[0] for name in self.names}) > 1
        )  # The first part of a path is the clip's.
        for name in self.names[:_LOOKED_AT]:
            parts = name.split("/")
            for count in range(1, len(parts) + 1):
                place = parts[:count]
                if len(self.names) > 1 and (apart or count > 1):
                    place[0 if apart else 1] = "*"
                attributes = own_object(self.file, "/".join(parts[:count])).attrs
                found += [
                    f"{'/'.join(place)}@{each}" for each in attributes if not each.startswith("MATLAB_")
                ]
        return list(dict.fromkeys(found))


def _attribute(item: h5py.Group | h5py.Dataset, name: str) -> np.ndarray:
    """The value of an attribute. Raises ValueError where it has none, or one that is too large."""
    if item.attrs.get_id(name).get_storage_size() > CLIP_BYTES:
        raise ValueError(f"attribute {name!r} is too large")
    value = item.attrs[name]
    if isinstance(value, h5py.Empty):
        raise ValueError(f"attribute {name!r} holds no value")
    values = np.asarray(value)
    if values.dtype.kind == "O":
        values = np.array([_text(text) for text in values.reshape(-1)]).reshape(values.shape)
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


class FieldColumn(ArrayColumn):
    """One field of a dataset of records, as PyTables and pandas write tables."""

    def __init__(self, name: str, data: h5py.Dataset, field: str) -> None:
        super().__init__(name, data)
        self.records, self.field = data, field
        self.shape = (*data.shape, *data.dtype[field].shape)
        self.dtype = data.dtype[field].base

    def transposed(self) -> Column:
        raise CacheError(f"Array {self.name!r} is a field of records and cannot be transposed.")

    def _values(self) -> np.ndarray:
        return self._plain(self.records.fields(self.field)[()])

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        step = block_rows(self.shape, self.dtype)
        for start in range(0, self.shape[0], step):
            yield from self._plain(self.records.fields(self.field)[start : start + step])

    def _plain(self, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind != "O":
            return np.asarray(values)
        return np.array([_text(text) for text in values.reshape(-1)], dtype=str).reshape(values.shape)


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
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
