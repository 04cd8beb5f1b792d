"""CMN: Compound Memory Networks for Few-shot Video Classification (Zhu and Yang, ECCV 2018).

Learned saliency vectors split a video into several descriptors, which together make its key; supports are written
into a memory whose slots are merged where a class's clips agree; a query takes the label of the nearest key. No code
was published: this is a reconstruction, free choices are in the settings. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes, Stream
from ..encoding import EncodingHead
from ..head import Inputs, Losses
from ..parts.context import TaskContext
from ..parts.losses import targets
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..scoring.pairs import FromPairs
from ..scoring.shortcut import Shortcut
from ..settings import Count, NonNegative, Positive, Recipe, Settings

NO_KEY = -2.0  # below every cosine


@dataclass(frozen=True)
class CMNSettings(Settings):
    """CMN's settings."""

    saliencies: Count = 5
    """The number m of saliency vectors."""
    margin: NonNegative = 0.5
    """The margin alpha of the ranking loss."""
    write: Literal["merge", "slots"] = "merge"
    """How supports enter the memory. Merge: a support whose nearest key is of its class is merged into that key, else
    it takes a slot of its own; one support of every class is written at a time. Slots: every support has a slot of its
    own, which is the nearest neighbour."""
    scale: Positive = 10.0
    """The factor of the cosine in the logits; it is free, as the order of classes does not depend on it."""


class CMN(EncodingHead[CMNSettings, Tensor, Tensor]):
    Settings = CMNSettings
    recipe = Recipe(steps=400, rate=1e-4, evaluate_episodes=200, mix=0.5)

    def __init__(self, inputs: Inputs, settings: CMNSettings) -> None:
        super().__init__(inputs, settings)
        dim, m = inputs.one()[2], settings.saliencies
        self.saliency = nn.Parameter(torch.randn(m, dim) / dim)
        self.norm = nn.LayerNorm(m)
        # Saliencies share a step almost evenly until they have learned.
        nn.init.constant_(self.norm.weight, 0.1)
        # The key starts as the mean of the descriptors: the untrained head compares mean features.
        self.key = nn.Linear(m * dim, dim)
        with torch.no_grad():
            self.key.weight.copy_(torch.eye(dim).repeat(1, m) / m**0.5)
            self.key.bias.zero_()

    def encode(self, clips: Stream) -> Tensor:
        """Abstract keys of length one, [..., D], of clips [..., T, D]."""
        x = clips.x.to(work_dtype(clips.x.dtype, self))
        # The saliency of a step is x . h / sqrt(D), for features of length sqrt(D).
        share = torch.softmax(self.norm(x @ self.saliency.t() * x.shape[-1] ** 0.5), -1)
        share = share * clips.mask()[..., None].to(x.dtype)
        # z_i = sum_j a_ij (x_j - h_i)
        z = share.transpose(-1, -2) @ x - share.sum(-2)[..., None] * self.saliency
        parts = F.normalize(F.normalize(z, dim=-1).flatten(-2), dim=-1)
        return F.normalize(self.key(parts), dim=-1)

    def compare(self, support: Tensor, query: Tensor, context: TaskContext) -> Tensor:
        cosine = self.read(*self.write(support, context.support_present), query)
        return self.settings.scale * cosine.masked_fill(~context.class_present[:, None], 0.0)

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each clip's key is found once; with one shot each pair of clips is scored once."""
        return (self.once_per_clip(), FromPairs(head=self, once_per_clip=self.once_per_clip()))

    def loss(self, episodes: Episodes) -> Losses:
        """relu( cos(query, nearest wrong key) - cos(query, nearest right key) + margin ), mean over queries."""
        support, query = single(episodes)
        memory, filled = self.write(self.encode(support), support.present)
        cosine = self.read(memory, filled, self.encode(query)).clamp(min=NO_KEY)
        hot, labelled = targets(episodes, cosine.dtype)
        right = cosine.masked_fill(hot == 0, NO_KEY).amax(-1)
        wrong = cosine.masked_fill(hot > 0, NO_KEY).amax(-1)
        counts = (labelled & query.present).to(cosine.dtype)
        value = (F.relu(wrong - right + self.settings.margin) * counts).sum() / counts.sum().clamp(min=1)
        return Losses(value, {"margin": value})

    def write(self, key: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Memory [B, N, K, D] and which slots are filled, bool [B, N, K], of keys [B, N, K, D]."""
        if self.settings.write == "slots" or key.shape[2] == 1:
            return key, present
        memory, filled = torch.zeros_like(key), torch.zeros_like(present)
        own = torch.eye(key.shape[1], dtype=torch.bool, device=key.device)[:, :, None]
        slots = torch.arange(key.shape[2], device=key.device)
        for shot in range(key.shape[2]):
            u, written = key[:, :, shot], present[:, :, shot]
            cosine = torch.einsum("bnd,bmkd->bnmk", u, memory).masked_fill(~filled[:, None], NO_KEY)
            best, slot = cosine.masked_fill(~own, NO_KEY).amax(2).max(-1)  # the nearest key of the own class
            merge = written & (best > NO_KEY) & (best >= cosine.flatten(2).amax(-1))
            to = torch.where(merge, slot, torch.full_like(slot, shot))
            touched = (slots == to[..., None]) & written[..., None]
            memory = torch.where(touched[..., None], F.normalize(memory + u[:, :, None], dim=-1), memory)
            filled = filled | touched
        return memory, filled

    def read(self, memory: Tensor, filled: Tensor, query: Tensor) -> Tensor:
        """Cosine [B, Q, N] of each query to the nearest key of each class; -inf for a class without a key."""
        cosine = torch.einsum("bqd,bnkd->bqnk", query, memory)
        return cosine.masked_fill(~filled[:, None], -torch.inf).amax(-1)
