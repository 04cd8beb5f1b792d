"""A transformer block over steps, some of which may not count, and the table of base classes for losses over them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...errors import UsageError


class TokenBlock(nn.Module):
    """The block of MoLo and CLIP-FSAR: x + Attn(LN x), and then x + FF(x), of steps x [..., L, D].

    Attn has ``heads`` heads (as many as divide the width) of together ``width`` entries (0: D, as published), and no
    biases before its output. FF maps D -> hidden -> D by GELU, without a norm before it. With ``start`` both outputs
    begin at zero, so that the untrained block is the identity.
    """

    def __init__(
        self, dim: int, heads: int, width: int, hidden: int, dropout: float = 0.0, start: bool = True
    ) -> None:
        super().__init__()
        width = width or dim
        self.heads = math.gcd(width, heads)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * width, bias=False)
        self.out = nn.Linear(width, dim)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        if start:
            for layer in (self.out, self.narrow):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """The steps [..., L, D] after the block; only those where valid, bool [..., L], are attended to."""
        x = x + self.dropout(self.out(self._attend(self.norm(x), valid)))
        return x + self.dropout(self.narrow(self.dropout(F.gelu(self.widen(x)))))

    def _attend(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for t in self.qkv(x).chunk(3, -1))
        # A clip without a single step attends to all of its zeros, which is finite; its readers mask it.
        allowed = valid | ~valid.any(-1, keepdim=True)
        out = F.scaled_dot_product_attention(q, k, v, allowed[..., None, None, :])
        return out.transpose(-2, -3).flatten(-2)


class BaseClasses(nn.Module):
    """Which rows of a table over the label set belong to base classes, for losses over all of them.

    ``known``, bool [rows], marks them; until ``remember`` it is false everywhere, and no row is left out of a loss. A
    fixed number of rows keeps checkpoints loadable without the base clips.
    """

    known: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("known", torch.zeros(rows, dtype=torch.bool))

    def remember(self, base: FeatureBank) -> Tensor:
        """Marks the base classes' rows and returns them, int64 [C].

        Raises UsageError where the label set is larger than the table.
        """
        highest = int(base.class_id.max())
        if highest >= len(self.known):
            raise UsageError(
                f"Label set {base.label_set!r} has a class number {highest} and the head keeps {len(self.known)} rows; "
                f"raise them with --set classes={highest + 1}."
            )
        rows = base.class_id.to(self.known.device)
        self.known.zero_()
        self.known[rows] = True
        return rows

    def cross_entropy(self, logits: Tensor, label: Tensor, present: Tensor) -> Tensor:
        """The mean cross-entropy of logits [..., rows] against the rows ``label`` [...] of the clips that are present.

        Rows of other classes than base classes do not compete, and clips of such classes do not count. present: bool
        [...].
        """
        if bool(self.known.any()):
            logits = logits.masked_fill(~self.known, -torch.inf)
            present = present & self.known[label.clamp(0, len(self.known) - 1)]
        each = F.cross_entropy(logits.flatten(0, -2), label.flatten().clamp(min=0), reduction="none")
        kept = present.flatten()
        return torch.where(kept, each, torch.zeros_like(each)).sum() / kept.sum().clamp(min=1)


def clip_classes(episodes: Episodes) -> tuple[Tensor, Tensor]:
    """The label-set class of every clip, supports first, int64 [B, N*K + Q], and which clips are present and have one.

    The class of a clip without one is arbitrary; the mask is bool [B, N*K + Q].
    """
    (support,), (query,) = episodes.support.values(), episodes.query.values()
    label = episodes.query_label
    of_supports = episodes.class_id[..., None].expand(*support.present.shape).flatten(1)
    of_queries = torch.gather(episodes.class_id, 1, label.clamp(min=0))
    counted = torch.cat([support.present.flatten(1), query.present & (label >= 0)], 1)
    return torch.cat([of_supports, of_queries], 1), counted
