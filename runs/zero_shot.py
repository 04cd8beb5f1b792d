"""Zero-shot over whole splits classifies every clip once among all classes, which are given by their words.

The measure is the per-class-mean accuracy on unseen classes. Where the seen (base) classes compete, too, the test is a
generalised one (runs/generalised.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..episodes.batch import Episodes, Stream
from ..episodes.gather import filled
from ..errors import UsageError
from ..heads.head import Head
from .only_numbers import only_numbers
from .result import Result

# The share of each base class that generalised zero-shot holds out of training.
HELD_OUT = 0.2
BLOCK = 512
"""The clips that are the queries of one episode, unless the head decides them together."""


@dataclass(kw_only=True)
class ZeroShot(Result):
    """The result of one pass over a whole split with C classes."""

    unseen: float
    """The per-class-mean accuracy on unseen classes, in 0..1."""
    per_class: dict[str, float]
    """The accuracy of each class."""
    confusion: np.ndarray
    """int64 [C, C], the number of clips by true class and predicted class."""
    class_names: list[str]
    """The names of the C classes."""
    clips: int
    """The number of clips that were classified."""
    seconds: float
    """The time of the pass in seconds."""
    effective: int | None = None
    """The classes that have clips, if the head decided all clips together."""

    @property
    def accuracy(self) -> float:
        """The per-class-mean accuracy."""
        return self.unseen

    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored; the pass counts as one episode and has no interval."""
        return {
            "accuracy": self.accuracy,
            "measure": "per-class-mean accuracy",
            "unseen": self.unseen,
            "ci95": None,
            "ci95_clips": None,
            "ci95_classes": None,
            "per_class": self.per_class,
            "episodes": 1,
            "effective_classes": effective_of(self.effective),
            "clips_classified": self.clips,
            "eval_seconds": self.seconds,
            "episodes_per_second": 1 / max(self.seconds, 1e-9),
            "excluded_classes": [],
        }

    def per_episode(self) -> np.ndarray:
        """An empty array, since a whole split is classified at once, without episodes."""
        return np.empty(0, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The one accuracy of the pass [1], the confusion [C, C] and the names of its classes."""
        return {
            "accuracy": np.array([self.accuracy], np.float32),
            "confusion": self.confusion,
            "class_names": np.array(self.class_names),
        }


def held_out(base: FeatureBank, seed: int) -> tuple[FeatureBank, FeatureBank]:
    """The base clips in two parts: those of training, and those on which S is measured.

    The second part is a fifth of the clips of each class, drawn by seed.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    label = base.label.cpu().numpy()
    test = np.zeros(len(base), bool)
    for c in range(len(base.class_names)):
        rows = np.flatnonzero(label == c)
        test[rng.permutation(rows)[: max(round(HELD_OUT * len(rows)), 1)]] = True
    return base.rows(np.flatnonzero(~test)), base.rows(np.flatnonzero(test))


@torch.no_grad()
def zero_shot(head: Head, unseen: FeatureBank, *, transductive: bool = False) -> ZeroShot:
    """Classify every clip of ``unseen`` among all its classes. Raises UsageError where there are no class words.

    transductive: whether the head decides clips together; all of them are then the queries of one episode, since the
    classes of a block of them would depend on the order of the clips.
    """
    started = time.perf_counter()
    names = unseen.class_names
    block = max(len(unseen), 1) if transductive else BLOCK
    logits = whole_split_logits(head, unseen, words_of(unseen), unseen.class_id, block=block)
    confusion = confusion_of(logits.argmax(1), unseen.label, len(names))
    return ZeroShot(
        unseen=class_mean(confusion),
        per_class=rates(confusion, names),
        confusion=confusion,
        class_names=names,
        clips=len(unseen),
        seconds=time.perf_counter() - started,
        effective=int((confusion.sum(1) > 0).sum()) if transductive else None,
    )


def effective_of(classes: int | None) -> dict[str, float] | None:
    """What a result says of the classes that the only episode's queries come from; None where they do not matter."""
    return None if classes is None else {"mean": float(classes), "least": classes, "most": classes}


def words_of(bank: FeatureBank) -> Tensor:
    """The class words of a bank. Raises UsageError where there are none."""
    if bank.words is None:
        raise UsageError(
            "Zero-shot needs class words; extract a word stream (--streams word), import one (docs/import.md), or name "
            "one with --words."
        )
    return bank.words


def whole_split_logits(
    head: Head,
    bank: FeatureBank,
    words: Tensor | None,
    class_id: Tensor,
    support: Mapping[str, Stream] | None = None,
    block: int = BLOCK,
) -> Tensor:
    """The logits [n, C] of all clips for C classes; a block of clips is the queries of one episode.

    words: [C, E], or None; class_id: the classes' numbers in the label set, int64 [C]; support: Streams
    [1, C, K, T, D], or None for a test without supports.
    """
    head.eval()
    parts = []
    for rows in torch.arange(len(bank), device=bank.device).split(block):
        asked = rows[None]
        query = filled(bank, asked, {m: table.gather(asked) for m, table in bank.tables.items()}, "query")
        whole = Episodes(
            support=dict(support) if support else {m: _empty(s, len(class_id)) for m, s in query.items()},
            query=query,
            query_label=torch.zeros((1, len(rows)), dtype=torch.int64, device=bank.device),
            class_id=class_id[None],
            words=None if words is None else words[None].to(bank.device),
        )
        parts.append(head(whole)[0])
    return only_numbers(torch.cat(parts).float())


def _empty(query: Stream, ways: int) -> Stream:
    """The supports of a zero-shot episode: an empty Stream [1, N, 0, T, D]."""
    shape = (1, ways, 0)
    return Stream(
        query.x.new_zeros((*shape, *query.x.shape[-2:])),
        query.present.new_zeros(shape),
        query.length.new_zeros(shape),
    )


def confusion_of(predicted: Tensor, label: Tensor, classes: int) -> np.ndarray:
    """The counts [C, C] of clips by true class and predicted class."""
    both = (label * classes + predicted).cpu().numpy()
    return np.bincount(both, minlength=classes * classes).reshape(classes, classes)


def class_mean(confusion: np.ndarray) -> float:
    """The mean accuracy over the classes that have clips."""
    seen = confusion.sum(1)
    used = seen > 0
    return float((np.diag(confusion)[used] / seen[used]).mean())


def rates(confusion: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The accuracy of each class by its name, 0 for one without clips."""
    right = np.diag(confusion) / np.maximum(confusion.sum(1), 1)
    return {name: float(rate) for name, rate in zip(names, right)}
