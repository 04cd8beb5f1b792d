"""How ECKPN picks the training-free rule that it starts from, on base classes.

Which rule serves depends on the features: where a query's neighbours are mostly of its class, queries make class nodes
better, elsewhere they draw them away. Base classes tell the two apart, since the features were made without any class
of the data set. All candidates are tried on the same episodes of base classes, and a class's words are mapped by a
regression that has not seen the class, as novel classes will not have been seen either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...episodes.protocol import Protocol
from ...episodes.sampler import EpisodeIndex, Sampler
from ..parts.base_episodes import base_protocol
from .eckpn_rule import Graph, Task, graph_of, logits_of, task_of
from .eckpn_settings import MASS, Rule

EPISODES = 200
TRUST = 1.0
"""The standard errors, over classes, that are taken off a gain before it counts."""
_AT_ONCE = 20


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The rule that was picked, and what it rests on."""

    rule: Rule
    """The rule."""
    gain: float = 0.0
    """Its gain in accuracy over the plainest rule on base classes, in 0..1, as the mean over classes."""
    error: float = 0.0
    """The standard error of the gain over classes."""
    classes: int = 0
    """The number of base classes on which the rules were tried; 0 where they could not be."""

    def to_dict(self) -> dict[str, Any]:
        """The rule and what it rests on, as plain JSON values."""
        return {
            **self.rule.to_dict(),
            "gain": self.gain,
            "gain_error": self.error,
            "base_classes": self.classes,
        }

    def notes(self) -> list[str]:
        """What a reader of figures should know: that there was no choice, or that the rule is class means."""
        found = []
        if not self.classes:
            found.append(
                "ECKPN cannot choose its rule (too few base classes or clips, or several labels a clip) and takes the "
                "plainest."
            )
        if self.rule.is_class_means:
            found.append(
                "On the base classes no use of the queries surely beats class means, so that ECKPN starts as the "
                "nearest class mean; only training adds to it."
            )
        return found

    def to_tensor(self) -> Tensor:
        """The values as float64 numbers."""
        rule = self.rule
        mass = list(MASS).index(rule.query_mass)
        values = [rule.blend, rule.sharpness, mass, rule.word_weight, self.gain, self.error, self.classes]
        return torch.tensor(values, dtype=torch.float64)

    @classmethod
    def from_tensor(cls, state: Tensor) -> Choice:
        """The choice whose ``to_tensor`` gives ``state``."""
        blend, sharpness, mass, weight, gain, error, classes = state.tolist()
        query_mass = list(MASS)[round(mass)]
        rule = Rule(blend=blend, sharpness=sharpness, query_mass=query_mass, word_weight=weight)
        return cls(rule=rule, gain=gain, error=error, classes=round(classes))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How candidates are tried."""

    way: int
    """The classes of an evaluated episode."""
    shot: int | None
    """The supports of a class; None where they vary."""
    layers: int
    """The layers of the instance graph."""
    masks: bool
    """Whether edges are multiplied by the previous layer's adjacency."""
    place: Callable[[Tensor], Tensor]
    """From features [..., D] to nodes."""
    word_images: Tensor | None
    """What its words say of each class without having seen it, [C, D]; None without words."""


def choose(base: FeatureBank, rules: Sequence[Rule], trial: Trial) -> Choice:
    """The rule that is the surest gain over the first one on episodes of base classes; the first where none is.

    base: the base clips, all present and with one step each.
    """
    task = base_protocol(base, trial.way, trial.shot)
    if task is None:
        return Choice(rule=rules[0])
    right = class_accuracy(base, rules, trial, task)
    gains = right - right[:1]
    gain, error = gains.mean(1), gains.std(1, ddof=1) / math.sqrt(gains.shape[1])
    best = int(np.argmax(gain - TRUST * error))
    return Choice(rule=rules[best], gain=float(gain[best]), error=float(error[best]), classes=gains.shape[1])


@torch.no_grad()
def class_accuracy(
    base: FeatureBank, rules: Sequence[Rule], trial: Trial, task: Protocol, episodes: int = EPISODES
) -> np.ndarray:
    """The accuracy of each rule on the queries of each class that is drawn, float64 [rules, classes]."""
    (table,) = base.tables.values()
    right = np.zeros((len(rules), len(base.class_names)))
    times = np.zeros(len(base.class_names))
    for index in Sampler(base, task).batches(0, episodes, _AT_ONCE):
        rows = torch.cat([index.support.flatten(1), index.query], 1).to(base.device)
        x = trial.place(table.gather(rows).pooled().float())
        images = None
        if trial.word_images is not None:
            images = trial.place(trial.word_images[index.classes.to(base.device)])
        ways, shots = index.support.shape[1:]
        drawn = task_of(x, images, ways=ways, shots=shots)
        _add(index, times, np.ones(index.query.shape))
        for number, logits in enumerate(_logits(drawn, rules, trial)):
            _add(index, right[number], (logits.argmax(-1).cpu() == index.query_label).numpy())
    return right[:, times > 0] / times[times > 0]


def _logits(task: Task, rules: Sequence[Rule], trial: Trial) -> Iterator[Tensor]:
    """The logits [B, Q, N] of each rule; rules that differ in their class nodes alone share a graph."""
    graphs: dict[tuple[float, float], Graph] = {}
    for rule in rules:
        key = (rule.blend, rule.sharpness)
        if key not in graphs:
            graphs[key] = graph_of(task, rule, layers=trial.layers, masks=trial.masks)
        yield logits_of(graphs[key], task, rule)


def _add(index: EpisodeIndex, total: np.ndarray, value: np.ndarray) -> None:
    """Add the values [B, Q] of queries to the totals [C] of their true classes."""
    true = np.take_along_axis(index.classes.numpy(), index.query_label.numpy(), 1)
    total += np.bincount(true.ravel(), value.ravel(), minlength=len(total))
