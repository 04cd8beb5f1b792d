"""TEAM: the untrained head reads steps, other classes matter, single classes are survived, every weight learns."""

from __future__ import annotations

import pytest
import torch
from temporal_support import cut, episode, head, order_kept

from fsmm.heads.temporal.team import greatest_of_others, mean_of_others


@pytest.mark.parametrize("side", ["support", "query"])
def test_steps_beyond_a_clip_do_not_count(side: str) -> None:
    made, task = head("team"), episode()
    assert torch.allclose(made(cut(task, side)), made(task))


@pytest.mark.parametrize("discriminate", ["similarity", "always", "no"])
@pytest.mark.parametrize("decide", ["both", "positive", "negative"])
def test_every_form_learns(discriminate: str, decide: str) -> None:
    made, task = head("team", {"discriminate": discriminate, "decide": decide}), episode()
    made.train().loss(task).total.backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in made.parameters())


def test_other_classes_are_counted_where_present() -> None:
    pair = torch.arange(9.0).view(1, 3, 3, 1, 1)
    present = torch.tensor([[True, False, True]])
    mean = mean_of_others(pair, torch.full((1, 3, 1, 1), 9.0), present).flatten()
    assert mean.tolist() == [2.0, 4.0, 6.0]
    alone = mean_of_others(
        pair, torch.full((1, 3, 1, 1), 9.0), torch.tensor([[False, True, False]])
    ).flatten()
    assert alone.tolist() == [1.0, 9.0, 7.0]
    greatest = greatest_of_others(torch.tensor([[[5.0, 7.0, 1.0]]]), present).flatten()
    assert greatest.tolist() == [1.0, 5.0, 5.0]


def test_a_single_class_is_survived() -> None:
    logits = head("team")(episode(ways=1))
    assert bool(torch.isfinite(logits).all())


def test_the_untrained_head_tells_classes_apart() -> None:
    torch.manual_seed(0)
    made, task = head("team"), episode(batch=20, shots=5, spread=0.3)
    assert float((made(task).argmax(-1) == task.query_label).double().mean()) > 0.8


def test_bfloat16_keeps_the_ranking() -> None:
    assert order_kept(head("team"), episode(batch=20)) > 0.9
