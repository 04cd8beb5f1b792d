"""Dataset ``ucf-gzsl`` is UCF-GZSL: 51 of the classes of UCF101, for generalised zero-shot
learning.

--data holds the videos, by their names at any depth or in one folder a class; --lists names the folder of the
``stage_*.csv`` files. The class split ``default`` is the published main_split, ``cls`` is cls_split.
"""

from __future__ import annotations

from pathlib import Path

from .base import DatasetOptions, Listing
from .benchmark import Benchmark, in_class_folders
from .stage_lists import read_stages

BENCHMARK = Benchmark("ucf-gzsl", ("ucf",), read=read_stages)


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of the benchmark. Raises UsageError where there is none, or the lists cannot be read."""
    return in_class_folders(BENCHMARK, data, options)
