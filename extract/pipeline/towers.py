"""A model with a tower for frames and one for words is tried on the built-in handful before it fills its first stream.

Random, damaged or foreign weights fit into a network as well as its own; what tells them apart is that the handful's
words and clips are then told apart no better than by guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np

from ...errors import WeightsError
from ..contract import Encoder
from ..encoders.prompts import TEXT
from .lane import Lane

_LEAST = 1 / 3  # the share of words, or of clips, that real weights exceed by far; guessing gives a sixth


def doubtful_towers(lanes: Sequence[Lane], words: Sequence[Encoder]) -> list[str]:
    """A sentence for each new stream whose encoder has a text tower among ``words`` and is no better than guessing.

    Raises WeightsError where an encoder's weights do not fit.
    """
    pairs = [
        (lane.encoder, word)
        for lane in lanes
        for word in words
        if lane.writer.is_new and word.name.startswith(f"{lane.encoder.name}-{TEXT}")
    ]
    return [sentence for frames, word in pairs if (sentence := doubt_about(copy(frames), word))]


def doubt_about(frames: Encoder, words: Encoder) -> str:
    """The sentence about a model's two towers where one of them is no better than guessing; else ""."""
    from ..built_in.clips import HANDFUL_CLASSES
    from ..built_in.encoding import features_of_handful

    try:
        seen, told = features_of_handful(frames), features_of_handful(words)
        names = np.concatenate([words.encode([name])[0] for name in HANDFUL_CLASSES])
    except WeightsError:
        raise
    except Exception:  # The first clip, or the first word, says what is wrong.
        return ""
    by_words = float(((_unit(seen.mean) @ _unit(names).T).argmax(1) == seen.label).mean())
    if min(seen.accuracy(), told.accuracy()) > _LEAST and by_words > 1 / len(names):
        return ""
    return (
        f"Encoder {frames.name!r} was tried on the built-in clips: {seen.accuracy():.0%} of them are told right by "
        f"other clips, {by_words:.0%} by its words, and {told.accuracy():.0%} of the words by other words, where "
        f"guessing gives {1 / len(names):.0%}; its weights may be random, damaged or those of another model."
    )


def _unit(x: np.ndarray) -> np.ndarray:
    unit: np.ndarray = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return unit
