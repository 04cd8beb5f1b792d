"""Zero-shot over whole splits classifies every clip once among all classes, which are given by their words.

The measure is the per-class-mean accuracy on unseen classes. In generalised zero-shot the seen (base) classes compete
too, and the measures are the accuracy S on seen classes, U on unseen classes, and their harmonic mean HM (Xian et al.,
TPAMI 2019). Calibrated stacking (Chao et al., ECCV 2016) subtracts a bias from the logits of seen classes; the bias is
chosen on val classes, never on novel ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..episodes.batch import Episodes, Stream
from ..errors import UsageError
from ..heads.head import Head
from .result import Result

# The share of each base class that generalised zero-shot holds out of training.
HELD_OUT = 0.2


@dataclass(kw_only=True)
class ZeroShot(Result):
    """The result of one pass over a whole split with C classes in all."""

    unseen: float
    """The per-class-mean accuracy U on unseen classes, in 0..1."""
    seen: float | None
    """The per-class-mean accuracy S on seen classes, in 0..1; None unless generalised."""
    harmonic: float | None
    """The harmonic mean of S and U, in 0..1; None unless generalised."""
    bias: float
    """The number that is subtracted from the logits of seen classes."""
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
    curve: list[list[float]]
    """The trade-off on val classes, one [bias, S, U, HM] for each bias."""

    @property
    def accuracy(self) -> float:
        """The harmonic mean of S and U where seen classes compete, and U otherwise."""
        return self.unseen if self.harmonic is None else self.harmonic

    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored; the pass counts as one episode and has no interval."""
        return {
            "accuracy": self.accuracy,
            "measure": "per-class-mean accuracy" if self.harmonic is None else "harmonic mean of S and U",
            "unseen": self.unseen,
            "seen": self.seen,
            "harmonic": self.harmonic,
            "bias": self.bias,
            "calibration": self.curve,
            "ci95": None,
            "ci95_clips": None,
            "ci95_classes": None,
            "per_class": self.per_class,
            "episodes": 1,
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
def zero_shot(head: Head, unseen: FeatureBank) -> ZeroShot:
    """Classify every clip of ``unseen`` among all its classes. Raises UsageError where there are no class words."""
    started = time.perf_counter()
    logits = _logits(head, unseen, _words(unseen))
    confusion = _confusion(logits, unseen.label, len(unseen.class_names), 0)
    return _result(confusion, unseen.class_names, clips=len(unseen), seconds=time.perf_counter() - started)


@torch.no_grad()
def generalised_zero_shot(
    head: Head, unseen: FeatureBank, seen: FeatureBank, val: FeatureBank | None
) -> ZeroShot:
    """Classify clips of unseen classes and held-out clips of seen classes among the classes of both.

    val: clips of further unseen classes for choosing the bias, which is 0 without them.
    Raises UsageError where there are no class words.
    """
    started = time.perf_counter()
    bias, curve = (0.0, []) if val is None else _choose_bias(head, val, seen)
    logits_u, logits_s = _joint(head, unseen, seen)
    first = len(seen.class_names)
    total = first + len(unseen.class_names)
    confusion = _confusion(_calibrated(logits_u, first, bias), unseen.label, total, first)
    confusion += _confusion(_calibrated(logits_s, first, bias), seen.label, total, 0)
    names = [*seen.class_names, *unseen.class_names]
    return _result(
        confusion,
        names,
        seen=first,
        bias=bias,
        clips=len(unseen) + len(seen),
        seconds=time.perf_counter() - started,
        curve=curve,
    )


def _choose_bias(head: Head, val: FeatureBank, seen: FeatureBank) -> tuple[float, list[list[float]]]:
    """The bias with the best harmonic mean when val classes are the unseen ones, and [bias, S, U, HM] of each trial.

    The trials are 41 biases over the range of the gap between the best seen and the best unseen logit.
    """
    logits_v, logits_s = _joint(head, val, seen)
    first, total = len(seen.class_names), len(seen.class_names) + len(val.class_names)
    gap = torch.cat([logits_v, logits_s])
    gap = gap[:, :first].amax(1) - gap[:, first:].amax(1)
    curve = []
    for bias in torch.linspace(float(gap.min()), float(gap.max()), 41).tolist():
        unseen = _class_mean(_confusion(_calibrated(logits_v, first, bias), val.label, total, first))
        seen_accuracy = _class_mean(_confusion(_calibrated(logits_s, first, bias), seen.label, total, 0))
        curve.append([bias, seen_accuracy, unseen, harmonic_mean(seen_accuracy, unseen)])
    return max(curve, key=lambda entry: entry[3])[0], curve


def _joint(head: Head, unseen: FeatureBank, seen: FeatureBank) -> tuple[Tensor, Tensor]:
    words = torch.cat([_words(seen), _words(unseen)])
    return _logits(head, unseen, words), _logits(head, seen, words)


def _words(bank: FeatureBank) -> Tensor:
    if bank.words is None:
        raise UsageError("Zero-shot needs class words; extract a word stream or name one with --words.")
    return bank.words


def _logits(head: Head, bank: FeatureBank, words: Tensor, block: int = 512) -> Tensor:
    """The logits [n, C] of all clips for classes given by words [C, E]; a block of clips is one zero-shot episode."""
    head.eval()
    classes = torch.arange(len(words), device=bank.device)[None]
    parts = []
    for rows in torch.arange(len(bank), device=bank.device).split(block):
        query = {m: _first(table.gather(rows)) for m, table in bank.tables.items()}
        support = {m: _no_support(s, len(words)) for m, s in query.items()}
        label = torch.zeros((1, len(rows)), dtype=torch.int64, device=bank.device)
        whole = Episodes(
            support=support,
            query=query,
            query_label=label,
            class_id=classes,
            words=words[None].to(bank.device),
        )
        parts.append(head(whole)[0])
    return torch.cat(parts).float()


def _first(stream: Stream) -> Stream:
    """The clips as the queries of one episode, a Stream [1, n, T, D]."""
    return Stream(stream.x[None], stream.present[None], stream.length[None])


def _no_support(query: Stream, ways: int) -> Stream:
    """The supports of a zero-shot episode: an empty Stream [1, N, 0, T, D]."""
    shape = (1, ways, 0)
    return Stream(
        query.x.new_zeros((*shape, *query.x.shape[-2:])),
        query.present.new_zeros(shape),
        query.length.new_zeros(shape),
    )


def _calibrated(logits: Tensor, seen: int, bias: float) -> Tensor:
    """The logits [n, C] with ``bias`` subtracted from the first ``seen`` classes."""
    shifted = logits.clone()
    shifted[:, :seen] -= bias
    return shifted


def _confusion(logits: Tensor, label: Tensor, classes: int, offset: int) -> np.ndarray:
    """The counts [C, C] of clips by true class and predicted class; label 0 is class ``offset``."""
    true = (label + offset).cpu().numpy()
    predicted = logits.argmax(1).cpu().numpy()
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _class_mean(confusion: np.ndarray) -> float:
    """The mean accuracy over the classes that have clips."""
    seen = confusion.sum(1)
    used = seen > 0
    return float((np.diag(confusion)[used] / seen[used]).mean())


def harmonic_mean(a: float, b: float) -> float:
    """The harmonic mean 2ab / (a + b); 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def _result(
    confusion: np.ndarray,
    names: list[str],
    *,
    clips: int,
    seconds: float,
    seen: int = 0,
    bias: float = 0.0,
    curve: Sequence[list[float]] = (),
) -> ZeroShot:
    """The result of a confusion [C, C] whose first ``seen`` classes are seen ones."""
    unseen_accuracy = _class_mean(confusion * (np.arange(len(names)) >= seen)[:, None])
    seen_accuracy = _class_mean(confusion * (np.arange(len(names)) < seen)[:, None]) if seen else None
    rate = np.diag(confusion) / np.maximum(confusion.sum(1), 1)
    return ZeroShot(
        unseen=unseen_accuracy,
        seen=seen_accuracy,
        harmonic=None if seen_accuracy is None else harmonic_mean(seen_accuracy, unseen_accuracy),
        bias=bias,
        per_class={name: float(r) for name, r in zip(names, rate)},
        confusion=confusion,
        class_names=names,
        clips=clips,
        seconds=seconds,
        curve=list(curve),
    )
