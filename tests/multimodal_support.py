"""Random tasks of two modalities for the tests of the multimodal and token heads."""

from __future__ import annotations

import torch
from metric_support import stream
from torch import Tensor
from torch.nn import functional as F

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.head import Inputs

SHAPES = {"frame": (5, 16), "audio": (4, 8)}


def two(words: int | None = None) -> Inputs:
    return Inputs(streams=SHAPES, word_dim=words)


def two_modal(
    batch: int = 3, ways: int = 4, shots: int = 2, per_class: int = 3, spread: float = 1.0, seed: int = 0
) -> Episodes:
    """Gaussian classes in both modalities, unit features a step, unequal lengths, queries in random order; float64."""
    chance = torch.Generator().manual_seed(seed)
    order = [torch.randperm(ways * per_class, generator=chance) % ways for _ in range(batch)]
    label = torch.stack(order)
    support, query = {}, {}
    for m, (steps, dim) in SHAPES.items():
        centre = torch.randn(batch, ways, dim, generator=chance, dtype=torch.float64)
        picked = torch.gather(centre, 1, label[..., None].expand(-1, -1, dim))
        support[m] = stream(
            _around(centre[:, :, None].expand(-1, -1, shots, -1), steps, spread, chance), chance
        )
        query[m] = stream(_around(picked, steps, spread, chance), chance)
    return Episodes(support, query, label, torch.arange(ways).expand(batch, ways))


def gone(s: Stream, mask: Tensor) -> Stream:
    """The stream without the clips of ``mask``."""
    keep = ~mask
    return Stream(s.x * keep[..., None, None], s.present & keep, s.length * keep)


def accuracy(logits: Tensor, task: Episodes) -> float:
    return float((logits.argmax(-1) == task.query_label).double().mean())


def _around(centre: Tensor, steps: int, spread: float, chance: torch.Generator) -> Tensor:
    shape = (*centre.shape[:-1], steps, centre.shape[-1])
    noise = torch.randn(shape, generator=chance, dtype=torch.float64)
    return F.normalize(centre[..., None, :] + spread * noise, dim=-1)
