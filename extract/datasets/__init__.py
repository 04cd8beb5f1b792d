"""The table of the data sets that `fsmm extract` reads, with one module a data set, which is imported when used.

Other packages add rows of their own by entry points of the group ``fsmm.datasets``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import UsageError, unknown
from ...machine.plugins import rows_of
from .base import DatasetOptions, Listing

GROUP = "fsmm.datasets"


@dataclass(frozen=True)
class DatasetEntry:
    """One data set, known without importing its module."""

    name: str
    """The name that is given to --dataset."""
    module: str
    """The module with ``listing(data, options) -> Listing``, in this package or, as "package.module", in another."""
    expects: str
    """What --data holds, in one line."""
    needs_data: bool = True
    """Whether --data may not be left out."""
    takes_root: bool = False
    """Whether the data set's paths may be relative to a folder that --root names."""
    takes_lists: bool = False
    """Whether published lists of its videos may be given by --lists."""
    takes_rate: bool = False
    """Whether the steps a second of its time series may be given by --rate."""

    def listing(self, data: Path | None, options: DatasetOptions) -> Listing:
        """The clips of the data set."""
        inside = self.name in DATASETS
        module = importlib.import_module(
            f".{self.module}" if inside else self.module, __name__ if inside else None
        )
        found: Listing = module.listing(data, options)
        return found


_ENTRIES = (
    DatasetEntry(
        "demo", "demo.reader", "nothing: short videos with sound are made on the spot", needs_data=False
    ),
    DatasetEntry("folder", "folder", "a folder with one subfolder a class, videos anywhere below it"),
    DatasetEntry(
        "csv",
        "csv_file",
        "a CSV file with a column 'path' and label columns (optional: id, split, group, start, end)",
        takes_root=True,
    ),
    DatasetEntry(
        "3massiv", "massiv", "the official 3massiv_*.csv files, and videos named by post id anywhere below"
    ),
    DatasetEntry(
        "kinetics-100", "kinetics100", "Kinetics videos in one folder a class, at any depth", takes_lists=True
    ),
    DatasetEntry(
        "ssv2-100",
        "ssv2_100",
        "numbered Something-Something V2 videos, with the JSON files of their classes",
        takes_lists=True,
    ),
    DatasetEntry(
        "ssv2-full",
        "ssv2_full",
        "numbered Something-Something V2 videos, with the JSON files of their classes",
        takes_lists=True,
    ),
    DatasetEntry("hmdb51", "hmdb51", "HMDB51 videos in one folder a class, at any depth", takes_lists=True),
    DatasetEntry("ucf101", "ucf101", "UCF101 videos in one folder a class, at any depth", takes_lists=True),
    DatasetEntry(
        "ucf-gzsl", "ucf_gzsl", "UCF101 videos in one folder a class, at any depth", takes_lists=True
    ),
    DatasetEntry(
        "activitynet-gzsl",
        "activitynet_gzsl",
        "cut ActivityNet videos, named as the stage_*.csv of --lists say, or in one folder a class",
        takes_lists=True,
    ),
    DatasetEntry(
        "vggsound-gzsl",
        "vggsound_gzsl",
        "VGGSound videos named ID_SECONDS (six digits), as the stage_*.csv of --lists say, or in one folder a class",
        takes_lists=True,
    ),
    DatasetEntry("ekman-6", "ekman6", "a folder with one subfolder an emotion, videos anywhere below it"),
    DatasetEntry(
        "videoemotion-8", "videoemotion8", "a folder with one subfolder an emotion, videos anywhere below it"
    ),
    DatasetEntry(
        "utd-mhad", "utd_mhad", "files such as a1_s1_t1_inertial.mat, and the videos of the same names"
    ),
    DatasetEntry(
        "ego-activity",
        "ego_activity",
        "sensor files such as act01seq01.csv, and the videos of the same names",
    ),
    DatasetEntry(
        "video-series",
        "video_series",
        "a folder with one subfolder a class; videos and time series of one name are a clip",
        takes_rate=True,
    ),
)

DATASETS: dict[str, DatasetEntry] = {entry.name: entry for entry in _ENTRIES}


@cache
def datasets() -> dict[str, DatasetEntry]:
    """All data sets by name: built-in ones, then those of other packages. Raises FsmmError for an unusable row."""
    return {**DATASETS, **rows_of(GROUP, DatasetEntry, DATASETS)}


def load(name: str, data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of a data set.

    Raises UsageError for an unknown name, or for data that is absent or not as expected.
    """
    if name not in datasets():
        raise unknown("dataset", name, datasets())
    entry = datasets()[name]
    if options.root is not None and not entry.takes_root:
        raise UsageError(f"Dataset {name!r} has no use for --root; its paths are relative to --data.")
    if options.rate is not None and not entry.takes_rate:
        raise UsageError(
            f"Dataset {name!r} has no use for --rate; the rate of its series is known, or it has none."
        )
    if options.rate is not None and not 0 < options.rate < float("inf"):
        raise UsageError(f"--rate is {options.rate:g}; it must be above 0 steps a second.")
    if options.frame_rate is not None and not 0 < options.frame_rate < float("inf"):
        raise UsageError(f"--frame-rate is {options.frame_rate:g}; it must be above 0 frames a second.")
    if options.frame_rate is not None and not entry.needs_data and options.unlabelled is None:
        raise UsageError(f"Dataset {name!r} has no use for --frame-rate; it makes its own videos.")
    if options.lists is not None and not entry.takes_lists:
        raise UsageError(f"Dataset {name!r} has no use for --lists; its clips are those of --data.")
    if data is None and entry.needs_data:
        raise UsageError(f"Dataset {name!r} needs --data: {entry.expects}.")
    if data is not None and entry.needs_data and not data.exists():
        raise UsageError(f"The data {str(data)!r} of dataset {name!r} does not exist; check --data.")
    return entry.listing(data, options)
