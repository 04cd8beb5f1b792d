"""Dataset ``videoemotion-8`` is VideoEmotion-8: user videos in one folder an emotion.

Another layout is read by a CSV file (dataset ``csv``).
"""

from __future__ import annotations

from pathlib import Path

from .base import DatasetOptions, Listing
from .emotions import emotion_listing

EMOTIONS = ("anger", "anticipation", "disgust", "fear", "joy", "sadness", "surprise", "trust")


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips in the folders of the emotions. Raises UsageError where there is none."""
    return emotion_listing("videoemotion-8", EMOTIONS, data, options)
