"""Tasks, banks and heads with class words, shared by the tests of language heads."""

from __future__ import annotations

from typing import Any

import torch
from tests_support import bank_of
from torch import Tensor

from fsmm.cache.bank import FeatureBank
from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.build import build_head
from fsmm.heads.head import Head, Inputs

WAYS, DIM, WORD = 4, 12, 6


def clips(x: Tensor, present: Tensor) -> Stream:
    """One-step clips of features x [..., D]."""
    return Stream(x[..., None, :] * present[..., None, None], present, present.long())


def word_episodes(
    *, shots: int = 3, batch: int = 2, queries: int = 5, width: int = DIM, seed: int = 0
) -> Episodes:
    """Tasks of Gaussian features in double precision, all present, with class words of this width."""
    chance = torch.Generator().manual_seed(seed)
    support = torch.randn(batch, WAYS, shots, DIM, generator=chance, dtype=torch.float64)
    query = torch.randn(batch, queries, DIM, generator=chance, dtype=torch.float64)
    return Episodes(
        {"frame": clips(support, torch.ones(batch, WAYS, shots).bool())},
        {"frame": clips(query, torch.ones(batch, queries).bool())},
        torch.randint(0, WAYS, (batch, queries), generator=chance),
        torch.arange(WAYS).expand(batch, WAYS),
        words=torch.randn(batch, WAYS, width, generator=chance, dtype=torch.float64),
    )


def shared_head(name: str, **settings: Any) -> Head[Any]:
    """The head for words in the space of the features, with these settings."""
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=DIM, way=WAYS)
    return build_head(name, inputs, {key: str(value) for key, value in settings.items()}).double().eval()


def spoken_bank(*, classes: int = 10, per_class: int = 24, noise: float = 0.5, seed: int = 1) -> FeatureBank:
    """Base clips whose class means are linear in their words, up to noise of the clips."""
    chance = torch.Generator().manual_seed(seed)
    words = torch.nn.functional.normalize(torch.randn(classes, WORD, generator=chance), dim=-1).double()
    slope = torch.randn(WORD, DIM, generator=chance).double()
    label = torch.arange(classes).repeat_interleave(per_class)
    x = (words @ slope)[label] + noise * torch.randn(len(label), DIM, generator=chance).double()
    return bank_of(x, label, split="base", words=words)
