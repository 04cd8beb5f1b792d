"""Dataset ``ssv2-100`` is SSv2-100: the classes and videos that CMN chose from Something-Something V2.

--data holds the numbered videos (78687.webm) at any depth, and the JSON files that say their classes; --lists names
published lists of videos, in any of the spellings of video_lists.py. Else every video of the classes is a clip.
"""

from __future__ import annotations

from pathlib import Path

from .base import DatasetOptions, Listing
from .benchmark import Benchmark
from .something import numbered_listing

BENCHMARK = Benchmark("ssv2-100", ("ssv2_small", "smsm", "ssv2_cmn"))


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of the classes of ssv2-100. Raises UsageError where there is none, or the lists cannot be read."""
    return numbered_listing(BENCHMARK, data, options)
