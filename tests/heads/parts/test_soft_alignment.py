"""Alignment against the published recursion cell by cell; lengths as truncation; precision; helpers of time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.heads.parts.positions import sinusoid
from fsmm.heads.parts.set_matching import hausdorff
from fsmm.heads.parts.soft_alignment import alignment, backwards
from fsmm.heads.parts.steps import at_least, at_most, resample


def cell_by_cell(m: Tensor, gamma: float) -> float:
    """The recursion as published, for one matrix: a zero column on either side, one cell after another."""

    def least(values: list[float]) -> float:
        if gamma == 0:
            return min(values)
        low = min(values)
        return low - gamma * math.log(sum(math.exp(-(v - low) / gamma) for v in values))

    rows, columns = m.shape
    padded = torch.nn.functional.pad(m.double(), (1, 1)).tolist()
    cost = [[0.0] * (columns + 2) for _ in range(rows)]
    for j in range(1, columns + 2):
        cost[0][j] = cost[0][j - 1] + padded[0][j]
    for i in range(1, rows):
        for j in range(1, columns + 2):
            before = [cost[i - 1][j - 1], cost[i][j - 1]]
            if j in (1, columns + 1):
                before.append(cost[i - 1][j])
            cost[i][j] = padded[i][j] + least(before)
    return cost[-1][-1]


def random_matrices(rows: int, columns: int, pairs: int, seed: int = 0) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(rows, columns, pairs, generator=chance, dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2), (5, 3), (6, 8)])
def test_equals_the_recursion_cell_by_cell(gamma: float, shape: tuple[int, int]) -> None:
    m = random_matrices(*shape, 7)
    slow = torch.tensor([cell_by_cell(m[..., p], gamma) for p in range(7)], dtype=torch.float64)
    assert torch.allclose(alignment(m, gamma), slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_lengths_are_truncation(gamma: float) -> None:
    m = random_matrices(6, 5, 30)
    chance = torch.Generator().manual_seed(1)
    rows, columns = torch.randint(1, 7, (30,), generator=chance), torch.randint(1, 6, (30,), generator=chance)
    cut = torch.stack([alignment(m[: rows[p], : columns[p], p], gamma) for p in range(30)])
    assert torch.allclose(alignment(m, gamma, rows, columns), cut, rtol=1e-10)


def test_pairs_may_have_any_shape_and_lengths_broadcast() -> None:
    m = random_matrices(4, 5, 2 * 3 * 6).view(4, 5, 2, 3, 6)
    rows, columns = (
        torch.tensor([[4, 2, 1], [3, 4, 4]])[..., None],
        torch.tensor([5, 1, 2, 3, 4, 5]).expand(2, 1, 6),
    )
    flat = alignment(m.flatten(2), 0.1, rows.expand(2, 3, 6).flatten(), columns.expand(2, 3, 6).flatten())
    assert torch.allclose(alignment(m, 0.1, rows, columns).flatten(), flat)


def test_soft_minimum_tends_to_the_hard_one_from_below() -> None:
    m = random_matrices(6, 6, 50)
    hard = alignment(m, 0.0)
    gaps = [(hard - alignment(m, g)).min().item() for g in (0.1, 0.01, 0.001)]
    assert all(gap > 0 for gap in gaps)
    assert torch.allclose(alignment(m, 1e-4), hard, atol=5e-3)


@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_gradients(gamma: float) -> None:
    m = random_matrices(4, 3, 5).requires_grad_()
    rows, columns = torch.tensor([4, 1, 2, 3, 4]), torch.tensor([3, 3, 1, 2, 1])
    assert torch.autograd.gradcheck(lambda x: alignment(x, gamma, rows, columns), (m,))
    assert torch.autograd.gradcheck(lambda x: alignment(x, gamma), (m,))


@pytest.mark.parametrize("gamma", [0.001, 0.1, 1.0])
def test_single_precision_holds_even_for_long_and_distant_clips(gamma: float) -> None:
    m = random_matrices(64, 64, 9) * 3  # exp(-cost / gamma) is far below the smallest number
    exact = alignment(m, gamma)
    assert torch.isfinite(exact).all()
    assert float(((alignment(m.float(), gamma) - exact) / exact).abs().max()) < 1e-5


def test_backwards_is_the_matrix_of_reversed_sequences() -> None:
    m = random_matrices(5, 4, 6)
    rows, columns = torch.tensor([5, 1, 3, 2, 5, 4]), torch.tensor([4, 4, 1, 3, 2, 1])
    turned = backwards(m, rows, columns)
    for p in range(6):
        r, c = int(rows[p]), int(columns[p])
        assert torch.equal(turned[:r, :c, p], m[:r, :c, p].flip(0, 1))
    assert torch.equal(backwards(m, None, None), m.flip(0, 1))


@pytest.mark.parametrize("average", [True, False])
def test_hausdorff_equals_loops(average: bool) -> None:
    chance = torch.Generator().manual_seed(2)
    d = torch.rand(8, 5, 4, generator=chance, dtype=torch.float64)
    rows, columns = torch.rand(8, 5, generator=chance) < 0.7, torch.rand(8, 4, generator=chance) < 0.7
    rows[:, 0] = columns[:, 0] = True
    found = hausdorff(d, rows, columns, average=average)
    one_side = hausdorff(d, rows, columns, average=average, both=False)
    for n in range(8):
        kept = d[n][rows[n]][:, columns[n]]
        sides = [kept.amin(1), kept.amin(0)]
        slow = sum(float(s.mean() if average else s.sum()) for s in sides)
        assert found[n].item() == pytest.approx(slow)
        assert one_side[n].item() == pytest.approx(float(sides[0].mean() if average else sides[0].sum()))


def test_hausdorff_of_an_empty_set_is_finite() -> None:
    nothing, some = torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(hausdorff(torch.rand(2, 3, 3), nothing, some), torch.zeros(2))


def test_sinusoids() -> None:
    code = sinusoid(6, torch.zeros(8, dtype=torch.float64))
    assert code[3, 2].item() == pytest.approx(math.sin(3 / 10000 ** (2 / 8)))
    assert code[3, 3].item() == pytest.approx(math.cos(3 / 10000 ** (2 / 8)))
    fast = sinusoid(6, torch.zeros(8, dtype=torch.float64), slow=False)
    assert fast[3, 2].item() == pytest.approx(math.sin(3 / 10000 ** (4 / 8)))
    assert fast[3, 3].item() == pytest.approx(math.cos(3 / 10000 ** (6 / 8)))
    assert sinusoid(4, torch.zeros(5)).shape == (4, 5)  # an odd width


def clips(lengths: list[int], steps: int) -> Stream:
    length = torch.tensor(lengths)
    x = torch.arange(1.0, steps + 1)[None, :, None].expand(len(lengths), -1, 2).clone()
    x = x * (torch.arange(steps) < length[:, None])[..., None]
    return Stream(x, length > 0, length)


def test_at_least_holds_the_last_step_of_short_clips_only() -> None:
    s = at_least(clips([1, 2, 4, 0], 4), 3)
    assert s.x[..., 0].tolist() == [[1, 1, 1, 0], [1, 2, 2, 0], [1, 2, 3, 4], [0, 0, 0, 0]]
    assert s.length.tolist() == [3, 3, 4, 0]
    longer = at_least(clips([2, 1], 2), 3)
    assert longer.x[..., 0].tolist() == [[1, 2, 2], [1, 1, 1]]
    whole = clips([4, 3], 4)
    assert at_least(whole, 3) is whole


def test_at_most_averages_long_clips_alone() -> None:
    s = at_most(clips([4, 3, 1, 0], 4), 2)
    assert s.x[..., 0].tolist() == [[1.5, 3.5], [1.5, 2.5], [1, 0], [0, 0]]
    assert s.length.tolist() == [2, 2, 1, 0]
    whole = clips([2, 1], 2)
    assert at_most(whole, 2) is whole


def test_resample_stretches_averages_and_leaves_whole_clips_alone() -> None:
    whole = clips([4, 4], 4)
    assert resample(whole, 4) is whole
    s = resample(clips([4, 2, 1, 0], 4), 2)
    assert s.x[..., 0].tolist() == [[1.5, 3.5], [1, 2], [1, 1], [0, 0]]
    assert s.length.tolist() == [2, 2, 2, 0]
    assert resample(clips([2, 4], 4), 4).x[..., 0].tolist() == [[1, 1, 2, 2], [1, 2, 3, 4]]
