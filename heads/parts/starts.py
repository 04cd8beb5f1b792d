"""Training-free rules at which learned relations begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from .distances import cosine


class CosineStart(nn.Module):
    """scale * cos(query, class mean) + offset: the training-free rule at which a learned relation begins.

    Scale and offset are learned; they start where a sigmoid of the sum separates like from unlike.
    """

    def __init__(self, scale: float = 10.0, offset: float = -5.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, query: Tensor, prototype: Tensor) -> Tensor:
        """Logits [B, Q, N] of queries [B, Q, D] and prototypes [B, N, D]."""
        return self.logits_of(cosine(query, prototype))

    def logits_of(self, cosines: Tensor) -> Tensor:
        """Logits of the cosines of queries and prototypes, of any shape."""
        return self.scale * cosines + self.offset


class AlignedStart(nn.Module):
    """scale * similarity + offset of two sequences, the training-free rule at which sequence relations begin.

    Every step is aligned to the other sequence by attention (softmax of ``sharpness`` times cosines) and compared with
    what it is aligned to; the similarity is the mean over both sequences' steps. Scale and offset are learned.
    """

    def __init__(self, scale: float = 10.0, offset: float = -5.0, sharpness: float = 10.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.offset = nn.Parameter(torch.tensor(offset))
        self.sharpness = sharpness

    def forward(self, query: Stream, support: Stream) -> Tensor:
        """Logits [B, Q, N, K] of queries [B, Q, T, D] and supports [B, N, K, T, D]."""
        return self.scale * self.similarity(query, support) + self.offset

    @torch.no_grad()
    def similarity(self, query: Stream, support: Stream) -> Tensor:
        """The similarity [B, Q, N, K] of sequences, from -1 to 1; features carry no gradient, so none is traced."""
        q = F.normalize(query.x.to(self.scale.dtype), dim=-1)
        s = F.normalize(support.x.to(self.scale.dtype), dim=-1)
        batch, ways, shots, steps = support.x.shape[:4]
        pair = q.flatten(1, 2) @ s.flatten(1, 3).transpose(1, 2)
        pair = pair.view(batch, *q.shape[1:3], ways * shots, steps).transpose(2, 3)  # [B, Q, N*K, Tq, Ts]
        q_valid, s_valid = query.mask()[:, :, None], support.mask().flatten(1, 2)[:, None]
        valid = q_valid[..., :, None] & s_valid[..., None, :]
        heat = (self.sharpness * pair).masked_fill(~valid, -1e4)
        of_query_steps = (torch.softmax(heat, -1) * pair).sum(-1) * q_valid
        of_support_steps = (torch.softmax(heat, -2) * pair).sum(-2) * s_valid
        of_query = of_query_steps.sum(-1) / query.length.clamp(min=1)[:, :, None]
        of_support = of_support_steps.sum(-1) / support.length.clamp(min=1).flatten(1, 2)[:, None]
        return ((of_query + of_support) / 2).unflatten(-1, (ways, shots))
