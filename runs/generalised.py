"""Generalised tests over whole splits: clips of unseen and of seen classes among the classes of both.

The measures are the per-class-mean accuracies S on seen and U on unseen classes, and their harmonic mean HM (Xian et
al., TPAMI 2019). Without supports every class is given by its words. With K supports a class (generalised few-shot),
those of an unseen class are drawn anew in every draw, and a seen class has up to SEEN_SUPPORTS of its training clips.
What decides between seen and unseen classes is a rule (runs/seen_unseen.py), which is chosen beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..cache.table import Stream
from ..episodes.protocol import TooFew
from ..heads.head import Head
from .learned_gate import LearnedGate
from .result import Result
from .seen_unseen import Choice, Clips, Trial, accuracies
from .statistics import draw_uncertainty
from .zero_shot import class_mean, confusion_of, rates, whole_split_logits, words_of

SEEN_SUPPORTS = 20
"""The most supports of a seen class."""
TRAIN_CLIPS = 600
"""The most training clips on which the scale of a head's scores is measured."""
MOST_DRAWS = 20
"""The most draws of a generalised few-shot test, each of which classifies every clip."""


class Sides(NamedTuple):
    """The clips of a generalised test."""

    unseen: FeatureBank
    """The clips of unseen classes."""
    seen: FeatureBank
    """The clips of seen classes on which S is measured."""
    train: FeatureBank
    """The other clips of the same seen classes, which may be supports."""


@dataclass(kw_only=True)
class Generalised(Result):
    """The result of a generalised test of E draws with C classes in all; without supports there is one draw."""

    shots: int
    """The supports of an unseen class, 0 for generalised zero-shot."""
    seen: np.ndarray
    """float64 [E], the per-class-mean accuracy S on seen classes of each draw, in 0..1."""
    unseen: np.ndarray
    """float64 [E], the same on unseen classes, U."""
    harmonic: np.ndarray
    """float64 [E], the harmonic mean of S and U of each draw."""
    unseen_alone: np.ndarray
    """float64 [E], the accuracy on unseen classes where no seen class competes."""
    seen_alone: np.ndarray
    """float64 [E], the accuracy on seen classes where no unseen class competes."""
    cut: float
    """The score above which a clip was of a seen class, meaned over draws."""
    choice: Choice
    """What decided between seen and unseen classes, and what that was chosen on."""
    confusion: np.ndarray
    """int64 [C, C], the number of clips by true class and predicted class, over all draws."""
    class_names: list[str]
    """The names of the C classes, seen ones first."""
    clips: int
    """The number of clips that a draw classifies."""
    seconds: float
    """The time of all draws in seconds."""

    @property
    def accuracy(self) -> float:
        """The mean of HM over draws."""
        return float(self.harmonic.mean())

    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored; the interval is over draws of supports, where there are several."""
        error = draw_uncertainty(self.harmonic).half_width() if len(self.harmonic) > 1 else None
        return {
            "accuracy": self.accuracy,
            "measure": "harmonic mean of S and U",
            "unseen": float(self.unseen.mean()),
            "seen": float(self.seen.mean()),
            "harmonic": self.accuracy,
            "unseen_alone": float(self.unseen_alone.mean()),
            "seen_alone": float(self.seen_alone.mean()),
            "seen_unseen": {**self.choice.to_dict(), "cut": self.cut},
            "ci95": error,
            "ci95_clips": None,
            "ci95_classes": None,
            "per_class": rates(self.confusion, self.class_names),
            "episodes": len(self.harmonic),
            "clips_classified": self.clips * len(self.harmonic),
            "eval_seconds": self.seconds,
            "episodes_per_second": len(self.harmonic) / max(self.seconds, 1e-9),
            "excluded_classes": [],
        }

    def per_episode(self) -> np.ndarray:
        """HM of each draw, float32 [E]; empty without supports, where a whole split is classified at once."""
        return self.harmonic.astype(np.float32) if self.shots else np.empty(0, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """HM, S and U of each draw [E], the confusion [C, C] and the names of its classes."""
        return {
            "accuracy": self.harmonic.astype(np.float32),
            "seen": self.seen,
            "unseen": self.unseen,
            "confusion": self.confusion,
            "class_names": np.array(self.class_names),
        }


@torch.no_grad()
def generalised(
    head: Head,
    sides: Sides,
    choice: Choice,
    *,
    shots: int = 0,
    draws: int = 1,
    seed: int = 0,
    gate: LearnedGate | None = None,
    progress: Callable[[int], None] | None = None,
) -> Generalised:
    """Classify clips of unseen and of seen classes among the classes of both, in one draw or several of supports.

    gate: the learned gate, where the rule is of that kind.
    Raises UsageError where a test without supports has no class words, TooFew where a class has too few clips.
    """
    started, rule = time.perf_counter(), choice.rule
    names = [*sides.seen.class_names, *sides.unseen.class_names]
    first, confusion = len(sides.seen.class_names), np.zeros((len(names), len(names)), np.int64)
    figures: list[tuple[float, ...]] = []
    for trial in trials(head, sides, shots=shots, draws=draws, seed=seed, gate=gate):
        cut = rule.cut(trial)
        of_unseen, of_seen = (rule.predicted(clips, first, cut) for clips in (trial.unseen, trial.seen))
        unseen = confusion_of(of_unseen, trial.unseen.label + first, len(names))
        seen = confusion_of(of_seen, trial.seen.label, len(names))
        always, never = accuracies(
            trial, "bias", torch.tensor([-torch.inf, torch.inf], device=of_seen.device)
        ).tolist()
        s, u = class_mean(seen), class_mean(unseen)
        figures.append((s, u, harmonic_mean(s, u), never[1], always[0], cut))
        confusion += unseen + seen
        if progress:
            progress(1)
    table = np.array(figures)
    return Generalised(
        shots=shots,
        seen=table[:, 0],
        unseen=table[:, 1],
        harmonic=table[:, 2],
        unseen_alone=table[:, 3],
        seen_alone=table[:, 4],
        cut=float(table[:, 5].mean()),
        choice=choice,
        confusion=confusion,
        class_names=names,
        clips=int(confusion.sum()) // len(table),
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def trials(
    head: Head, sides: Sides, *, shots: int, draws: int, seed: int, gate: LearnedGate | None = None
) -> Iterator[Trial]:
    """The logits of each draw; without supports there is one. Raises as :func:`generalised`."""
    rng = np.random.Generator(np.random.Philox(seed))
    class_id = torch.cat([sides.seen.class_id, sides.unseen.class_id])
    words = None
    if shots == 0 or (sides.seen.words is not None and sides.unseen.words is not None):
        words = torch.cat([words_of(sides.seen), words_of(sides.unseen)])
    for _ in range(draws if shots else 1):
        queries, support = sides.unseen, None
        if shots:
            rows, left = _drawn(sides.unseen, shots, rng)
            queries = sides.unseen.rows(left)
            support = _supports(sides, rows, _seen_rows(sides.train, rng))
        unseen, seen, known = (
            Clips(
                whole_split_logits(head, bank, words, class_id, support=support),
                bank.label,
                None if gate is None else gate.score(bank),
            )
            for bank in (queries, sides.seen, _sample(sides.train))
        )
        yield Trial(unseen, seen, known, len(sides.seen.class_names))


def _sample(train: FeatureBank) -> FeatureBank:
    """Some of the training clips, the same ones every time."""
    rng = np.random.Generator(np.random.Philox(TRAIN_CLIPS))
    return train.rows(np.sort(rng.permutation(len(train))[:TRAIN_CLIPS]))


def harmonic_mean(a: float, b: float) -> float:
    """The harmonic mean 2ab / (a + b); 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def _drawn(bank: FeatureBank, shots: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The rows [C, K] of each class's supports, and the rows of all other clips. Raises TooFew."""
    label, chosen = bank.label.cpu().numpy(), []
    for c, name in enumerate(bank.class_names):
        rows = np.flatnonzero(label == c)
        if len(rows) <= shots:
            raise TooFew(
                f"Class {name!r} has {len(rows)} clips, which leaves none to classify beside {shots} supports; use "
                "fewer with --k-shot."
            )
        chosen.append(rng.permutation(rows)[:shots])
    return np.stack(chosen), np.setdiff1d(np.arange(len(bank)), np.concatenate(chosen))


def _seen_rows(train: FeatureBank, rng: np.random.Generator) -> list[np.ndarray]:
    """The rows of each seen class's supports."""
    label = train.label.cpu().numpy()
    return [
        rng.permutation(np.flatnonzero(label == c))[:SEEN_SUPPORTS] for c in range(len(train.class_names))
    ]


def _supports(sides: Sides, unseen: np.ndarray, seen: list[np.ndarray]) -> dict[str, Stream]:
    """The supports of all classes, seen ones first, Streams [1, C, K, T, D]; a class with fewer has absent ones."""
    most = max(unseen.shape[1], *(len(rows) for rows in seen))
    found = {}
    for m in sides.unseen.tables:
        parts = [_padded(sides.train, m, rows, most) for rows in seen]
        parts += [_padded(sides.unseen, m, rows, most) for rows in unseen]
        found[m] = Stream(*(torch.stack(each)[None] for each in zip(*parts)))
    return found


def _padded(bank: FeatureBank, modality: str, rows: np.ndarray, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """One class's supports and as many absent ones as are lacking: features [K, T, D], present [K], length [K]."""
    index = torch.from_numpy(rows).to(bank.device)
    stream, lacking = bank.tables[modality].gather(index), most - len(rows)
    x, present, length = stream.x, stream.present, stream.length
    return (
        torch.cat([x, x.new_zeros(lacking, *x.shape[1:])]),
        torch.cat([present, present.new_zeros(lacking)]),
        torch.cat([length, length.new_zeros(lacking)]),
    )
