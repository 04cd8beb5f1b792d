"""What work costs: gradients are seen however they are taken, memory that was given is not counted."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad

from fsmm.heads.scoring.cost import cost_of


def by_autograd(x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        free = x.clone().requires_grad_()
        return torch.autograd.grad(free.square().sum(), free)[0]


def by_func(x: torch.Tensor) -> torch.Tensor:
    slope: torch.Tensor = grad(lambda y: y.square().sum())(x)
    return slope


@pytest.mark.parametrize("work", [by_autograd, by_func])
def test_gradients_are_seen_however_they_are_taken(work: object) -> None:
    x = torch.randn(1000)
    with torch.no_grad():
        cost = cost_of(lambda: work(x))
        assert cost.gradients
        assert not cost_of(lambda: x.square()).gradients


def test_other_errors_are_passed_on() -> None:
    def fails() -> None:
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        cost_of(fails)


def test_the_most_memory_at_once_is_that_of_new_tensors() -> None:
    x = torch.randn(1000)
    assert cost_of(lambda: x.view(10, 100)).bytes == 0
    assert cost_of(lambda: (x + 1) + 1).bytes == 8000
    assert cost_of(lambda: by_autograd(x)).bytes >= 4000


def test_a_kept_buffer_costs_what_is_filled_of_it() -> None:
    """A second measurement finds the buffer ready; the work takes the same memory."""
    x, kept = torch.randn(50, 10), torch.empty(1000, 10)

    def gather(rows: int) -> None:
        torch.index_select(x, 0, torch.arange(rows), out=kept[:rows])

    for rows in (20, 30):
        chosen_bytes, gathered_bytes = rows * 8, rows * 10 * 4
        assert cost_of(lambda rows=rows: gather(rows)).bytes == chosen_bytes + gathered_bytes
