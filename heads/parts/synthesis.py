"""Made-up supports: mixtures of real ones, noise like that of base classes, deviations of a like class, a generator.

The chance is drawn once, when the base clips are seen, and is the same for all classes and episodes, so that a class's
supports do not depend on its place or on the other tasks of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Stream
from .imputation import ridge_fit
from .names import module_name

Synthetic = Literal["none", "mixup", "noise", "neighbours", "generator"]
DIRECTIONS = 16
SEED = 20_261


class Synthesis(nn.Module):
    """Makes ``count`` supports a class of the real ones, modality by modality, in the space of the features.

    noise: a real support plus Gaussian noise with the covariance of base clips about their class means. neighbours: a
    real support plus what clips of the base class whose mean is nearest to it (by the cosine) deviate from that mean
    (as in Hariharan and Girshick, ICCV 2017, without their learned part). mixup: the mean of two supports of the class.
    generator: a real support plus a Gaussian along the ``DIRECTIONS`` in which base clips deviate most from their class
    means, whose log variances a ridge regression says from the support.
    """

    def __init__(self, how: Synthetic, count: int, widths: Mapping[str, int], classes: int) -> None:
        super().__init__()
        self.how, self.count = how, count
        for modality, dim in widths.items():
            name = module_name(modality)
            self.register_buffer(f"noise_{name}", torch.zeros(count, dim))
            self.register_buffer(f"mean_{name}", torch.zeros(classes, dim))
            self.register_buffer(f"deviation_{name}", torch.zeros(classes, count, dim))
            self.register_buffer(f"direction_{name}", torch.zeros(DIRECTIONS, dim))
            self.register_buffer(f"slope_{name}", torch.zeros(dim, DIRECTIONS))
            self.register_buffer(f"log_variance_{name}", torch.zeros(DIRECTIONS))
            self.register_buffer(f"centre_{name}", torch.zeros(dim))
            self.register_buffer(f"chance_{name}", torch.zeros(count, DIRECTIONS))

    @torch.no_grad()
    def fit(self, base: FeatureBank) -> None:
        """Keeps what is needed of base clips with one label each."""
        chance = torch.Generator().manual_seed(SEED)
        classes = len(base.class_names)
        for modality, table in base.tables.items():
            name, pooled = module_name(modality), table.pooled()
            x = pooled.x[:, 0].float()
            rows = [torch.nonzero((base.label == c) & pooled.present)[:, 0] for c in range(classes)]
            means = torch.stack([x[r].mean(0) if len(r) else x.new_zeros(x.shape[1]) for r in rows])
            away = torch.cat([x[r] - means[c] for c, r in enumerate(rows)])
            noise = torch.randn(self.count, len(away), generator=chance).to(away) @ away / len(away) ** 0.5
            self._set(f"noise_{name}", noise - noise.mean(0))
            self._set(f"mean_{name}", means)
            drawn = [_drawn(x[r] - means[c], self.count, chance) for c, r in enumerate(rows)]
            self._set(f"deviation_{name}", torch.stack(drawn))
            held = [c for c, r in enumerate(rows) if len(r)]
            self._fit_generator(name, [x[rows[c]] - means[c] for c in held], means[held], chance)

    def _fit_generator(self, name: str, away: list[Tensor], means: Tensor, chance: torch.Generator) -> None:
        """The directions of the classes' deviations [n, D] and the regression of their log variances on the means."""
        _, _, directions = torch.linalg.svd(torch.cat(away), full_matrices=False)
        found = torch.zeros(DIRECTIONS, means.shape[1]).to(means)
        found[: min(DIRECTIONS, len(directions))] = directions[:DIRECTIONS]
        spread = torch.stack([(of_class @ found.T).square().mean(0) for of_class in away])
        fit = ridge_fit(means, spread.clamp(min=1e-8).log(), torch.arange(len(means), device=means.device))
        for part, value in (
            ("direction", found),
            ("slope", fit.slope),
            ("log_variance", fit.target_mean),
            ("centre", fit.centre),
            ("chance", torch.randn(self.count, DIRECTIONS, generator=chance)),
        ):
            self._set(f"{part}_{name}", value)

    def forward(self, support: Mapping[str, Stream]) -> dict[str, Stream]:
        """The supports [B, N, K, T, D] with the made-up ones behind them, [B, N, K + count, T, D]."""
        return {m: self._more(m, stream) for m, stream in support.items()}

    def _more(self, modality: str, real: Stream) -> Stream:
        source = torch.arange(self.count, device=real.x.device) % real.x.shape[2]
        present, length = real.present[:, :, source], real.length[:, :, source]
        x, name = real.x[:, :, source], module_name(modality)
        if self.how == "mixup":
            other = (source + 1 + torch.arange(self.count, device=source.device) // len(real.x[0, 0])) % len(
                real.x[0, 0]
            )
            both = (present & real.present[:, :, other])[..., None, None]
            x = torch.where(both, (x + real.x[:, :, other]) / 2, x)
        else:
            x = (x + self._away(name, real, source)[..., None, :].to(x)) * (
                torch.arange(x.shape[-2], device=x.device) < length[..., None]
            )[..., None].to(x.dtype)
        return Stream(
            torch.cat([real.x, x], 2),
            torch.cat([real.present, present], 2),
            torch.cat([real.length, length], 2),
        )

    def _away(self, name: str, real: Stream, source: Tensor) -> Tensor:
        """What each made-up support lies away from its source, [B, N, count, D] or, for noise, [count, D]."""
        if self.how == "noise":
            return self.get_buffer(f"noise_{name}")
        if self.how == "generator":
            return self._generated(name, real.pooled()[:, :, source])
        means, deviation = self.get_buffer(f"mean_{name}"), self.get_buffer(f"deviation_{name}")
        x = real.pooled()[:, :, source].to(means)
        like = (F.normalize(x, dim=-1) @ F.normalize(means, dim=-1).T).argmax(-1)
        return deviation[like, torch.arange(self.count, device=like.device)]

    def _generated(self, name: str, x: Tensor) -> Tensor:
        """What the generator adds to supports x [B, N, count, D]."""
        direction, slope, log_variance, centre, chance = (
            self.get_buffer(f"{part}_{name}")
            for part in ("direction", "slope", "log_variance", "centre", "chance")
        )
        said = log_variance + (x.to(slope) - centre) @ slope
        return (said / 2).exp() * chance @ direction

    def _set(self, name: str, value: Tensor) -> None:
        kept = self.get_buffer(name)
        setattr(self, name, value.to(kept))


def _drawn(away: Tensor, count: int, chance: torch.Generator) -> Tensor:
    """``count`` of the deviations [n, D], in random order and again from the start where there are fewer."""
    if not len(away):
        return away.new_zeros(count, away.shape[1])
    order = torch.randperm(len(away), generator=chance).to(away.device)
    return away[order[torch.arange(count, device=away.device) % len(away)]]
