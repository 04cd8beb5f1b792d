"""Zero-shot over whole splits: every clip once, against all classes given by their words.

Per-class-mean accuracy on unseen classes; with ``generalised`` the seen (base) classes compete: seen S, unseen U and
their harmonic mean HM (Xian et al., TPAMI 2019). Calibrated stacking (Chao et al., ECCV 2016) subtracts a bias from
seen classes, chosen on val classes, never on novel ones.
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

HELD_OUT = 0.2


@dataclass(kw_only=True)
class ZeroShot(Result):
    """What one pass over a whole split found.

    unseen, seen, harmonic: per-class-mean accuracies in 0..1 (seen and harmonic None unless generalised).

    bias: subtracted from seen classes. curve: the trade-off on val classes, [[bias, S, U, HM] ...].
    """

    unseen: float
    seen: float | None
    harmonic: float | None
    bias: float
    per_class: dict[str, float]
    confusion: np.ndarray
    class_names: list[str]
    clips: int
    seconds: float
    curve: list[list[float]]

    @property
    def accuracy(self) -> float:
        """The harmonic mean of S and U where seen classes compete, else U."""
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
        """Nothing: a whole split is classified at once, without episodes."""
        return np.empty(0, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The one accuracy of the pass [1], the confusion [C, C] and the names of its classes."""
        return {
            "accuracy": np.array([self.accuracy], np.float32),
            "confusion": self.confusion,
            "class_names": np.array(self.class_names),
        }


def held_out(base: FeatureBank, seed: int) -> tuple[FeatureBank, FeatureBank]:
    """Two parts of the base clips, for training and for measuring S: a fifth of each class, drawn by seed, is kept."""
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
    """Classify clips of unseen and of (held-out) seen classes among the classes of both.

    val: unseen classes for choosing the bias; without them it is 0.
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
    """The bias with the best harmonic mean when val classes play the unseen; 41 values over the logits' range."""
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
    """Logits [n, C] of all clips against classes given by words [C, E]: one zero-shot episode a block of clips."""
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
    """Counts [C, C] of true by predicted class; the labels count from ``offset`` on."""
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
    """The figures of a confusion [C, C] whose first ``seen`` classes are seen ones."""
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
