"""Dataset ``ucf101`` is UCF101 with the class split of ARN, and that of TSL as ``tsl``.

--data holds the videos in one folder a class, at any depth; --lists names published lists of videos, in any of the
spellings of video_lists.py. Without lists, every video of the classes is a clip.
"""

from __future__ import annotations

from pathlib import Path

from .base import DatasetOptions, Listing
from .benchmark import Benchmark, in_class_folders

BENCHMARK = Benchmark("ucf101", ("ucf",))


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of the classes of ucf101. Raises UsageError where there is none, or the lists cannot be read."""
    return in_class_folders(BENCHMARK, data, options)
