"""Class mixing replaces some classes by blends of two, so that a head does not memorise a small number of classes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .batch import Episodes, Stream


def mix_classes(episodes: Episodes, share: float) -> Episodes:
    """The same tasks with a share of the classes replaced by blends of two.

    Features and words become lambda a + (1 - lambda) b with lambda uniform in (.3, .7) and drawn by torch's
    generator. Every class must have the same number of queries.
    """
    batch, ways = episodes.batch, episodes.ways
    order = torch.argsort(episodes.query_label, dim=1, stable=True)
    device = episodes.device
    partner = (torch.arange(ways, device=device) + 1) % ways
    chosen = torch.rand(batch, ways, device=device) < share
    weight = torch.where(
        chosen, 0.3 + 0.4 * torch.rand(batch, ways, device=device), torch.ones((), device=device)
    )

    def blend(x: Tensor) -> Tensor:
        w = weight.view(batch, ways, *[1] * (x.ndim - 2)).to(x.dtype)
        return w * x + (1 - w) * x[:, partner]

    def blend_stream(s: Stream) -> Stream:
        both = s.present & s.present[:, partner]
        mixed = torch.where(both[..., None, None], blend(s.x), s.x)
        return Stream(
            mixed, s.present, torch.where(both, torch.maximum(s.length, s.length[:, partner]), s.length)
        )

    def blend_query(s: Stream) -> Stream:
        def by_class(t: Tensor) -> Tensor:
            index = order.view(*order.shape, *[1] * (t.ndim - 2)).expand_as(t)
            return torch.gather(t, 1, index).unflatten(1, (ways, -1))

        def back(t: Tensor) -> Tensor:
            flat = t.flatten(1, 2)
            index = order.view(*order.shape, *[1] * (flat.ndim - 2)).expand_as(flat)
            return torch.zeros_like(flat).scatter(1, index, flat)

        mixed = blend_stream(Stream(by_class(s.x), by_class(s.present), by_class(s.length)))
        return Stream(back(mixed.x), back(mixed.present), back(mixed.length))

    return replace(
        episodes,
        support={m: blend_stream(s) for m, s in episodes.support.items()},
        query={m: blend_query(s) for m, s in episodes.query.items()},
        words=None if episodes.words is None else blend(episodes.words),
    )
