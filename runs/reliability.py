"""The reliability of modalities: the certainty of each one, and the share of another's errors that it gets right.

The certainties are those of AMFAR (CVPR 2023): the greatest posterior, and the negative entropy. The complementarity
table counts, for every pair (a, b), the queries that a alone gets right among those that b alone gets wrong.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..cache.table import Stream
from ..episodes.batch import Episodes
from ..episodes.draw import sampler_for
from ..episodes.gather import materialise
from ..episodes.protocol import Protocol
from ..errors import UsageError
from ..heads.head import HasBranches, Head
from ..heads.scoring.cost import cost_of
from .evaluate import blocks, chunk_size, chunks, largest_episode
from .measure import whole_split


@torch.no_grad()
def reliability(head: Head, bank: FeatureBank, protocol: Protocol, episodes: int = 1000) -> dict[str, Any]:
    """The accuracy, certainty and negative entropy (nats) of each modality, and the complementarity table.

    A modality is measured on the queries in which it is present. A head with branches gives each modality's own
    posterior; any other head is evaluated with every other modality absent.
    Raises UsageError for fewer than two modalities, and where clips have several labels or no supports are given.
    """
    if len(bank.tables) < 2:
        raise UsageError("Modality reliability compares modalities; load two or more.")
    if bank.multi or whole_split(protocol):
        raise UsageError(
            "Modality reliability is measured on episodes with one label a clip; leave it out, or choose another "
            "--label-set or --n-way."
        )
    head.eval()
    names = list(bank.tables)
    sums = {m: torch.zeros(4, dtype=torch.float64) for m in names}
    cross = torch.zeros(len(names), len(names), 2, dtype=torch.float64)
    sampler = sampler_for(bank, protocol)
    first = largest_episode(sampler, protocol, 0)
    chunk = chunk_size(cost_of(lambda: branch_logits(head, materialise(bank, first, protocol))), bank.device)
    tasks = blocks(sampler, 0, episodes, chunk)
    for index in itertools.chain.from_iterable(chunks(block.draw(sampler), chunk) for block in tasks):
        batch = materialise(bank, index, protocol)
        logits = branch_logits(head, batch)
        real = batch.query_label >= 0
        right, query_present = {}, {}
        for m, value in logits.items():
            posterior = torch.softmax(value.double(), -1)
            query_present[m] = real & batch.query[m].present
            right[m] = value.argmax(-1) == batch.query_label
            entropy = (posterior * posterior.clamp(min=1e-12).log()).sum(-1)
            figures = torch.stack([torch.ones_like(entropy), right[m].double(), posterior.amax(-1), entropy])
            sums[m] += (figures * query_present[m]).sum((1, 2)).cpu()
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                if a in right and b in right:
                    wrong = query_present[a] & query_present[b] & ~right[b]
                    cross[i, j] += torch.stack([(wrong & right[a]).sum(), wrong.sum()]).cpu()
    return {
        "modalities": {
            m: {
                "queries": int(s[0]),
                "accuracy": float(s[1] / s[0].clamp(min=1)),
                "certainty": float(s[2] / s[0].clamp(min=1)),
                "negative_entropy": float(s[3] / s[0].clamp(min=1)),
            }
            for m, s in sums.items()
        },
        "right_where_other_is_wrong": {
            a: {b: float(cross[i, j, 0] / cross[i, j, 1].clamp(min=1)) for j, b in enumerate(names) if a != b}
            for i, a in enumerate(names)
        },
    }


def branch_logits(head: Head, episodes: Episodes) -> dict[str, Tensor]:
    """The logits [B, Q, N] of each modality alone."""
    if isinstance(head, HasBranches):
        return head.branches(episodes)
    return {m: head(_alone(episodes, m)) for m in episodes.query}


def _alone(episodes: Episodes, modality: str) -> Episodes:
    """The same episodes with every other modality absent."""

    def absent(s: Stream) -> Stream:
        return Stream(torch.zeros_like(s.x), torch.zeros_like(s.present), torch.zeros_like(s.length))

    return replace(
        episodes,
        support={m: s if m == modality else absent(s) for m, s in episodes.support.items()},
        query={m: s if m == modality else absent(s) for m, s in episodes.query.items()},
    )
