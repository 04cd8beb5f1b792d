"""Time in heads: ordered alignment of two sequences, set matching of their steps, position codes, short clips.

Shapes: R and C are the steps of the two sequences that are compared; pairs of clips lie on the trailing axes, so that
one vector operation serves every pair of every task.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..episodes.batch import Stream


def alignment(
    distance: Tensor, gamma: float, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """Cost of the best ordered path through distance [R, C, *pairs], -> [*pairs] (Cao et al., OTAM, CVPR 2020).

    A path may begin and end at any row (a zero column is understood on either side) and reads

        cost[i, j] = distance[i, j] + softmin(cost[i-1, j-1], cost[i, j-1]),  1 < j,

    with softmin(v) = -gamma log sum exp(-v / gamma), or the plain minimum for gamma = 0. Row 0 has one predecessor
    only, so it is a running sum. Within a column nothing depends on the column itself: the recursion is C steps of one
    vector operation, and the two outer columns have closed forms. The sums are taken in logarithms throughout.
    rows, columns: int64 that broadcast to [*pairs], how many steps of each pair count (at least one); None: all.
    """
    soft = gamma > 0
    score = distance * (-1 / gamma if soft else -1)
    column = kept = _first_column(score, soft)
    for j in range(1, score.shape[1]):
        onward = _join(column[:-1], column[1:], soft)
        column = score[:, j] + torch.cat([column[:1], onward])
        kept = column if columns is None else torch.where(columns > j, column, kept)
    ended = kept + _ways_to_end(kept, rows, soft)
    return -gamma * ended.logsumexp(0) if soft else -ended.amax(0)


def _join(a: Tensor, b: Tensor, soft: bool) -> Tensor:
    return torch.logaddexp(a, b) if soft else torch.maximum(a, b)


def _first_column(score: Tensor, soft: bool) -> Tensor:
    """[R, *pairs]: a row follows the row above, or begins anew (from two cells of the zero column, hence log 2)."""
    anew = torch.full((), math.log(2) if soft else 0.0, dtype=score.dtype, device=score.device)
    cells = [score[0, 0]]
    for i in range(1, score.shape[0]):
        cells.append(score[i, 0] + _join(cells[-1], anew, soft))
    return torch.stack(cells)


def _ways_to_end(last: Tensor, rows: Tensor | None, soft: bool) -> Tensor:
    """Logarithm of how many ways lead from each row of the last column to the end: two, from the last row one."""
    steps = last.shape[0]
    row = torch.arange(steps, device=last.device).view(-1, *[1] * (last.ndim - 1))
    end = (torch.full_like(row, steps) if rows is None else rows) - 1
    ways = torch.zeros_like(row, dtype=last.dtype).masked_fill(row < end, math.log(2) if soft else 0.0)
    return ways.masked_fill(row > end, -math.inf)


def backwards(distance: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """distance [R, C, *pairs] with both sequences played backwards, each from its own last step."""
    if rows is None or columns is None:
        return distance.flip(0, 1)
    for axis, length in ((0, rows), (1, columns)):
        step = torch.arange(distance.shape[axis], device=distance.device)
        step = step.view(*[1] * axis, -1, *[1] * (distance.ndim - 1 - axis))
        turned = torch.where(step < length, length - 1 - step, step)
        distance = torch.gather(distance, axis, turned.expand_as(distance))
    return distance


def hausdorff(distance: Tensor, here: Tensor, there: Tensor, average: bool = True) -> Tensor:
    """Both directed set distances added: distance [..., I, J], steps that count here [..., I], there [..., J] -> [...].

    A step's distance is that to the nearest step of the other side; averaged over the steps of a side, or summed.
    """
    far = torch.finfo(distance.dtype).max
    total = distance.new_zeros(())
    for axis, mine, other in ((-1, here, there[..., None, :]), (-2, there, here[..., :, None])):
        nearest = distance.masked_fill(~other, far).amin(axis)
        nearest = torch.where(mine, nearest, torch.zeros_like(nearest))
        nearest = torch.where(other.any(axis), nearest, torch.zeros_like(nearest))  # nothing to be near to
        count = mine.sum(-1).clamp(min=1) if average else 1
        total = total + nearest.sum(-1) / count
    return total


def sinusoid(steps: int, like: Tensor, slow: bool = True) -> Tensor:
    """Position codes [steps, D] for like [..., D]: code[t, i] = sin(t / 10000^(i/D)) for even i, cos for odd ones.

    slow: a pair of entries shares its frequency (Vaswani et al. 2017). False: the exponent is 2i/D, with i itself in
    the cosines: frequencies fall twice as fast (released code of HyRSM and its relatives).
    """
    dim = like.shape[-1]
    entry = torch.arange(dim, device=like.device, dtype=torch.float64)
    exponent = (entry - entry % 2) / dim if slow else 2 * entry / dim
    time = torch.arange(steps, device=like.device, dtype=torch.float64)
    angle = time[:, None] / 10000.0**exponent
    return torch.where(entry % 2 == 0, angle.sin(), angle.cos()).to(like.dtype)


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


def widened(stream: Stream) -> Stream:
    """Half-precision features as float32: sums over paths need the digits."""
    return (
        Stream(stream.x.float(), stream.present, stream.length)
        if stream.x.dtype in (torch.bfloat16, torch.float16)
        else stream
    )
