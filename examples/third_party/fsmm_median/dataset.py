"""A data set of videos in one flat folder, whose names begin with their class: ``jump-01.mp4``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.errors import UsageError
from fsmm.extract.datasets.base import DatasetOptions, Listing, Source
from fsmm.extract.datasets.common import dataset_name, finish


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """All videos of the folder. Raises UsageError where it holds none."""
    files = sorted(data.glob("*-*.mp4")) if data is not None else []
    if data is None or not files:
        raise UsageError(f"No video named CLASS-ANYTHING.mp4 lies in {str(data)!r}.")
    names, label = np.unique([file.name.partition("-")[0] for file in files], return_inverse=True)
    ids = [file.name for file in files]
    labels = LabelSet([str(name) for name in names], label)
    catalog = Catalog(dataset_name(data), ids, {"class": labels}, "class", path=list(ids))
    return finish(Listing(catalog, {file.name: Source(video=file) for file in files}, data), options)
