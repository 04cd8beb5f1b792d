"""The encoders of this machine on the labelled handful: their accuracy, and whether their features are the known ones.

The accuracy is that of the nearest class mean by cosine, each clip (or word) left out in turn. It shows a tokenizer, a
network or weights that do not fit. A normalisation that is only somewhat wrong leaves easy classes where they are, so
the features of the first clip of each class are also compared with those that were measured when the handful was made,
for each encoder and each file of weights that was there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DecodeError
from ..contract import Encoder, FrameNeed, Sampling, SeriesNeed, TextNeed
from ..decoding.decode import decode
from ..encoders.sensor import SeriesEncoder
from ..pipeline.worker import READY, prepare_part
from .clips import HANDFUL_CLASSES, handful
from .series import AXES, CLASSES, MEMBERS, made_windows

REFERENCE = Path(__file__).with_name("reference.npz")
SAMPLING = Sampling(segments=2)  # The path through the network is the same for few frames and for many.
_FEW = 2  # clips of a class for networks of pictures


@dataclass(frozen=True)
class HandfulFeatures:
    """The features of the n members of the handful by one encoder."""

    mean: np.ndarray
    """The features averaged over time, float32 [n, D]."""
    label: np.ndarray
    """The class of each member, int [n]."""

    @property
    def first(self) -> np.ndarray:
        """The features of the first member of each class, float32 [C, D]."""
        return self.mean[[int(np.flatnonzero(self.label == c)[0]) for c in np.unique(self.label)]]

    def accuracy(self) -> float:
        """The share of members that are nearest to their own class's mean, each left out of the means in turn."""
        x = _unit(self.mean)
        classes = np.unique(self.label)
        sums = np.stack([x[self.label == c].sum(0) for c in classes])
        right = 0
        for row, label in zip(x, self.label):
            own = np.flatnonzero(classes == label)[0]
            means = sums.copy()
            means[own] -= row
            right += int((_unit(means) @ row).argmax() == own)
        return right / len(x)


def features_of_handful(encoder: Encoder) -> HandfulFeatures:
    """The features of the handful's words, of made series, or of its clips.

    A network of pictures gets two clips of a class, of fewer and smaller frames where these go the same way through it.
    Raises DecodeError where the encoder can use none of them, and whatever decoding and the encoder raise.
    """
    if isinstance(encoder.need, TextNeed):
        texts = [(c, word) for c, words in enumerate(HANDFUL_CLASSES.values()) for word in words]
        return _gathered([(c, encoder.encode([word])[0]) for c, word in texts], encoder)
    if isinstance(encoder.need, SeriesNeed):
        return _gathered(_of_series(encoder), encoder)
    with _on_trial(encoder):
        return _gathered(_of_clips(encoder), encoder)


def _of_clips(encoder: Encoder) -> list[tuple[int, np.ndarray]]:
    """The class and the features of the handful's clips that an encoder can use."""
    few = isinstance(encoder.need, FrameNeed) and bool(encoder.provenance().get("weights_sha256"))
    found, names = [], list(HANDFUL_CLASSES)
    for number, (name, source) in enumerate(handful()):
        if few and number % 4 >= _FEW:
            continue
        part = prepare_part(encoder, decode(source, name, [encoder.need], SAMPLING))
        if part.state == READY:
            found.append((names.index(name), encoder.encode([part.value])[0]))
    return found


@contextmanager
def _on_trial(encoder: Encoder) -> Iterator[None]:
    """Let an encoder ask for the frames of trials inside the block, where it has such."""
    need, encoder.need = encoder.need, getattr(encoder, "trial_need", None) or encoder.need
    try:
        yield
    finally:
        encoder.need = need


def _of_series(encoder: Encoder) -> list[tuple[int, np.ndarray]]:
    """The class and the features of made time series."""
    if isinstance(encoder, SeriesEncoder):
        encoder.fit_to(AXES)
    each = [(label, member) for label in range(CLASSES) for member in range(MEMBERS)]
    windows = [(label, encoder.prepare(made_windows(label, member, AXES))) for label, member in each]
    return [(label, encoder.encode([prepared])[0]) for label, prepared in windows]


def _gathered(found: list[tuple[int, np.ndarray]], encoder: Encoder) -> HandfulFeatures:
    if not found:
        raise DecodeError(f"Encoder {encoder.name!r} can use none of the built-in clips.")
    mean = np.stack([features.mean(0) for _, features in found]).astype(np.float32)
    return HandfulFeatures(mean, np.array([c for c, _ in found]))


def reference_key(encoder: Encoder) -> str:
    """The name of an encoder's known features, which holds for its weights alone."""
    return f"{encoder.name}@{encoder.provenance().get('weights_sha256', '')[:16]}"


def cosine_to_reference(encoder: Encoder, features: HandfulFeatures) -> float | None:
    """The smallest cosine between features of this machine and the known ones; None where none are known."""
    with np.load(REFERENCE, allow_pickle=False) as known:
        if (key := reference_key(encoder)) not in known:
            return None
        expected = known[key].astype(np.float32)
    if expected.shape != features.first.shape:
        return 0.0
    return float((_unit(features.first) * _unit(expected)).sum(1).min())


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12))
