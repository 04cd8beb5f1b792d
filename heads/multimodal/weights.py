"""One fixed weight for each modality, fitted on base episodes.

Every point of a grid on the simplex of weights classifies the same base episodes by class means, as its fusion joins
modalities. The weights are equal unless the most accurate point is better than equal ones by more than its 95 %
interval over base classes; then the point nearest to equal weights is taken among those within one standard error of
the most accurate one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Interface
from typing import runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.gather import materialise
from ...episodes.protocol import Protocol, bounds
from ...episodes.sampler import Sampler
from ..head import Inputs
from ..metric.protonet import ProtoNet, ProtoNetSettings

STEPS = 5
"""The grid's weights are multiples of one over this."""
MOST_POINTS = 5000
EPISODES, AT_ONCE, WAYS, FEWEST = 400, 50, 20, 20
"""Tasks of more than WAYS ways are fewer, in proportion to their logits; FEWEST at least."""
LEAST = 1e-3
"""The least weight, so that a query with one modality alone is still decided by it."""

Views = Callable[[Episodes], Tensor]
"""The logits [M, B, Q, N] of the modalities of episodes."""
Join = Callable[[Tensor, Tensor], Tensor]
"""The logits [B, Q, N] of all modalities from those of each, [M, B, Q, N], and the factors of the modalities, [M]."""


@dataclass(frozen=True, kw_only=True)
class ModalityWeights:
    """What the modalities weigh, and what base classes said of it."""

    share: Mapping[str, float]
    """The weight of each modality; they sum to one."""
    gain: float | None = None
    """The accuracy on base episodes of the best weights minus that of equal ones; None where nothing was fitted."""
    gain_interval: float | None = None
    """The 95 % half width of ``gain`` over base classes."""
    best: Mapping[str, float] | None = None
    """The weights that ``gain`` is about."""
    note: str = ""
    """Why nothing was fitted although it was asked for."""

    @classmethod
    def equal(cls, modalities: Sequence[str], note: str = "") -> ModalityWeights:
        return cls(share={m: 1 / len(modalities) for m in modalities}, note=note)

    @property
    def are_equal(self) -> bool:
        return len(set(self.share.values())) == 1

    def factors(self, modalities: Sequence[str]) -> list[float]:
        """The weights of some of the modalities, relative to equal weights."""
        if self.are_equal:
            return [1.0] * len(modalities)
        return [max(self.share[m], LEAST) * len(self.share) for m in modalities]

    def of(self, modalities: Sequence[str], like: Tensor) -> Tensor:
        """The factors of the modalities as a tensor [M] of the kind of ``like``."""
        return torch.tensor(self.factors(modalities), dtype=like.dtype, device=like.device)


@runtime_checkable
class HasWeights(Interface):
    """A head whose modalities have fixed weights."""

    weights: ModalityWeights

    @property
    def fits_weights(self) -> bool:
        """Whether its settings ask for weights that are fitted on base episodes."""
        ...

    def fit_weights(self, base: FeatureBank, task: Protocol) -> None:
        """Fit the weights on base episodes of ``task``, before ``fit_base``, whose statistics are of weighed features.

        Raises TooFew where the base classes cannot serve the task.
        """
        ...


def class_mean_views(inputs: Inputs) -> Views:
    """Minus the squared distances of queries to class means, modality by modality."""
    heads = {
        m: ProtoNet(replace(inputs, streams={m: shape}), ProtoNetSettings())
        for m, shape in inputs.streams.items()
    }
    return lambda episodes: torch.stack([head(episodes.only([m])).float() for m, head in heads.items()])


def fitted_weights(
    base: FeatureBank, task: Protocol, modalities: Sequence[str], *, views: Views, join: Join
) -> ModalityWeights:
    """The weights of the modalities that base episodes of ``task`` choose.

    The episodes have the most shots that the task allows. Raises TooFew where the base classes cannot serve them.
    """
    if sentence := unfit(len(modalities), multi=base.multi):
        return ModalityWeights.equal(modalities, sentence)
    grid = simplex(len(modalities))
    factors = len(modalities) * torch.tensor(grid, dtype=torch.float32, device=base.device)
    right, asked = correct_by_class(base, task, factors, views=views, join=join)
    used = asked > 0
    accuracy = right[:, used] / asked[used]
    chosen, best = choose(accuracy, grid)
    gain, interval = difference(accuracy[best] - accuracy[0])
    return ModalityWeights(
        share=dict(zip(modalities, grid[chosen])),
        gain=gain,
        gain_interval=interval,
        best=dict(zip(modalities, grid[best])),
    )


def unfit(modalities: int, *, multi: bool) -> str:
    """Why the weights of this many modalities cannot be fitted; "" where they can. multi: several labels a clip."""
    if multi:
        return "weights are not fitted on labels of which a clip has several"
    if math.comb(STEPS + modalities - 1, STEPS) > MOST_POINTS:
        return f"weights are not fitted for {modalities} modalities"
    return ""


def simplex(modalities: int) -> list[tuple[float, ...]]:
    """The points of the grid: equal weights first, then every division of ``STEPS`` equal parts.

    >>> simplex(2)
    [(0.5, 0.5), (0.0, 1.0), (0.2, 0.8), (0.4, 0.6), (0.6, 0.4), (0.8, 0.2), (1.0, 0.0)]
    """
    found = [(1 / modalities,) * modalities]
    for bars in itertools.combinations(range(STEPS + modalities - 1), modalities - 1):
        edges = (-1, *bars, STEPS + modalities - 1)
        found.append(tuple((b - a - 1) / STEPS for a, b in itertools.pairwise(edges)))
    return found


def choose(accuracy: np.ndarray, grid: Sequence[tuple[float, ...]]) -> tuple[int, int]:
    """The chosen and the most accurate point of the grid, by the accuracies [G, C] of its points on C classes.

    The chosen point is never less accurate on these classes than equal weights, the grid's first point.
    """
    best = int(accuracy.mean(1).argmax())
    gain, interval = difference(accuracy[best] - accuracy[0])
    if not gain > interval:
        return 0, best
    classes, far = accuracy.shape[1], np.linalg.norm(np.array(grid) - np.array(grid[0]), axis=1)
    lost = accuracy[best] - accuracy
    error = lost.std(1, ddof=1) / math.sqrt(classes)
    as_good = (lost.mean(1) <= error) & (accuracy.mean(1) >= accuracy[0].mean())
    return int(np.where(as_good, far, np.inf).argmin()), best


def difference(by_class: np.ndarray) -> tuple[float, float]:
    """The mean of the differences [C] and its 95 % half width over classes, infinite for fewer than two."""
    from scipy.stats import t

    classes = len(by_class)
    if classes < 2:
        return float(by_class.mean()), math.inf
    error = float(by_class.std(ddof=1)) / math.sqrt(classes)
    return float(by_class.mean()), float(t.ppf(0.975, classes - 1)) * error


@torch.no_grad()
def correct_by_class(
    bank: FeatureBank, task: Protocol, factors: Tensor, *, views: Views, join: Join
) -> tuple[np.ndarray, np.ndarray]:
    """How many queries of each class each row of ``factors`` [G, M] classifies rightly, [G, C], and how many there are.

    The second array is [C]. The episodes have the most ways and shots that the task allows. Raises TooFew where the
    classes cannot serve it.
    """
    fixed = replace(task, n_way=bounds(task.n_way)[1], k_shot=max(bounds(task.k_shot)[1], 1))
    right = np.zeros((len(factors), len(bank.class_names)))
    asked = np.zeros(len(bank.class_names))
    share = min(1.0, (WAYS / (bounds(task.n_way)[1] or len(bank.class_names))) ** 2)
    count, at_once = max(round(share * EPISODES), FEWEST), max(round(share * AT_ONCE), 1)
    for index in Sampler(bank, fixed).batches(0, count, at_once):
        episodes = materialise(bank, index, fixed)
        logits = views(episodes)
        label = episodes.query_label
        true = torch.gather(index.classes, 1, index.query_label.clamp(min=0)).numpy()
        real = index.query_label.numpy() >= 0
        asked += np.bincount(true[real], minlength=len(asked))
        for point, factor in enumerate(factors):
            hit = (join(logits, factor).argmax(-1) == label).cpu().numpy()
            right[point] += np.bincount(true[hit & real], minlength=len(asked))
    return right, asked
