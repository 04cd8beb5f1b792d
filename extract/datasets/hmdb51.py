"""Dataset ``hmdb51`` is HMDB51 with the class split of ARN.

--data holds the videos in one folder a class, at any depth; --lists names published lists of videos, in any of the
spellings of video_lists.py. Without lists, every video of the classes is a clip.
"""

from __future__ import annotations

from pathlib import Path

from .base import DatasetOptions, Listing
from .benchmark import Benchmark, in_class_folders

BENCHMARK = Benchmark("hmdb51", ("hmdb",))


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of the classes of hmdb51. Raises UsageError where there is none, or the lists cannot be read."""
    return in_class_folders(BENCHMARK, data, options)
