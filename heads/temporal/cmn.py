"""CMN: Compound Memory Networks for Few-shot Video Classification (Zhu and Yang, ECCV 2018).

Learned saliency vectors split a video into several descriptors, which together make its key; supports are written
into a memory whose slots are merged where a class's clips agree; a query takes the label of the nearest key. No code
was published: this is a reconstruction, free choices are in the settings. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import targets
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..settings import Recipe, Settings


@dataclass(frozen=True)
class CMNSettings(Settings):
    """saliencies: m, number of saliency vectors. margin: alpha of the ranking loss.

    write: "merge" (a support whose nearest key is of its class is merged into that key, else takes its own slot; one
    support of every class at a time) or "slots" (every support its own slot: nearest neighbour).
    scale: multiplies the cosine in the logits (free; the order of classes does not depend on it).
    """

    saliencies: int = 5
    margin: float = 0.5
    write: str = "merge"
    scale: float = 10.0


class CMN(Head):
    settings_class = CMNSettings
    recipe = Recipe(steps=400, rate=1e-4, evaluate_episodes=200, mix=0.5)
    sequences = True
    pairwise = True

    def __init__(self, inputs: Inputs, settings: CMNSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.write not in ("merge", "slots"):
            raise UsageError(f"write={self.settings.write!r} is not known; use merge or slots.")
        dim, m = inputs.one()[2], self.settings.saliencies
        self.saliency = nn.Parameter(torch.randn(m, dim) / dim)
        self.norm = nn.LayerNorm(m)
        nn.init.constant_(
            self.norm.weight, 0.1
        )  # saliencies share a step almost evenly until they have learned
        # The key starts as the mean of the descriptors: the untrained head compares mean features.
        self.key = nn.Linear(m * dim, dim)
        with torch.no_grad():
            self.key.weight.copy_(torch.eye(dim).repeat(1, m) / m**0.5)
            self.key.bias.zero_()

    def forward(self, episodes: Episodes) -> Tensor:
        key, query, support, asked = self._keys(episodes)
        memory, filled = self.write(key, support.present)
        near = self.read(memory, filled, query)
        known = support.present.any(2)
        return neutral(self.settings.scale * near.masked_fill(~known[:, None], 0.0), asked, known)

    def loss(self, episodes: Episodes) -> Losses:
        """relu( cos(query, nearest wrong key) - cos(query, nearest right key) + margin ), mean over queries."""
        key, query, support, asked = self._keys(episodes)
        near = self.read(*self.write(key, support.present), query)
        hot, valid = targets(episodes, near.dtype)
        near = near.clamp(min=-2.0)  # a class without a key
        right = near.masked_fill(hot == 0, -2.0).amax(-1)
        wrong = near.masked_fill(hot > 0, -2.0).amax(-1)
        counts = (valid & asked).to(near.dtype)
        value = (F.relu(wrong - right + self.settings.margin) * counts).sum() / counts.sum().clamp(min=1)
        return Losses(value, {"margin": value})

    def embed(self, stream: Stream) -> Tensor:
        """Abstract keys of length one, [..., D], of a stream [..., T, D]."""
        x = stream.x.to(work_dtype(stream.x.dtype, self))
        dim = x.shape[-1]
        # x . h / sqrt(D), for features of length sqrt(D)
        share = torch.softmax(self.norm(x @ self.saliency.t() * dim**0.5), -1)
        share = share * stream.mask()[..., None].to(x.dtype)
        # z_i = sum_j a_ij (x_j - h_i)
        z = share.transpose(-1, -2) @ x - share.sum(-2)[..., None] * self.saliency
        parts = F.normalize(F.normalize(z, dim=-1).flatten(-2), dim=-1)
        return F.normalize(self.key(parts), dim=-1)

    def write(self, key: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Memory [B, N, K, D] and which slots are filled, bool [B, N, K], of keys [B, N, K, D]."""
        if self.settings.write == "slots" or key.shape[2] == 1:
            return key, present
        memory, filled = torch.zeros_like(key), torch.zeros_like(present)
        own = torch.eye(key.shape[1], dtype=torch.bool, device=key.device)[:, :, None]
        slots = torch.arange(key.shape[2], device=key.device)
        for shot in range(key.shape[2]):
            u, here = key[:, :, shot], present[:, :, shot]
            near = torch.einsum("bnd,bmkd->bnmk", u, memory).masked_fill(~filled[:, None], -2.0)
            best, slot = near.masked_fill(~own, -2.0).amax(2).max(-1)  # the nearest key of the own class
            merge = here & (best > -2.0) & (best >= near.flatten(2).amax(-1))
            to = torch.where(merge, slot, torch.full_like(slot, shot))
            touched = (slots == to[..., None]) & here[..., None]
            memory = torch.where(touched[..., None], F.normalize(memory + u[:, :, None], dim=-1), memory)
            filled = filled | touched
        return memory, filled

    def read(self, memory: Tensor, filled: Tensor, query: Tensor) -> Tensor:
        """Cosine [B, Q, N] of each query to the nearest key of each class; -inf for a class without a key."""
        near = torch.einsum("bqd,bnkd->bqnk", query, memory)
        return near.masked_fill(~filled[:, None], -torch.inf).amax(-1)

    def _keys(self, episodes: Episodes) -> tuple[Tensor, Tensor, Stream, Tensor]:
        support, query = single(episodes)
        return self.embed(support), self.embed(query), support, query.present
