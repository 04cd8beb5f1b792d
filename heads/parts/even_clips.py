"""Clips of several modalities in one row, brought to the same number of steps and to entries of order one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Stream
from .steps import resample


class EvenSteps(NamedTuple):
    """Steps x [n, T, D] of n clips, zero where absent, and which clips have them, bool [n]."""

    x: Tensor
    present: Tensor


def in_a_row(clips: Mapping[str, Stream]) -> dict[str, Stream]:
    """The clips [...] of every modality in one row [n]."""
    return {m: Stream(s.x.flatten(0, -3), s.present.flatten(), s.length.flatten()) for m, s in clips.items()}


def even_steps(stream: Stream | None, like: Stream, shape: tuple[int, int], level: Tensor) -> EvenSteps:
    """A modality's clips with T steps, divided by ``level``, in its dtype; zeros where the modality is not given.

    like: a stream of the same clips [n]; shape: (T, D); level: the size of the modality's entries.
    """
    if stream is None:
        x = level.new_zeros(len(like.present), *shape)
        return EvenSteps(x, torch.zeros_like(like.present))
    even = resample(Stream(stream.x.to(level.dtype), stream.present, stream.length), shape[0])
    return EvenSteps(even.x / level, even.present)


def all_clips(bank: FeatureBank) -> dict[str, Stream]:
    """All clips of a bank."""
    rows = torch.arange(len(bank), device=bank.device)
    return {m: table.gather(rows) for m, table in bank.tables.items()}


def levels(clips: Mapping[str, Stream], names: Sequence[str]) -> Tensor:
    """The root mean square of the entries of each modality's valid steps, float64 [M]; 1 where there is none."""
    sizes = []
    for stream in (clips[m] for m in names):
        count = stream.mask().sum() * stream.x.shape[-1]
        size = (stream.x.double().square().sum() / count.clamp(min=1)).sqrt()
        sizes.append(torch.where(size > 0, size, torch.ones_like(size)))
    return torch.stack(sizes)


def means_of_classes(code: Tensor, bank: FeatureBank) -> tuple[Tensor, Tensor]:
    """The mean code of each class of a bank [C, D] of codes of its clips [n, D], and which have a clip, bool [C]."""
    hot = bank.label if bank.multi else F.one_hot(bank.label, len(bank.class_names))
    weight = hot.to(code.dtype)
    count = weight.sum(0)
    return weight.T @ code / count.clamp(min=1)[:, None], count > 0
