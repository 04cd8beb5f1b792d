"""HDF5 files that others may have written: every byte comes from the file itself, and no declared size is believed.

HDF5 lets a dataset lie in other files (external storage, virtual datasets, external links), gives zeros where such a
file is absent or a dataset was declared and never written, and allocates whatever size a file declares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d

_NESTING = 8  # The largest number of virtual datasets that may stand one upon another.


def own_object(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """The group or dataset at the path ``name`` below ``group``, where each step is a hard link.

    Raises KeyError where there is none, ValueError where a step is a link to another place or file.
    """
    item = group
    for part in filter(None, name.split("/")):
        if not isinstance(item, h5py.Group):
            raise KeyError(name)
        link = item.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"{name!r} is a link to another file, {link.filename!r}; {_COPY}")
        if isinstance(link, h5py.SoftLink):
            raise ValueError(f"{name!r} is a link to {link.path!r}; name that place instead")
        if link is None:
            raise KeyError(name)
        item = item[part]
    return item


def own_dataset(group: h5py.Group, name: str, *, nesting: int = _NESTING) -> h5py.Dataset:
    """The dataset at ``name`` below ``group``, whose values all lie in this file and were all written.

    A virtual dataset may be a view of other datasets of the same file. Raises KeyError where there is no dataset,
    ValueError where values lie in another file, are absent, or were never written.
    """
    dataset = own_object(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise KeyError(name)
    plist = dataset.id.get_create_plist()
    # The layout is looked at before the shape, since HDF5 opens the sources of a virtual dataset to find its shape.
    if plist.get_layout() == h5d.VIRTUAL:
        _check_virtual(dataset, name, nesting)
    elif plist.get_external_count():
        other = plist.get_external(0)[0].decode("utf-8", "replace")
        raise ValueError(f"the values of {name!r} lie in another file, {other!r}; {_COPY}")
    elif dataset.shape is None:
        raise ValueError(f"{name!r} holds no values")
    elif _is_unwritten(dataset):
        raise ValueError(f"{name!r} was declared, but all or part of its values were never written")
    return dataset


def stored_array(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset at ``name`` of a file of the cache: one block that lies in the file and is no larger than it.

    Raises KeyError and ValueError for any other dataset.
    """
    dataset = own_object(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise KeyError(name)
    plist = dataset.id.get_create_plist()
    if plist.get_layout() not in (h5d.CONTIGUOUS, h5d.COMPACT) or plist.get_external_count():
        raise ValueError(f"{name!r} is not stored as one block of this file")
    size = Path(dataset.file.filename).stat().st_size
    if dataset.shape is None or declared_bytes(dataset) > size:
        raise ValueError(f"{name!r} declares more values than the file holds")
    if _is_unwritten(dataset):
        raise ValueError(f"the values of {name!r} were never written")
    begin = dataset.id.get_offset()  # None for a compact dataset, whose values lie in its header.
    if begin is not None and begin + declared_bytes(dataset) > size:
        raise ValueError(f"the values of {name!r} would lie beyond the end of the file")
    return dataset


def stored_values(group: h5py.Group, name: str) -> np.ndarray:
    """The values of a dataset of a file of the cache (see ``stored_array``), which lie in its block themselves.

    Raises ValueError for values of variable length and references, which stand for bytes elsewhere in the file.
    """
    dataset = stored_array(group, name)
    if dataset.dtype.hasobject:
        raise ValueError(f"the values of {name!r} are references to other places")
    return np.asarray(dataset[()])


def refuse_overlap(datasets: Iterable[h5py.Dataset]) -> None:
    """Raise ValueError where two datasets of a file share bytes, so that one would read the values of another."""
    blocks = [(d.id.get_offset(), declared_bytes(d), d.name) for d in datasets]
    end, before = 0, ""
    for begin, size, name in sorted((b, size, name) for b, size, name in blocks if b is not None and size):
        if begin < end:
            raise ValueError(f"the values of {name!r} lie over those of {before!r}")
        end, before = begin + size, name


def dataset_names(file: h5py.File) -> Iterator[str]:
    """The paths of the datasets of a file; links are not followed."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    yield from names


def declared_bytes(dataset: h5py.Dataset) -> int:
    """The bytes that the declared shape of a dataset takes on disk without compression."""
    return math.prod(dataset.shape) * int(dataset.id.get_type().get_size())


_COPY = "copy the values into the file, or name that file as a source of its own"


def _check_virtual(dataset: h5py.Dataset, name: str, nesting: int) -> None:
    covered = 0
    for source in dataset.virtual_sources():
        if source.file_name != ".":
            raise ValueError(
                f"{name!r} is a virtual dataset, whose values lie in another file, {source.file_name!r}; {_COPY}"
            )
        if not nesting or "%" in source.dset_name:
            raise ValueError(f"{name!r} is a virtual dataset of a form that is not read; {_COPY}")
        own_dataset(dataset.file, source.dset_name, nesting=nesting - 1)
        covered += source.vspace.get_select_npoints()
    if covered != dataset.size:
        raise ValueError(f"{name!r} is a virtual dataset, and not all of its values are there; {_COPY}")


def _is_unwritten(dataset: h5py.Dataset) -> bool:
    """Whether HDF5 would give fill values for all or part of a dataset that is neither virtual nor external."""
    if not dataset.size or dataset.id.get_create_plist().get_layout() == h5d.COMPACT:
        return False
    if dataset.chunks is None:
        return dataset.id.get_storage_size() == 0
    chunks = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return dataset.id.get_num_chunks() < chunks
