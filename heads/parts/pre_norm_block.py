"""A pre-norm transformer block over a few tokens, with a mask of which token may attend to which."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PreNormBlock(nn.Module):
    """x + Attn(LN x), and then x + FF(LN x), of tokens x [..., L, D], as in AVCA, TCaF and AV-DIFF.

    Attn has ``heads`` heads of ``head_dim`` entries and no biases before its output; FF maps D -> hidden -> D by GELU.
    With ``one_norm`` both share one layer norm, as TCaF's do.
    """

    def __init__(
        self, dim: int, *, heads: int, head_dim: int, hidden: int, dropout: float, one_norm: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.second_norm = None if one_norm else nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        """The tokens after the block; allowed: bool [..., L, L], whether a token (row) attends to another (column).

        A token that may attend to none attends to all alike.
        """
        x = x + self.dropout(self.out(self._attend(self.norm(x), allowed)))
        second = self.norm if self.second_norm is None else self.second_norm
        return x + self.dropout(self.narrow(self.dropout(F.gelu(self.widen(second(x))))))

    def _attend(self, x: Tensor, allowed: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for t in self.qkv(x).chunk(3, -1))
        heat = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        heat = heat.masked_fill(~allowed[..., None, :, :], torch.finfo(heat.dtype).min)
        return (heat.softmax(-1) @ v).transpose(-2, -3).flatten(-2)
