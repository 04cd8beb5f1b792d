"""alpha-TIM: the written gradient is the objective's, and alpha = 1 is TIM."""

from __future__ import annotations

import pytest
import torch
from metric_support import inputs, random_episodes, without_queries

from fsmm.heads.parts.task import encoded_task
from fsmm.heads.transductive.alpha_tim import AlphaTIM, AlphaTIMSettings
from fsmm.heads.transductive.sample_labels import SampleLabels
from fsmm.heads.transductive.tim import TIM, TIMSettings


@pytest.mark.parametrize("cross_entropy", ["shannon", "alpha", "alpha-released"])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 7.0])
def test_the_written_gradient_is_that_of_the_objective(cross_entropy: str, alpha: float) -> None:
    settings = AlphaTIMSettings(
        alpha=alpha, cross_entropy=cross_entropy, temperature=3.0, support_weight=0.7, marginal_weight=1.3
    )
    head = AlphaTIM(inputs(), settings)
    gone = torch.rand(3, 12, generator=torch.Generator().manual_seed(1)) < 0.3
    task = encoded_task(without_queries(random_episodes(), gone), head.encode)
    w = task.means().clone().requires_grad_()
    (expected,) = torch.autograd.grad(head.objective(task, w).sum(), w)
    x = torch.cat([task.support.flatten(1, 2), task.query], 1)
    logits = head.logits(x, w.detach(), task.class_present)
    found = head.logit_gradient(logits, SampleLabels(task), head.alphas(2))
    pulled = 3.0 * (found.transpose(1, 2) @ x - found.sum(1)[..., None] * w.detach())
    torch.testing.assert_close(pulled, expected, rtol=1e-7, atol=1e-10)


def test_alpha_one_is_tim() -> None:
    episodes = random_episodes()
    weights = {"support_weight": 0.4, "marginal_weight": 1.2, "conditional_weight": 0.6}
    tim = TIM(inputs(), TIMSettings(solver="gd", iterations=30, rate=1e-2, **weights))
    alpha = AlphaTIM(inputs(), AlphaTIMSettings(alpha=1.0, iterations=30, rate=1e-2, **weights))
    torch.testing.assert_close(alpha(episodes), tim(episodes), rtol=1e-6, atol=1e-6)


def test_the_released_alphas_follow_the_shots() -> None:
    head = AlphaTIM(inputs(), AlphaTIMSettings())
    assert [head.alphas(shots).marginal for shots in (1, 2, 4, 5, 20)] == [2, 5, 5, 7, 7]


def test_unbalanced_queries_cost_less_than_they_cost_tim() -> None:
    """Ten queries of one class and one of another: Shannon's marginal entropy moves more of them away."""
    episodes = random_episodes(batch=40, ways=4, per_class=10, spread=1.2)
    keep = torch.zeros_like(episodes.query_label, dtype=torch.bool)
    for row, label in zip(keep, episodes.query_label):
        row[label == 0] = True
        row[torch.nonzero(label == 1)[0]] = True
    left = without_queries(episodes, ~keep)

    def right(head: AlphaTIM | TIM) -> float:
        return float((head(left).argmax(-1) == left.query_label)[keep].double().mean())

    same = {"iterations": 200, "rate": 1e-3}
    alpha = right(AlphaTIM(inputs(), AlphaTIMSettings(alpha=5.0, **same)))
    assert alpha > right(TIM(inputs(), TIMSettings(solver="gd", **same)))
