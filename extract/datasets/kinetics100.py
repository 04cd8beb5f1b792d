"""Dataset ``kinetics-100`` is Kinetics-100 (the classes and videos that CMN chose from Kinetics).

--data holds the videos in one folder a class, at any depth; --lists names published lists of videos, in any of the
spellings of video_lists.py. Without lists, every video of the classes is a clip.
"""

from __future__ import annotations

from pathlib import Path

from .base import DatasetOptions, Listing
from .benchmark import Benchmark, in_class_folders

BENCHMARK = Benchmark("kinetics-100", ("kinetics",), timed=True)


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of the classes of kinetics-100. Raises UsageError where there is none, or the lists cannot be read."""
    return in_class_folders(BENCHMARK, data, options)
