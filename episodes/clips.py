"""Batches of base clips, for heads that are not trained on episodes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from . import counter
from .batch import Stream
from .protocol import Protocol


def some_of(base: FeatureBank, clips: int, seed: int) -> FeatureBank:
    """So many of the base clips, drawn by the seed (0: all); fewer ones are always among more."""
    if not 0 < clips < len(base):
        return base
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(base))
    return base.rows(np.sort(order[:clips]))


def batch_rows(base: FeatureBank, seed: int, step: int, size: int) -> Tensor:
    """The rows [size] of one batch of base clips, drawn with replacement; they depend on (seed, step) alone."""
    words = counter.words(counter.key(seed, "batch"), np.array([step]), size)[0]
    return torch.from_numpy(counter.below(words, len(base)).astype(np.int64)).to(base.device)


def batch_clips(base: FeatureBank, rows: Tensor, task: Protocol) -> dict[str, Stream]:
    """The Streams [M, T, D] of a batch of M clips, with the modalities of ``task`` and at its missing rates."""
    clips = {m: base.tables[m].gather(rows) for m in task.support_modalities or base.tables}
    keep = {m: s.present.clone() for m, s in clips.items()}
    for m in task.missing:
        if m.modality in keep:
            keep[m.modality] &= torch.rand(len(rows), device=rows.device) >= m.rate
    if not task.may_lose_all:
        none_left = ~torch.stack(list(keep.values())).any(0)
        keep = {m: k | (none_left & clips[m].present) for m, k in keep.items()}
    return {
        m: Stream(s.x * keep[m][:, None, None].to(s.x.dtype), keep[m], s.length * keep[m].to(s.length.dtype))
        for m, s in clips.items()
    }
