"""Classes that an encoder may have met when it was trained, by their names and by the encoder's own confidence.

A novel class whose name, or whose pictures, the encoder's training set had is not new to the features. Names are
compared as sets of words without endings: the same set is the same class; where one holds the other, one class is a
part or a kind of the other. A stream of class scores (modality ``score``), where there is one, says what the encoder
takes the clips for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..catalog import Catalog, LabelSet, readable
from ..schema import SCORE, StreamName, list_streams, shard_paths
from ..shard import read_shard
from ..stream import stream_provenance

TRAINED_ON: Mapping[str, str] = {
    "efficientnet-lite0": "imagenet-1k",
    "efficientnet-lite2": "imagenet-1k",
    "efficientnet-lite0-int8": "imagenet-1k",
    "flow-rgb-efficientnet-lite0": "imagenet-1k",
    "i3d-rgb": "kinetics-400",
    "i3d-flow": "kinetics-400",
    "x3d-s": "kinetics-400",
    "slowfast-r50": "kinetics-400",
    "yamnet": "audioset-521",
}
"""The training set of each encoder whose list of classes fsmm carries; CLIP's captions have no such list."""
SCORES: Mapping[str, str] = {
    "efficientnet-lite0-int8-scores": "imagenet-1k",
    "i3d-rgb-scores": "kinetics-400",
    "yamnet-scores": "audioset-521",
}
"""The training set whose classes the features of each encoder of scores stand for."""
SAME, PART, CONFIDENT = "same words", "part of the words", "confidence"
_LEAST = (
    0.5  # The mean probability of the label that most clips of a class get, and the share of those clips.
)
_WORD = re.compile(r"[^\W_]+")
_EMPTY = frozenset(
    {"a", "an", "the", "of", "on", "in", "with", "to", "and", "or", "at", "by", "from", "into", "for"}
)
_EMPTY |= {"something", "someone", "somebody", "other", "some"}
_WEAK = frozenset({"play", "mak", "do", "us", "tak", "get", "go", "hold", "put"})
_WEAK |= {"person", "people", "man", "woman", "child"}


@dataclass(frozen=True)
class Overlap:
    """A class of a data set that a training set had."""

    class_name: str
    """The class of the data set."""
    training_set: str
    """The training set."""
    label: str
    """The class of the training set."""
    how: str
    """How they agree: "same words", "part of the words" or "confidence"."""
    confidence: float | None = None
    """The mean probability that the encoder gives the label on the class's clips; None without scores."""


_NAMED = {"imagenet": "imagenet-1k", "kinetics": "kinetics-400", "audioset": "audioset-521"}


def training_set_of(folder: Path, stream: StreamName) -> str | None:
    """The training set of a stream's encoder, by the encoder or by the name that its weights were imported with."""
    known = {**TRAINED_ON, **SCORES}
    if stream.encoder in known:
        return known[stream.encoder]
    origin = stream_provenance(folder, stream)
    weights = "" if origin is None or stream.modality in ("word", SCORE) else origin.weights.lower()
    return next((name for word, name in _NAMED.items() if word in weights), None)


@cache
def labels_of(training_set: str) -> tuple[str, ...]:
    """The class names of a training set, in the order of its scores."""
    path = Path(__file__).parent / "labels" / f"{training_set}.txt"
    return tuple(path.read_text("utf-8").splitlines())


def stems(text: str) -> frozenset[str]:
    """The words of a class name without endings and empty words.

    >>> sorted(stems("ShootingBasketball")), sorted(stems("basketball shoot"))
    (['basketball', 'shoot'], ['basketball', 'shoot'])
    """
    words = [word.lower() for word in _WORD.findall(readable(text))]
    return frozenset(_stem(word) for word in words if word not in _EMPTY)


def _stem(word: str) -> str:
    """A word without the commonest endings: running, runs and run are one.

    >>> [_stem(word) for word in ("running", "runs", "juggling", "dances", "dance", "glass")]
    ['run', 'run', 'juggl', 'danc', 'danc', 'glass']
    """
    if len(word) > 5 and word.endswith("ing"):
        word = word[:-3]
        if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
            word = word[:-1]
    elif len(word) > 2 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return word.rstrip("e") if len(word) > 3 else word


def _alternatives(name: str) -> list[frozenset[str]]:
    """The stems of a name, and of each of the names that commas divide it into."""
    found = [stems(part) for part in (name, *name.split(","))]
    return [part for part in dict.fromkeys(found) if part]


@cache
def _known(training_set: str) -> tuple[tuple[str, tuple[frozenset[str], ...]], ...]:
    return tuple((label, tuple(_alternatives(label))) for label in labels_of(training_set))


@cache
def by_words(class_name: str, training_set: str) -> Overlap | None:
    """The class of a training set whose words agree best with a class name; None where none do."""
    mine = _alternatives(class_name)
    for label, theirs in _known(training_set):
        if set(mine) & set(theirs):
            return Overlap(class_name, training_set, label, SAME)
    best: tuple[float, str] | None = None
    for label, theirs in _known(training_set):
        for a in mine:
            for b in theirs:
                smaller = a if a < b else b if b < a else None
                if smaller and smaller - _WEAK:
                    share = len(smaller) / len(a | b)
                    best = max(best or (0.0, ""), (share, label), key=lambda pair: pair[0])
    return None if best is None else Overlap(class_name, training_set, best[1], PART)


def overlaps(
    folder: Path, catalog: Catalog, streams: Iterable[StreamName], label_set: str | None = None
) -> list[Overlap]:
    """The classes of a label set that the training sets of these streams' encoders had, class by class.

    A class that words already tell has the encoder's confidence beside it where scores are stored. Raises CacheError
    for a damaged shard of scores.
    """
    labels = catalog.labels(label_set)
    sets = list(dict.fromkeys(name for s in streams if (name := training_set_of(folder, s)) is not None))
    scores = {
        SCORES[s.encoder]: mean_scores(folder, s, catalog, labels)
        for s in list_streams(folder)
        if s.modality == SCORE and s.encoder in SCORES
    }
    found = []
    for number, name in enumerate(labels.class_names):
        for training_set in sets:
            told = by_words(name, training_set)
            sure = confident(scores.get(training_set), number, training_set)
            if told is not None:
                confidence = None if sure is None or sure[0] != told.label else sure[1]
                found.append(Overlap(name, training_set, told.label, told.how, confidence))
            elif sure is not None and sure[1] >= _LEAST and sure[2] >= _LEAST:
                found.append(Overlap(name, training_set, sure[0], CONFIDENT, sure[1]))
    return found


def confident(
    scores: Sequence[np.ndarray] | None, number: int, training_set: str
) -> tuple[str, float, float] | None:
    """The label that most clips of a class get, its mean probability, and the share of clips that get it."""
    if scores is None or not len(scores[number]):
        return None
    clips = scores[number]
    top = clips.argmax(1)
    label = int(np.bincount(top).argmax())
    return labels_of(training_set)[label], float(clips[:, label].mean()), float((top == label).mean())


def mean_scores(folder: Path, stream: StreamName, catalog: Catalog, labels: LabelSet) -> list[np.ndarray]:
    """The probabilities [n, L] of the clips of each class, averaged over time."""
    rows = catalog.rows()
    found: list[list[np.ndarray]] = [[] for _ in labels.class_names]
    for path in shard_paths(folder, stream):
        shard = read_shard(path, facts=False)
        for row in np.flatnonzero(shard.present).tolist():
            if (clip := rows.get(shard.key[row])) is None:
                continue
            mean = shard.clip(row).astype(np.float32).mean(0)
            label = labels.label[clip]
            for number in np.flatnonzero(label).tolist() if labels.multi else [int(label)]:
                if number >= 0:
                    found[number].append(mean)
    return [np.array(clips, np.float32) for clips in found]
