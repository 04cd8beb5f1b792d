"""CLAP: A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models (Silva-Rodriguez et al., CVPR 2024).

Three ways to move the prototypes that class words give towards the supports, by gradient descent with settings that are
the same for every data set: ZS-LP trains them freely, TaskRes (Yu et al., CVPR 2023) trains a residual, and CLAP holds
each class to its words as firmly as these already explain its supports. No validation clips are read. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..decided import Decided
from ..head import Inputs
from ..parts.descent import Descent, cosine_gradient, cosine_logits, span_coordinates
from ..settings import Count, Positive, Share
from .word_head import Samples, WordHead, WordSettings, WordTask

FIRST_RATE = 1e-5  # the learning rate of the first pass, as released
_TINY = 1e-12


@dataclass(frozen=True)
class PrototypeSettings(WordSettings):
    """The settings of prototypes that are trained from class words."""

    steps: Count = 300
    """Passes over all supports, as published; the last one is kept."""
    rate: Positive = 0.1
    """The learning rate behind the first pass, falling to zero along half a cosine, as published."""
    momentum: Share = 0.9
    """The momentum, as published."""
    length: Positive | None = 10.0
    """The length that words are given before training, about that of CLIP's; a longer prototype turns more slowly;
    none: as they are."""


@dataclass(frozen=True)
class TaskResSettings(PrototypeSettings):
    """The settings of TaskRes."""

    residual: Positive = 0.5
    """The factor of the residual, as published."""


@dataclass(frozen=True)
class CLAPSettings(PrototypeSettings):
    """The settings of CLAP."""

    constraint: Literal["l2", "balanced", "corrected", "constant", "cosine", "adaptative"] = "l2"
    """What holds a class to its words: a multiplier times the squared distance ("l2", the released commands), times one
    minus the cosine ("cosine"), with multipliers of one ("balanced"), of mean one ("corrected"), or their mean for all
    ("constant"), or multipliers that grow with the distance after every pass, as far as the steps allow
    ("adaptative")."""


class State(NamedTuple):
    """Prototypes w [B, N, R], multipliers [B, N], and how fast these grow, [B, N]."""

    w: Tensor
    multiplier: Tensor
    growth: Tensor


class Prototypes:
    """The descent of prototypes from class words on samples, in whatever coordinates both have.

    samples: of length one; text: the words [B, N, R]; constraint: None for ZS-LP and TaskRes.
    """

    def __init__(self, samples: Samples, text: Tensor, *, scale: float, constraint: str | None) -> None:
        self.samples, self.text, self.scale, self.constraint = samples, text, scale, constraint

    def start(self) -> State:
        """The words, with the multipliers that they earn on the samples."""
        zero = torch.zeros_like(self.text[..., 0])
        return State(self.text, zero if self.constraint is None else self.multipliers(), zero)

    def multipliers(self) -> Tensor:
        """The multipliers [B, N]: a class's mean posterior of its own samples by words alone, or what follows from it.

        A class without samples has 1: its words are all that is known of it.
        """
        present = (self.samples.share > 0)[..., None].to(self.text.dtype)
        own = self.samples.hot * present
        posterior = torch.softmax(cosine_logits(self.samples.x, self.text, self.scale), -1)
        count = own.sum(1)
        found = torch.where(count > 0, (posterior * own).sum(1) / count.clamp(min=1), 1.0)
        if self.constraint == "balanced":
            return torch.ones_like(found)
        if self.constraint == "corrected":
            return found * found.shape[1] / found.sum(1, keepdim=True)
        return found.mean(1, keepdim=True).expand_as(found) if self.constraint == "constant" else found

    def logits(self, state: State) -> Tensor:
        """The logits [B, M, N] of the samples."""
        return cosine_logits(self.samples.x, state.w, self.scale)

    def distances(self, w: Tensor) -> Tensor:
        """What the multipliers weigh, [B, N]: squared distances to the words, or one minus cosines with them."""
        if self.constraint == "cosine":
            return 1 - F.cosine_similarity(w, self.text, dim=-1)
        return (w - self.text).square().sum(-1)

    def penalty(self, state: State) -> Tensor:
        """The mean over classes of multiplier times distance, [B]."""
        return (state.multiplier * self.distances(state.w)).mean(1)

    def gradient(self, state: State) -> Tensor:
        """The gradient [B, N, R] of the prototypes."""
        residual = self.samples.residual(self.logits(state))
        slope = cosine_gradient(self.samples.x, state.w, self.scale, residual)
        if self.constraint is None:
            return slope
        weight = state.multiplier[..., None] / self.text.shape[1]
        if self.constraint == "cosine":
            length = state.w.norm(dim=-1, keepdim=True).clamp(min=_TINY)
            unit, words = state.w / length, F.normalize(self.text, dim=-1)
            return slope - weight * (words - unit * (unit * words).sum(-1, keepdim=True)) / length
        return slope + 2 * weight * (state.w - self.text)

    def descend(self, settings: PrototypeSettings, factor: float = 1.0) -> Iterator[State]:
        """The state after each pass. factor: of the learning rates."""
        state, optimiser = self.start(), Descent("sgd", settings.rate, momentum=settings.momentum)
        # A class held more firmly than this would be thrown beyond its words by one step, further each time.
        most = self.text.shape[1] / (2 * settings.rate * factor)
        for step in range(settings.steps):
            optimiser.rate = factor * learning_rate(settings, step)
            w = optimiser.step(state.w, self.gradient(state))
            state = state._replace(w=w)
            if self.constraint == "adaptative":
                distance = self.distances(w)
                multiplier = (state.multiplier + state.growth * distance).clamp(min=0, max=most)
                state = State(w, multiplier, distance)
            yield state


def learning_rate(settings: PrototypeSettings, step: int) -> float:
    """The learning rate of a pass: tiny in the first, then half a cosine over all passes."""
    if step == 0:
        return FIRST_RATE
    return settings.rate * (1 + math.cos(math.pi * (step - 1) / settings.steps)) / 2


P = TypeVar("P", bound=PrototypeSettings)


class PrototypeHead(WordHead[P]):
    """A head that trains prototypes from class words."""

    constraint: str | None = None
    factor = 1.0

    @torch.no_grad()
    def decide(self, task: WordTask) -> Tensor:
        """Logits [B, Q, N] of the prototypes after the last pass."""
        samples, text = task.samples(), self.resized(task.text)
        supports = samples.x.shape[1]
        every, query = span_coordinates(torch.cat([samples.x, text], 1), task.query)
        problem = Prototypes(
            samples._replace(x=every[:, :supports]),
            every[:, supports:],
            scale=task.scale,
            constraint=self.constraint,
        )
        state = problem.start()
        for after in problem.descend(self.settings, self.factor):
            state = after
        return cosine_logits(query, state.w, task.scale)

    def resized(self, text: Tensor) -> Tensor:
        """Weights of words [B, N, D] of the length that is set."""
        if self.settings.length is None:
            return text
        return self.settings.length * F.normalize(text, dim=-1)


class ZSLP(PrototypeHead[PrototypeSettings]):
    Settings = PrototypeSettings
    decided: ClassVar[Mapping[str, Decided]] = {**WordHead.decided, "steps and rate": Decided("none")}


class TaskRes(PrototypeHead[TaskResSettings]):
    """Prototypes t + residual r: a step of r moves them by residual squared times the step that ZS-LP would take."""

    Settings = TaskResSettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **WordHead.decided,
        "steps, rate and residual": Decided("none"),
    }

    def __init__(self, inputs: Inputs, settings: TaskResSettings) -> None:
        super().__init__(inputs, settings)
        self.factor = settings.residual**2


class CLAP(PrototypeHead[CLAPSettings]):
    Settings = CLAPSettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **WordHead.decided,
        "steps and rate": Decided("none"),
        "multipliers of the constraint": Decided("supports"),
    }

    def __init__(self, inputs: Inputs, settings: CLAPSettings) -> None:
        super().__init__(inputs, settings)
        self.constraint = settings.constraint
