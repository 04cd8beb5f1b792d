"""Attention between the ordered tuples of frames of clips, by what every frame contributes to its tuples (TRX)."""

from __future__ import annotations

from functools import cache
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream


class Tuples(NamedTuple):
    """The ordered tuples of clips [...], P a clip, by what their frames contribute.

    A frame contributes to a tuple by its place in it, so a clip has S = T * size contributions (slots) and a tuple is
    the sum of ``size`` of them. key, value: [..., S, d], keys centred, with their share of the bias. deviation,
    square: [..., P], that of the tuple's key over its d entries and the squared length of its value. valid: bool
    [..., P], whether all of a tuple's frames are steps.
    """

    key: Tensor
    value: Tensor
    deviation: Tensor
    square: Tensor
    valid: Tensor


class TupleAttention(nn.Module):
    """The CrossTransformer of one cardinality.

    For tuples u (frames side by side): key k = LN(Wk u + bk), value v = Wv u; for query tuple p and class c

        a = softmax over the tuples p' of all supports of c of <k_p, k_p'> / sqrt(d)
        logit = - mean over p of |v_p - sum a v_p'|^2.

    Both are linear in the frames before the normalisation, so that every inner product of two tuples is a sum of inner
    products of frames: those are computed once and summed by 0/1 matrices, a fraction of the arithmetic of products
    between tuples, and no prototype is ever written out. A bias of the values would cancel in the difference.
    """

    def __init__(self, dim: int, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.key = nn.Linear(size * dim, width)
        self.value = nn.Linear(size * dim, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def tuples(self, clips: Stream) -> Tuples:
        """All tuples of clips [*clips, T, D]."""
        chosen = torch.combinations(torch.arange(clips.x.shape[-2], device=clips.x.device), self.size)
        key, value = (self._slots(clips.x, layer.weight) for layer in (self.key, self.value))
        bias = self.key.bias.to(key.dtype)
        key = key - key.mean(-1, keepdim=True) + (bias - bias.mean()) / self.size
        member = self.member(key)
        deviation = (_squares(key, member) / key.shape[-1] + self.norm.eps).sqrt()
        return Tuples(
            key=key,
            value=value,
            deviation=deviation,
            square=_squares(value, member),
            valid=chosen[:, -1] < clips.length[..., None],
        )

    def member(self, slots: Tensor) -> Tensor:
        """Which slots [..., S, d] make up a tuple, 0/1 [P, S]."""
        return _member(slots.shape[-2] // self.size, self.size, slots.dtype, slots.device)

    def _slots(self, x: Tensor, weight: Tensor) -> Tensor:
        """Each frame's share at each place: x [*clips, T, D], weight [d, size * D] -> [*clips, T * size, d]."""
        width = weight.shape[0]
        by_place = weight.view(width, self.size, -1).transpose(0, 1).reshape(self.size * width, -1)
        out = F.linear(x, by_place).unflatten(-1, (self.size, width)).flatten(-3, -2)
        return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out

    def forward(self, support: Tuples, query: Tuples) -> Tensor:
        """Logits [B, Q, N] of supports [B, N, K] and queries [B, Q]."""
        member = self.member(query.value)
        gathered = self.gathered(support, query)  # [B, N, K, Q*P, S]
        cross = _between(query.value, support.value, member)
        values, weight = support.value.flatten(2, 3), gathered.transpose(2, 3).flatten(3)  # [B, N, Q*P, K*S]
        products = values @ values.transpose(-1, -2)
        prototype = ((weight @ products) * weight).sum(-1)  # |sum a v|^2 [B, N, Q*P]
        distance = prototype - 2 * (gathered * cross).sum((2, 4))
        distance = distance.unflatten(-1, query.square.shape[1:]) + query.square[:, None]
        counted = query.valid.to(distance.dtype)
        mean = torch.einsum("bnqp,bqp->bqn", distance, counted) / counted.sum(-1).clamp(min=1)[..., None]
        return -mean.to(self.key.weight.dtype)

    def gathered(self, support: Tuples, query: Tuples) -> Tensor:
        """How much each support slot weighs in the prototypes of query tuples, [B, N, K, Q*P, S].

        The softmax is written out: its sums over (K, P') come from the product that sums tuples to slots.
        """
        gain, shift = (w.to(support.key.dtype) for w in (self.norm.weight, self.norm.bias))
        of_query, of_support = self.member(query.key), self.member(support.key)
        scaled = of_query / (query.deviation[..., None] * gain.numel() ** 0.5)
        product = _between(query.key * gain.square(), support.key, scaled)
        # <k_p, k_p'> without what is the same for every p'
        constant = (support.key @ (gain * shift)) @ of_support.T / support.deviation / gain.numel() ** 0.5
        constant = constant.masked_fill(~support.valid, -1e30)[..., None, :]
        tuples = of_support.T / support.deviation[..., None, :]
        parts = (t.flatten(0, 2) for t in (constant, product, tuples))
        logits = torch.baddbmm(*parts).view(*product.shape[:-1], -1)  # [B, N, K, Q*P, P']
        most = logits.detach().amax((2, 4), keepdim=True)
        weight = (logits - most).exp() if logits.requires_grad else logits.sub_(most).exp_()
        slots = weight @ F.pad(of_support, (0, 1), value=1.0)
        return slots[..., :-1] / slots[..., -1:].sum(2, keepdim=True)


def _squares(slots: Tensor, member: Tensor) -> Tensor:
    """Squared lengths [*clips, P] of the tuples of slots [*clips, S, d]; member [P, S] says which make up a tuple."""
    gram = slots @ slots.transpose(-1, -2)
    return ((member @ gram) * member).sum(-1).clamp(min=0)


def _between(query: Tensor, support: Tensor, member: Tensor) -> Tensor:
    """Inner products of query tuples and support slots [B, N, K, Q*P, S].

    query [B, Q, S, d], support [B, N, K, S, d]; member [P, S] or [B, Q, P, S] sums the query's slots to tuples.
    """
    flat = query.flatten(1, 2) @ support.flatten(1, 3).transpose(1, 2)
    product = member @ flat.unflatten(1, query.shape[1:3])  # [B, Q, P, N*K*S]
    return product.unflatten(-1, support.shape[1:4]).permute(0, 3, 4, 1, 2, 5).flatten(3, 4)


@cache
def _member(steps: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Which of ``steps * size`` slots make up each tuple of ``size`` steps, 0/1 [P, S]."""
    slot = torch.combinations(torch.arange(steps), size) * size + torch.arange(size)
    return torch.zeros(comb(steps, size), steps * size, dtype=dtype).scatter_(1, slot, 1.0).to(device)
