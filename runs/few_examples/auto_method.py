"""The choice of a method by the examples themselves: each candidate decides every example that is left out.

Candidates are compared by the mean of -log p(true class), with a temperature of their own: where examples are few, it
tells more than the number of right decisions. The first candidate stays unless another is better by more than one
standard error. Whoever is picked for being best has been lucky, so that the accuracy which is told is corrected: in
draws of the examples with replacement, the best on the drawn ones is measured on the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .calibration import fitted_temperature, probabilities
from .fitted import FittedHead, HeadChoice

POOLED = ("protonet", "ridge", "nearest", "linear-probe")
ORDERED = ("chamfer", "otam")
_DRAWS = 200
_LEAST_P = 1e-9
Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate's decisions on the m examples that were left out."""

    choice: HeadChoice
    """The candidate."""
    logits: np.ndarray
    """The logits, float [m, N]."""
    label: np.ndarray
    """The true classes, int [m]."""

    @property
    def right(self) -> np.ndarray:
        """Whether each example was decided rightly, bool [m]."""
        return np.asarray(self.logits.argmax(1) == self.label)

    @property
    def loss(self) -> np.ndarray:
        """Minus the logarithm of the calibrated probability of the true class, [m]."""
        p = probabilities(self.logits, fitted_temperature(self.logits, self.label))
        return np.asarray(-np.log(p[np.arange(len(p)), self.label] + _LEAST_P))

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The candidate that was picked, and what is known of it."""

    trials: Sequence[Trial]
    """What every candidate did; only the default's nothing where no example could be left out."""
    picked: int
    """The place of the picked candidate."""
    accuracy: float | None = None
    """The accuracy that is expected on clips like the examples, corrected for having picked; None if unknown."""
    interval: tuple[float, float] | None = None
    """The 95 % interval over examples (Wilson's); its upper end is that of the share before the correction."""
    rival: int | None = None
    """The place of the best other candidate; None where there is none."""
    gain: float | None = None
    """The picked candidate's accuracy on examples that were left out minus its rival's."""
    gain_interval: float | None = None
    """The 95 % half width of ``gain``, over the same examples."""

    @property
    def is_sure(self) -> bool:
        """Whether the picked candidate is better than every other beyond doubt."""
        return self.gain is not None and self.gain_interval is not None and self.gain > self.gain_interval

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values, the candidates from the best to the worst."""
        examples = len(self.trials[0].label)
        ranked = sorted(self.trials, key=lambda trial: float(trial.loss.mean())) if examples else []
        return {
            "examples": examples,
            "accuracy": self.accuracy,
            "interval": None if self.interval is None else list(self.interval),
            "rival": None if self.rival is None else str(self.trials[self.rival].choice),
            "gain": self.gain,
            "gain_interval": self.gain_interval,
            "is_sure": self.is_sure,
            "candidates": [
                {"head": str(trial.choice), "accuracy": trial.accuracy, "loss": float(trial.loss.mean())}
                for trial in ranked
            ],
        }


def free_candidates(modalities: Sequence[str], *, ordered: bool) -> list[HeadChoice]:
    """The heads that need no base classes, over all modalities joined and over each alone; the first is the default.

    ordered: whether any clip has several steps, so that heads which read their order are tried.
    """
    found = []
    for method in (*POOLED, *(ORDERED if ordered else ())):
        fusions = ("lf", "ec") if method in POOLED else ("lf",)
        if len(modalities) > 1:
            found += [HeadChoice(method=method, fusion=how, modalities=tuple(modalities)) for how in fusions]
        found += [HeadChoice(method=method, modalities=(one,)) for one in modalities]
    return found


def try_candidate(fitted: FittedHead) -> Trial:
    """What a head does on the examples that can be left out."""
    logits, rows = fitted.left_out()
    return Trial(choice=fitted.choice, logits=logits.double().numpy(), label=fitted.label[rows].numpy())


def select(trials: Sequence[Trial]) -> Selection:
    """The pick among candidates; the first of them is the default."""
    if not len(trials[0].label):
        return Selection(trials=trials[:1], picked=0)
    loss = np.stack([trial.loss for trial in trials])
    right = np.stack([trial.right for trial in trials])
    picked = _pick(loss)
    accuracy = _corrected(loss, right) if len(trials) > 1 else float(right[0].mean())
    others = [i for i in range(len(trials)) if i != picked]
    rival = min(others, key=lambda i: float(loss[i].mean())) if others else None
    gain, half = paired(right[picked], right[rival]) if rival is not None else (None, None)
    return Selection(
        trials=trials,
        picked=picked,
        accuracy=accuracy,
        interval=_interval(accuracy, float(right[picked].mean()), right.shape[1]),
        rival=rival,
        gain=gain,
        gain_interval=half,
    )


def _pick(loss: np.ndarray) -> int:
    """The candidate of the least loss [c, m], unless the first is within one standard error of it."""
    best = int(loss.mean(1).argmin())
    gain = loss[0] - loss[best]
    error = float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
    return best if gain.mean() > error else 0


def _corrected(loss: np.ndarray, right: np.ndarray) -> float:
    """The accuracy of picking, on examples that had no part in it: the mean over draws with replacement."""
    chance = np.random.Generator(np.random.Philox(0))
    count = loss.shape[1]
    found = []
    for _ in range(_DRAWS):
        drawn = chance.integers(0, count, count)
        others = np.setdiff1d(np.arange(count), drawn)
        if len(others):
            found.append(right[_pick(loss[:, drawn]), others].mean())
    return float(np.mean(found)) if found else float(right[_pick(loss)].mean())


def _interval(corrected: float, plain: float, count: int) -> tuple[float, float]:
    """The interval of the accuracy, from what it is with and without the correction for having picked.

    The correction measures picks that fewer examples made, and takes off what picking had truly earned, too.
    """
    return wilson(min(corrected, plain), count)[0], wilson(max(corrected, plain), count)[1]


def paired(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The share that ``one`` has right minus that of ``other``, over the same m examples, and its 95 % half width.

    Half an example is added to each of the four outcomes (both right, one, the other, none), so that a few examples on
    which both agree do not make it certain.

    >>> [round(x, 3) for x in paired(np.array([True, True, True, False]), np.array([False, True, True, False]))]
    [0.25, 0.442]
    """
    for_one, for_other = float((one & ~other).sum()), float((other & ~one).sum())
    count = len(one) + 2
    square = (for_one + for_other + 1) - (for_one - for_other) ** 2 / count
    return (for_one - for_other) / len(one), Z95 * math.sqrt(square) / count


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count`` trials.

    >>> [round(end, 3) for end in wilson(1.0, 10)]
    [0.722, 1.0]
    """
    square = Z95**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def modality_worth(
    choice: HeadChoice, fit: Callable[[HeadChoice], FittedHead], whole: Trial
) -> dict[str, tuple[float, float]]:
    """What each modality adds: the accuracy with all of them minus the accuracy without it, and its 95 % half width.

    whole: what the head does with all its modalities. Empty for a head of one modality, or where nothing can be left
    out.
    """
    if len(choice.modalities) < 2 or not len(whole.label):
        return {}
    found = {}
    for name in choice.modalities:
        rest = tuple(m for m in choice.modalities if m != name)
        try_ = HeadChoice(
            method=choice.method,
            fusion=choice.fusion,
            modalities=rest,
            normalise=choice.normalise,
            settings=choice.settings,
        )
        found[name] = paired(whole.right, try_candidate(fit(try_)).right)
    return found


def confused(trial: Trial, class_names: Sequence[str], most: int = 3) -> list[tuple[str, str, int, int]]:
    """The pairs (true class, decided class, how often, of how many), the most frequent first."""
    pairs, counts = np.unique(
        np.stack([trial.label, trial.logits.argmax(1)], 1)[~trial.right], axis=0, return_counts=True
    )
    size = np.bincount(trial.label, minlength=len(class_names))
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        (class_names[pairs[i, 0]], class_names[pairs[i, 1]], int(counts[i]), int(size[pairs[i, 0]]))
        for i in order
    ]
