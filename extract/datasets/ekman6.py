"""Dataset ``ekman-6`` is Ekman-6: user videos in one folder an emotion.

Another layout is read by a CSV file (dataset ``csv``).
"""

from __future__ import annotations

from pathlib import Path

from .base import DatasetOptions, Listing
from .emotions import emotion_listing

EMOTIONS = ("anger", "disgust", "fear", "joy", "sadness", "surprise")


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips in the folders of the emotions. Raises UsageError where there is none."""
    return emotion_listing("ekman-6", EMOTIONS, data, options)
