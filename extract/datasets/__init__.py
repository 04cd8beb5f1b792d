"""The datasets that `fsmm extract` knows.

One visible table, one module a dataset, loaded when it is asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError, unknown
from .base import DatasetOptions, Listing


@dataclass(frozen=True)
class DatasetEntry:
    """name: as given to --dataset. module: beside this file, with ``listing(data, options) -> Listing``.

    expects: one line on what --data holds. needs_data: --data may not be left out.
    """

    name: str
    module: str
    expects: str
    needs_data: bool = True


_ENTRIES = (
    DatasetEntry(
        "demo", "demo.reader", "nothing: short videos with sound are made on the spot", needs_data=False
    ),
    DatasetEntry("folder", "folder", "a folder with one subfolder a class, videos anywhere below it"),
    DatasetEntry(
        "csv", "csv_file", "a CSV file with a column 'path' and label columns (optional: id, split)"
    ),
    DatasetEntry(
        "3massiv", "massiv", "the official 3massiv_*.csv files, and videos named by post id anywhere below"
    ),
)

DATASETS: dict[str, DatasetEntry] = {entry.name: entry for entry in _ENTRIES}


def load(name: str, data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of a dataset.

    Raises UsageError for an unknown name, or data that is absent or not as expected.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    entry = DATASETS[name]
    if data is None and entry.needs_data:
        raise UsageError(f"Dataset {name!r} needs --data: {entry.expects}.")
    if data is not None and entry.needs_data and not data.exists():
        raise UsageError(f"The data {str(data)!r} of dataset {name!r} does not exist; check --data.")
    listing: Listing = importlib.import_module(f".{entry.module}", __name__).listing(data, options)
    return listing
