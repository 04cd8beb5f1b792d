"""GDA: A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation (Wang et al., ICLR 2024).

Classes are Gaussians of one covariance, so that Bayes' rule is a linear classifier in closed form; its logits are added
to those of class words. Inductive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ..decided import Decided
from ..head import Inputs
from ..parts.absence import neutral
from ..settings import NonNegative
from .word_head import BlendingHead, WordHead, WordSettings, WordTask
from .word_weights import unit_clips

ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
_TINY = 1e-12


@dataclass(frozen=True)
class GDASettings(WordSettings):
    """The settings of Gaussian discriminant analysis."""

    alpha: NonNegative | None = None
    """The weight of the Gaussian classifier beside the words; none: the best on base classes."""
    covariance: Literal["shrunk", "pooled"] = "shrunk"
    """The covariance of the supports about their class means, shrunk towards its mean variance (as published for few
    shots), or the mean of the classes' covariances with a pseudo-inverse (as published for many)."""


class Precision(NamedTuple):
    """A symmetric matrix P [D, D] a task as ``times`` (1 - rows^T core rows), never made: D may be thousands.

    rows: [B, R, D]; core: [B, R, R]; times: [B, 1, 1]; identity: whether the leading 1 is there.
    """

    rows: Tensor
    core: Tensor
    times: Tensor
    identity: bool = True

    def apply(self, x: Tensor) -> Tensor:
        """x P, [B, M, D], of x [B, M, D]."""
        inner = (x @ self.rows.transpose(1, 2)) @ self.core @ self.rows
        return self.times * (x - inner if self.identity else inner)


def shrunk_precision(away: Tensor, trace: Tensor) -> Precision:
    """D (A^T A + tr I)^-1 of deviations A [B, R, D] and ``trace`` tr [B, 1, 1], as Kubokawa and Srivastava estimate it.

    By Woodbury's identity the inverse is (I - A^T (A A^T + tr I)^-1 A) / tr.
    """
    identity = torch.eye(away.shape[1], dtype=away.dtype, device=away.device)
    core = torch.linalg.inv(away @ away.transpose(1, 2) + trace * identity)
    return Precision(away, core, away.shape[-1] / trace)


def pooled_precision(away: Tensor) -> Precision:
    """The pseudo-inverse of A^T A, of deviations A [B, R, D]: A^T (A A^T)^+ (A A^T)^+ A."""
    inverse = torch.linalg.pinv(away @ away.transpose(1, 2), hermitian=True)
    return Precision(away, inverse @ inverse, torch.ones_like(inverse[:, :1, :1]), identity=False)


def offsets(weight: Tensor, mean: Tensor, classes: Tensor) -> Tensor:
    """The offsets -log C - mu_c P mu_c / 2, [B, 1, N], of class means mu [B, N, D] and their weights P mu [B, N, D].

    classes: C, the number of classes [B, 1, 1].
    """
    return -classes.log() - 0.5 * (weight * mean).sum(-1)[:, None]


class GDA(BlendingHead[GDASettings, Tensor]):
    """Where the supports do not scatter (one a class), the scatter of base clips about their class means stands in."""

    Settings = GDASettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **WordHead.decided,
        "alpha": Decided("base", "labelled validation clips, which for ImageNet are the test set"),
        "scatter of single shots": Decided("base"),
    }
    names = ("alpha",)
    start = (1.0,)
    scatter: Tensor

    def __init__(self, inputs: Inputs, settings: GDASettings) -> None:
        super().__init__(inputs, settings)
        self.register_buffer(
            "scatter", torch.tensor(0.5, dtype=torch.float64)
        )  # of unit features; base clips tell it

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Also takes the mean squared distance of base clips to their class means."""
        x, label = unit_clips(base)
        if len(x) and not base.multi:
            member = F.one_hot(label, len(base.class_names)).to(x)
            mean = member.T @ x / member.sum(0).clamp(min=1)[:, None]
            self.scatter.copy_((x - mean[label]).square().sum(1).mean().clamp(min=_TINY))
        super().fit_base(base)

    def grid(self) -> list[tuple[float, ...]]:
        return [(alpha,) for alpha in ALPHAS]

    def evidence(self, task: WordTask) -> Tensor:
        """The logits [B, Q, N] of the Gaussians; a class without supports has the mean of the others."""
        precision, mean = self.gaussians(task)
        classes = task.class_present.sum(1).clamp(min=1)[:, None, None].to(mean.dtype)
        weight = precision.apply(mean)
        logits = task.query @ weight.transpose(1, 2) + offsets(weight, mean, classes)
        return neutral(logits, task.query_present, task.class_present)

    def gaussians(self, task: WordTask) -> tuple[Precision, Tensor]:
        """The precision and the class means [B, N, D]."""
        held = task.support_present[..., None].to(task.support.dtype)
        count = held.sum(2)
        mean = (task.support * held).sum(2) / count.clamp(min=1)
        away = (task.support - mean[:, :, None]) * held
        if self.settings.covariance == "pooled":
            classes = (count > 0).sum(1)[:, None].clamp(min=1)
            share = ((count - 1).clamp(min=1) * classes)[:, :, None]
            return pooled_precision((away / share.sqrt()).flatten(1, 2)), mean
        away = away.flatten(1, 2)
        samples = held.sum((1, 2, 3))[:, None, None]
        trace = away.square().sum((1, 2))[:, None, None] / (samples - 1).clamp(min=1)
        return shrunk_precision(away, torch.where(trace > _TINY, trace, self.scatter.to(trace))), mean

    def blended(self, task: WordTask, evidence: Tensor, blend: tuple[float, ...]) -> Tensor:
        return task.text_logits + blend[0] * evidence
