"""The listing of data sets of videos in one folder an emotion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import UsageError, listed
from . import folder
from .base import DatasetOptions, Listing
from .walk import some


def emotion_listing(
    name: str, emotions: Sequence[str], data: Path | None, options: DatasetOptions
) -> Listing:
    """The clips of a folder with one subfolder an emotion, under the name of the data set.

    Folders may be named in any case. Raises UsageError where no folder is named for an emotion.
    """
    if data is None:
        raise UsageError(f"Dataset {name!r} needs --data: a folder with one subfolder an emotion.")
    found = folder.listing(data, options)
    names = found.catalog.labels(folder.LABEL_SET).class_names
    strange = [one for one in names if one.lower() not in emotions]
    if len(strange) == len(names):
        raise UsageError(
            f"None of the folders in {str(data)!r} is an emotion of {name!r} ({listed(emotions)}); they are "
            f"{some(names)}. For another layout, write a CSV file and use --dataset csv."
        )
    warnings = [*found.warnings]
    if strange:
        warnings.append(f"These classes are no emotions of {name!r}: {some(strange)}.")
    if absent := [one for one in emotions if one not in [held.lower() for held in names]]:
        warnings.append(f"There is no folder of {listed(absent)}.")
    return replace(found, catalog=replace(found.catalog, dataset=name), warnings=warnings)
