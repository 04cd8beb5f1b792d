"""Optimal transport of steps: marginals, what a penalty leaves behind, short clips, logarithms."""

from __future__ import annotations

import math

import pytest
import torch
from temporal_support import cut, episode, head, order_kept

from fsmm.heads.parts.transport import transport_plan


def plan_of(
    cost: torch.Tensor, penalty: float, softness: float = 0.1, iterations: int = 2000
) -> torch.Tensor:
    masses = (torch.full(cost.shape[:-2] + (n,), 1 / n, dtype=cost.dtype) for n in cost.shape[-2:])
    return transport_plan(cost, *masses, softness=softness, penalty=penalty, iterations=iterations)


def some_cost() -> torch.Tensor:
    return torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_balanced_plan_has_the_marginals() -> None:
    plan = plan_of(some_cost(), math.inf)
    assert torch.allclose(plan.sum(-1), torch.full((3, 4), 1 / 4, dtype=torch.float64))
    assert torch.allclose(plan.sum(-2), torch.full((3, 5), 1 / 5, dtype=torch.float64))


def test_an_unbalanced_plan_is_stationary() -> None:
    """The derivative of the objective by every entry of the plan is zero at the minimum."""
    cost, softness, penalty = some_cost(), 0.1, 0.5
    plan = plan_of(cost, penalty).requires_grad_()
    rows, columns = plan.sum(-1), plan.sum(-2)
    entropy = (plan * (plan.log() - 1)).sum()
    divergence = sum(((x * (x * n).log()) - x).sum() for x, n in ((rows, 4), (columns, 5)))
    ((plan * cost).sum() + softness * entropy + penalty * divergence).backward()
    assert float(plan.grad.abs().max()) < 1e-9


def test_what_costs_much_is_left_behind() -> None:
    cost = torch.zeros(1, 2, 2, dtype=torch.float64)
    cost[0, 1] = 5.0
    plan = plan_of(cost, 0.1)
    assert float(plan[0, 1].sum()) < 1e-6 < float(plan[0, 0].sum())


def test_logarithms_agree_with_products() -> None:
    cost = some_cost()[:, :, :3]
    mass = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).expand(3, 3)
    rows = torch.full((3, 4), 0.25, dtype=torch.float64)
    few = {"penalty": 0.3, "iterations": 60}
    logs = transport_plan(cost, rows, mass, softness=0.0199, **few)
    products = transport_plan(cost, rows, mass, softness=0.0200001, **few)
    assert torch.allclose(logs, products, atol=2e-3)
    assert float(logs[..., 2].abs().max()) == 0.0


@pytest.mark.parametrize("supports", ["joint", "separate"])
@pytest.mark.parametrize("side", ["support", "query"])
def test_steps_beyond_a_clip_do_not_count(side: str, supports: str) -> None:
    made, task = head("uot", {"supports": supports}), episode()
    assert torch.allclose(made(cut(task, side)), made(task))


@pytest.mark.parametrize("score", ["cost", "similarity"])
def test_bfloat16_keeps_the_ranking(score: str) -> None:
    assert order_kept(head("uot", {"score": score}), episode(batch=20)) > 0.95
