"""LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP (Huang et al., CVPR 2024).

A linear probe whose logits are added to those of class words, each class with a blending weight of its own that is
learned along with the probe. Both step sizes follow from the supports, so that nothing is searched. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..decided import Decided
from ..parts.descent import Descent, span_coordinates
from ..settings import Count, Positive, Share
from .word_head import Samples, WordHead, WordSettings, WordTask

_TINY = 1e-12


@dataclass(frozen=True)
class LPPPSettings(WordSettings):
    """The settings of LP++."""

    steps: Count = 300
    """Passes over all supports, as published; the last one is kept, as no labelled validation clips are asked for."""
    momentum: Share = 0.9
    """The momentum of the probe's descent, as published."""
    blend_every: Count = 10
    """The passes between two steps of the blending weights, as published."""
    start: Positive = 2.5
    """The first blending weights, times the scale of cosines with words and the mean cosine of supports with the words
    of their class; the published 250 is 2.5 times CLIP's scale of 100."""
    accumulate: bool = False
    """Step along the sum of the blending weights' gradients of all passes so far, as the released code does by never
    setting them to zero; false: along that of the pass."""


class Probe(NamedTuple):
    """The state of the probe: weights and offsets w [B, N, R + 1], blending weights a [B, 1, N]."""

    w: Tensor
    a: Tensor


class Problem:
    """The fit of B probes to samples f [B, M, R] with cosines ``text`` [B, M, N] to class words.

    Logits are f W + b + a * text, the loss is the mean cross-entropy.
    """

    def __init__(self, f: Tensor, text: Tensor, samples: Samples) -> None:
        self.f, self.text, self.samples = F.pad(f, (0, 1), value=1.0), text, samples
        present = (samples.share > 0).to(f.dtype)
        self.f = self.f * present[..., None]
        self.text = text * present[..., None]
        self.member = samples.hot * present[..., None]
        count = present.sum(1)[:, None, None].clamp(min=1)
        top = torch.linalg.matrix_norm(f * present[..., None], ord=2).square()[:, None, None]
        self.rate = 4 * count / top.clamp(min=_TINY)
        most = self.text.square().sum(1, keepdim=True).amax(-1, keepdim=True)
        self.blend_rate = count / (4 * most.clamp(min=_TINY))

    def start(self, factor: float) -> Probe:
        """The sum of each class's samples, no offset, and the same blending weight for every class."""
        w = self.member.transpose(1, 2) @ self.f
        w = torch.cat([w[..., :-1], torch.zeros_like(w[..., -1:])], -1)
        count = self.member.sum(1, keepdim=True)
        own = (self.text * self.member).sum(1, keepdim=True) / count.clamp(min=1)
        present = (count > 0).sum(-1, keepdim=True).clamp(min=1)
        return Probe(w, (factor * own.sum(-1, keepdim=True) / present).expand_as(own))

    def logits(self, probe: Probe) -> Tensor:
        """The logits [B, M, N] of the samples."""
        return self.f @ probe.w.transpose(1, 2) + probe.a * self.text

    def descend(self, probe: Probe, settings: LPPPSettings) -> Iterator[Probe]:
        """The probe after each pass."""
        optimiser = Descent("sgd", self.rate, momentum=settings.momentum)
        total = torch.zeros_like(probe.a)
        for step in range(settings.steps):
            residual = self.samples.residual(self.logits(probe))
            slope = (residual * self.text).sum(1, keepdim=True)
            total = total + slope if settings.accumulate else slope
            w = optimiser.step(probe.w, residual.transpose(1, 2) @ self.f)
            a = probe.a - self.blend_rate * total if (step + 1) % settings.blend_every == 0 else probe.a
            probe = Probe(w, a)
            yield probe


class LPPP(WordHead[LPPPSettings]):
    Settings = LPPPSettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **WordHead.decided,
        "blending weights": Decided("supports"),
        "pass that is kept": Decided("none", "the best one on as many labelled validation clips again"),
    }

    @torch.no_grad()
    def decide(self, task: WordTask) -> Tensor:
        """Logits [B, Q, N] of the probe after its last pass; without supports, of the words."""
        text = F.normalize(task.text, dim=-1).transpose(1, 2)
        samples = task.samples()
        f, q = span_coordinates(samples.x, task.query)
        problem = Problem(f, samples.x @ text, samples)
        probe = problem.start(self.settings.start * task.scale)
        for after in problem.descend(probe, self.settings):
            probe = after
        own = F.pad(q, (0, 1), value=1.0) @ probe.w.transpose(1, 2) + probe.a * (task.query @ text)
        return torch.where(task.class_present.any(1)[:, None, None], own, task.text_logits)
