"""Random episodes for the tests of the metric heads, and a few transformations of episodes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.head import Inputs

ONE = "frame"


def inputs(dim: int = 12, steps: int = 1, words: int | None = None) -> Inputs:
    """The inputs of a head for ``random_episodes`` of the same sizes."""
    return Inputs(streams={ONE: (steps, dim)}, word_dim=words)


def random_episodes(
    batch: int = 3,
    ways: int = 4,
    shots: int = 2,
    per_class: int = 3,
    dim: int = 12,
    steps: int = 1,
    spread: float = 1.0,
    seed: int = 0,
    words: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Episodes:
    """Gaussian classes with queries in random order; sequences have unequal lengths if steps > 1."""
    chance = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64)

    centre = noise(batch, ways, dim)
    label = torch.stack([torch.randperm(ways * per_class, generator=chance) % ways for _ in range(batch)])
    support = centre[:, :, None, None] + spread * noise(batch, ways, shots, steps, dim)
    picked = torch.gather(centre, 1, label[..., None].expand(-1, -1, dim))
    query = picked[:, :, None] + spread * noise(batch, ways * per_class, steps, dim)
    vectors = None if words is None else noise(batch, ways, words).to(dtype)
    return Episodes(
        support={ONE: stream(support.to(dtype), chance)},
        query={ONE: stream(query.to(dtype), chance)},
        query_label=label,
        class_id=torch.arange(ways).expand(batch, ways),
        words=vectors,
    )


def stream(x: Tensor, chance: torch.Generator) -> Stream:
    """A Stream of x [..., T, D] with random lengths, and zeros beyond them."""
    lead, steps = x.shape[:-2], x.shape[-2]
    length = torch.randint(1, steps + 1, lead, generator=chance)
    valid = torch.arange(steps) < length[..., None]
    return Stream(x * valid[..., None], torch.ones(lead, dtype=torch.bool), length)


def without_queries(episodes: Episodes, gone: Tensor) -> Episodes:
    """The same tasks with some queries absent: gone bool [B, Q]."""
    (query,) = episodes.query.values()
    keep = ~gone
    left = Stream(query.x * keep[..., None, None], query.present & keep, query.length * keep)
    return replace(episodes, query={ONE: left}, query_label=episodes.query_label.masked_fill(gone, -1))


def some_queries(episodes: Episodes, first: int) -> Episodes:
    """The same tasks with their first queries only."""
    (query,) = episodes.query.values()
    return replace(episodes, query={ONE: query[:, :first]}, query_label=episodes.query_label[:, :first])


def features(episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Pooled supports [B, N, K, D] and queries [B, Q, D]."""
    return episodes.support[ONE].pooled(), episodes.query[ONE].pooled()
