"""Training-free rules that learned relations begin at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from .distances import cosine


class CosineStart(nn.Module):
    """scale * cos(query, class mean) + offset, the training-free rule that a learned relation begins at and adds to.

    Scale and offset are learned; they start where a sigmoid of the sum separates like from unlike.
    """

    def __init__(self, scale: float = 10.0, offset: float = -5.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, query: Tensor, prototype: Tensor) -> Tensor:
        """query [B, Q, D], prototype [B, N, D] -> [B, Q, N]."""
        return self.of_cosines(cosine(query, prototype))

    def of_cosines(self, value: Tensor) -> Tensor:
        """The same from cosines."""
        return self.scale * value + self.offset


class AlignedStart(nn.Module):
    """scale * similarity + offset of two sequences, the training-free rule that sequence relations begin at.

    Every step is aligned to the other sequence by attention (softmax of ``sharpness`` times cosines) and compared with
    what it is aligned to; the similarity is the mean over both sequences' steps. Scale and offset are learned.
    """

    def __init__(self, scale: float = 10.0, offset: float = -5.0, sharpness: float = 10.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.offset = nn.Parameter(torch.tensor(offset))
        self.sharpness = sharpness

    def forward(self, query: Stream, support: Stream) -> Tensor:
        """query [B, Q, T, D], support [B, N, K, T, D] -> [B, Q, N, K]."""
        return self.scale * self.similarity(query, support) + self.offset

    @torch.no_grad()
    def similarity(self, query: Stream, support: Stream) -> Tensor:
        """[B, Q, N, K], in -1..1; features carry no gradient, so none is traced."""
        q = F.normalize(query.x.to(self.scale.dtype), dim=-1)
        s = F.normalize(support.x.to(self.scale.dtype), dim=-1)
        batch, ways, shots, steps = support.x.shape[:4]
        pair = q.flatten(1, 2) @ s.flatten(1, 3).transpose(1, 2)
        pair = pair.view(batch, *q.shape[1:3], ways * shots, steps).transpose(2, 3)  # [B, Q, N*K, Tq, Ts]
        q_there, s_there = query.mask()[:, :, None], support.mask().flatten(1, 2)[:, None]
        there = q_there[..., :, None] & s_there[..., None, :]
        heat = (self.sharpness * pair).masked_fill(~there, -1e4)
        of_query = (torch.softmax(heat, -1) * pair).sum(-1) * q_there
        of_support = (torch.softmax(heat, -2) * pair).sum(-2) * s_there
        mean = of_query.sum(-1) / query.length.clamp(min=1)[:, :, None]
        back = of_support.sum(-1) / support.length.clamp(min=1).flatten(1, 2)[:, None]
        return ((mean + back) / 2).unflatten(-1, (ways, shots))
