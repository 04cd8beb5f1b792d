"""What decides in generalised tests whether a clip is of a seen or of an unseen class, and how it is chosen.

A rule gives each clip a score; above a cut the best of the seen classes is taken, else the best of the unseen ones.
Stacking (Chao et al., ECCV 2016) scores by how far the best seen logit is above the best unseen one, which is the same
as a bias on seen classes. Gates decide before any unseen class is looked at: by the energy of the seen logits (Liu et
al., NeurIPS 2020), by the entropy of their posterior, or by a gate of their own that has learned it
(runs/learned_gate.py).

Heads of other numbers of classes score on other scales. So that a threshold transfers from one head to another, it is
counted in standard deviations of the scores that a head gives its own training clips, from their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..heads.decided import On

Kind = Literal["bias", "energy", "entropy", "learned"]
KINDS: tuple[Kind, ...] = ("bias", "energy", "entropy")
"""The kinds that need nothing but the head's logits."""
TRIALS = 61
"""The number of thresholds that are tried, at equal shares of the clips."""


class Clips(NamedTuple):
    """What is known of some clips of a generalised test."""

    logits: Tensor
    """The logits of the seen classes and then of the unseen ones, [n, C]."""
    label: Tensor
    """The class of each clip among the seen or the unseen ones, int64 [n]."""
    gate: Tensor | None = None
    """A learned gate's scores, [n]."""


class Trial(NamedTuple):
    """The clips among which a rule is to tell seen from unseen classes."""

    unseen: Clips
    """Clips of unseen classes."""
    seen: Clips
    """Clips of seen classes that training did not have."""
    train: Clips
    """Clips of seen classes that training had."""
    seen_classes: int
    """The number of seen classes."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A score and the threshold above which a clip is of a seen class."""

    kind: Kind = "bias"
    """The score: the gap of stacking, the energy, the entropy, or a learned gate's."""
    threshold: float = 0.0
    """The threshold."""
    relative: bool = False
    """Whether the threshold counts in standard deviations of training clips' scores, from their mean."""

    def cut(self, trial: Trial) -> float:
        """The score above which clips of this trial are of a seen class; for a bias it is the bias."""
        if not self.relative:
            return self.threshold
        middle, unit = scale_of(trial, self.kind)
        return middle + self.threshold * unit

    def predicted(self, clips: Clips, seen: int, cut: float) -> Tensor:
        """The class of each clip, int64 [n]."""
        is_seen = seen_score(self.kind, clips, seen) > cut
        best = clips.logits[:, :seen].argmax(1), seen + clips.logits[:, seen:].argmax(1)
        return torch.where(is_seen, *best)


def seen_score(kind: Kind, clips: Clips, seen: int) -> Tensor:
    """How much each clip looks like one of the first ``seen`` classes, [n]."""
    if kind == "learned":
        assert clips.gate is not None, "a trial of a learned gate holds its scores"
        return clips.gate
    own = clips.logits[:, :seen]
    if kind == "bias":
        return own.amax(1) - clips.logits[:, seen:].amax(1)
    if kind == "energy":
        return own.logsumexp(1)
    log_p = own.log_softmax(1)
    return (log_p.exp() * log_p).sum(1)


def scale_of(trial: Trial, kind: Kind) -> tuple[float, float]:
    """The mean and the standard deviation of the scores of training clips."""
    score = seen_score(kind, trial.train, trial.seen_classes).double()
    return float(score.mean()), max(float(score.std()), 1e-9)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A rule and what it was chosen on."""

    rule: Rule
    """The rule."""
    on: On = "none"
    """The classes that it was chosen on."""
    chosen_on: str = "nothing"
    """What it was chosen on, as a phrase."""
    curve: tuple[tuple[float, ...], ...] = ()
    """The thresholds that were tried for its kind, each with S, U and HM, meaned over trials."""
    others: tuple[tuple[str, float], ...] = ()
    """The best HM of each kind that was tried."""

    def to_dict(self) -> dict[str, Any]:
        """The choice in plain JSON values."""
        return {
            "kind": self.rule.kind,
            "threshold": self.rule.threshold,
            "relative": self.rule.relative,
            "chosen_on": self.chosen_on,
            "curve": [list(entry) for entry in self.curve],
            "harmonic_by_kind": dict(self.others),
        }


def choose(
    trials: Sequence[Trial], kinds: Sequence[Kind], on: On, chosen_on: str, *, relative: bool = True
) -> Choice:
    """The rule with the best harmonic mean of S and U, meaned over trials; the first one where several are equal.

    relative: whether thresholds count in standard deviations of training clips' scores.
    """
    found: list[tuple[float, Kind, Tensor]] = []
    for kind in kinds:
        scales = [scale_of(trial, kind) if relative else (0.0, 1.0) for trial in trials]
        scores = [(_scores(trial, kind) - middle) / unit for trial, (middle, unit) in zip(trials, scales)]
        shares = torch.linspace(0, 1, TRIALS, dtype=torch.float64, device=scores[0].device)
        thresholds = torch.cat(scores).quantile(shares)
        each = [
            accuracies(trial, kind, middle + unit * thresholds)
            for trial, (middle, unit) in zip(trials, scales)
        ]
        curve = torch.stack(each).mean(0)
        found.append((float(curve[:, 2].max()), kind, torch.cat([thresholds[:, None], curve], 1)))
    _, kind, table = max(found, key=lambda entry: entry[0])
    best = int(table[:, 3].argmax())
    return Choice(
        rule=Rule(kind=kind, threshold=float(table[best, 0]), relative=relative),
        on=on,
        chosen_on=chosen_on,
        curve=tuple(tuple(entry) for entry in table.tolist()),
        others=tuple((kind, harmonic) for harmonic, kind, _ in found),
    )


def accuracies(trial: Trial, kind: Kind, cuts: Tensor) -> Tensor:
    """S, U and their harmonic mean at each cut [K], float64 [K, 3]; per-class means over the classes with clips."""
    first = trial.seen_classes
    right_seen = trial.seen.logits[:, :first].argmax(1) == trial.seen.label
    right_unseen = trial.unseen.logits[:, first:].argmax(1) == trial.unseen.label
    seen_kept = seen_score(kind, trial.seen, first)[None] > cuts[:, None]
    unseen_kept = seen_score(kind, trial.unseen, first)[None] <= cuts[:, None]
    s = _class_means(seen_kept & right_seen, trial.seen.label)
    u = _class_means(unseen_kept & right_unseen, trial.unseen.label)
    harmonic = torch.where(s + u > 0, 2 * s * u / (s + u).clamp(min=1e-300), 0.0)
    return torch.stack([s, u, harmonic], 1)


def _scores(trial: Trial, kind: Kind) -> Tensor:
    """The scores of the clips of unseen and of seen classes."""
    return torch.cat(
        [seen_score(kind, clips, trial.seen_classes) for clips in (trial.unseen, trial.seen)]
    ).double()


def _class_means(right: Tensor, label: Tensor) -> Tensor:
    """The mean over classes of the share of clips that are right, float64 [K], of bool [K, n] and labels [n]."""
    hot = torch.nn.functional.one_hot(label).double()
    counts = hot.sum(0)
    return ((right.double() @ hot)[:, counts > 0] / counts[counts > 0]).mean(1)
