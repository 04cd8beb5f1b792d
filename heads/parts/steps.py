"""Clips brought to a number of steps, or to a scale and precision."""

from __future__ import annotations

import torch
from torch import nn

from ...episodes.batch import Stream
from .task import work_dtype


def at_least(stream: Stream, steps: int) -> Stream:
    """Clips of fewer than ``steps`` steps hold their last one until then; absent clips stay absent."""
    short = stream.present & (stream.length < steps)
    have = stream.x.shape[-2]
    if have >= steps and not bool(short.any()):
        return stream
    length = torch.where(short, torch.full_like(stream.length, steps), stream.length)
    step = torch.arange(max(have, steps), device=stream.x.device)
    source = torch.minimum(step, stream.length[..., None].clamp(min=1) - 1)
    x = torch.gather(stream.x, -2, source[..., None].expand(*source.shape, stream.x.shape[-1]))
    return Stream(x * (step < length[..., None])[..., None].to(x.dtype), stream.present, length)


def at_most(stream: Stream, steps: int) -> Stream:
    """Clips of more than ``steps`` steps averaged down to so many (see ``resample``); shorter ones as they are."""
    if stream.x.shape[-2] <= steps:
        return stream
    long = (stream.length > steps)[..., None, None]
    x = torch.where(long, resample(stream, steps).x, stream.x[..., :steps, :])
    return Stream(x, stream.present, stream.length.clamp(max=steps))


def stretched(stream: Stream, steps: int) -> Stream:
    """Clips with exactly ``steps`` steps: each clip's valid steps are repeated evenly, or averaged where steps = 1."""
    if stream.x.shape[-2] == steps:
        return stream
    if steps == 1:
        return Stream(stream.pooled()[..., None, :], stream.present, stream.present.to(stream.length.dtype))
    grid = torch.arange(steps, device=stream.x.device)
    index = (grid * stream.length.clamp(min=1)[..., None]) // steps
    x = torch.gather(stream.x, -2, index[..., None].expand(*index.shape, stream.x.shape[-1]))
    return Stream(x, stream.present, stream.present.to(stream.length.dtype) * steps)


def resample(stream: Stream, steps: int) -> Stream:
    """Every present clip stretched or averaged to exactly ``steps`` steps, for weights tied to a number of steps.

    Step t is the mean of the valid steps from floor(t L / steps) up to ceil((t + 1) L / steps), L the clip's length.
    """
    have = stream.x.shape[-2]
    whole = torch.where(stream.present, stream.length, torch.full_like(stream.length, steps))
    if have == steps and bool((whole == steps).all()):
        return stream
    step = torch.arange(steps, device=stream.x.device)
    length = stream.length[..., None]
    first = (step * length) // steps
    after = -((-(step + 1) * length) // steps)
    source = torch.arange(have, device=stream.x.device)
    part = ((source >= first[..., None]) & (source < after[..., None])).to(stream.x.dtype)
    x = (part / part.sum(-1, keepdim=True).clamp(min=1)) @ stream.x
    return Stream(x, stream.present, stream.present.to(stream.length.dtype) * steps)


def unit_gain(dim: int, *, rescale: bool) -> float:
    """The factor that brings the entries of unit features of width D to about one, sqrt(D); 1 without ``rescale``."""
    return dim**0.5 if rescale else 1.0


def scaled(stream: Stream, gain: float, module: nn.Module) -> Stream:
    """Clips times ``gain``, in the dtype that ``module`` computes in (see ``work_dtype``)."""
    return Stream(stream.x.to(work_dtype(stream.x.dtype, module)) * gain, stream.present, stream.length)


def widened(stream: Stream) -> Stream:
    """Clips with half-precision features as float32, for sums over paths need the digits."""
    return (
        Stream(stream.x.float(), stream.present, stream.length)
        if stream.x.dtype in (torch.bfloat16, torch.float16)
        else stream
    )
