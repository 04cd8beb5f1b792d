"""TIM: the written gradient is the objective's, both solvers lower it, and easyfsl's steps are ours."""

from __future__ import annotations

import pytest
import torch
from metric_support import features, inputs, random_episodes, some_queries, without_queries
from torch import nn

from fsmm.errors import UsageError
from fsmm.heads.parts.task import encoded_task
from fsmm.heads.transductive.sample_labels import SampleLabels
from fsmm.heads.transductive.tim import TIM, TIMSettings


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_written_gradient_is_that_of_the_objective(distance: str) -> None:
    head = TIM(inputs(), TIMSettings(solver="gd", distance=distance, temperature=6.0))
    episodes = without_queries(
        random_episodes(), torch.rand(3, 12, generator=torch.Generator().manual_seed(1)) < 0.3
    )
    task = encoded_task(episodes, head.encode)
    w = task.means().clone().requires_grad_()
    (expected,) = torch.autograd.grad(head.objective(task, w).sum(), w)
    step = TIM(
        inputs(), TIMSettings(solver="gd", distance=distance, temperature=6.0, iterations=1, rate=1e-3)
    ).fit(task)
    # Adam's first step is minus the rate times the sign of the gradient.
    moved = step - task.means()
    clear = expected.abs() > 1e-4
    assert clear.any()
    assert torch.equal(moved[clear].sign(), -expected[clear].sign())
    x = torch.cat([task.support.flatten(1, 2), task.query], 1)
    logits = head.logits(x, task.means(), task.class_present).detach().requires_grad_()
    traced = torch.autograd.grad(_objective_of_logits(head, logits, task), logits)[0]
    torch.testing.assert_close(
        head.logit_gradient(logits.detach(), SampleLabels(task)), traced, rtol=1e-7, atol=1e-9
    )


def _objective_of_logits(head: TIM, logits: torch.Tensor, task: object) -> torch.Tensor:
    labels = SampleLabels(task)
    cut = labels.hot.shape[1]
    support, query = torch.log_softmax(logits[:, :cut], -1), torch.log_softmax(logits[:, cut:], -1)
    marginal = (query.exp() * labels.query_share).sum(1)
    given = head.settings
    return (
        -given.support_weight * (support * labels.hot * labels.support_share).sum()
        + given.marginal_weight * (marginal * marginal.log()).sum()
        - given.conditional_weight * (query.exp() * query * labels.query_share).sum()
    )


@pytest.mark.parametrize("solver", ["gd", "adm"])
def test_the_objective_falls(solver: str) -> None:
    head = TIM(inputs(), TIMSettings(solver=solver, iterations=60, rate=1e-3))
    task = encoded_task(random_episodes(spread=1.5), head.encode)
    assert (head.objective(task, head.fit(task)) < head.objective(task, task.means())).all()


def test_both_solvers_agree_on_most_queries() -> None:
    episodes = random_episodes(batch=8, spread=0.8)
    gd = TIM(inputs(), TIMSettings(solver="gd", rate=1e-3, iterations=400))(episodes).argmax(-1)
    adm = TIM(inputs(), TIMSettings(solver="adm"))(episodes).argmax(-1)
    assert (gd == adm).double().mean() > 0.9  # 9 of 96 queries may lie between classes; chance is 1/4


def test_an_absent_query_is_as_if_it_were_not_asked() -> None:
    episodes = random_episodes()
    gone = torch.zeros(3, 12, dtype=torch.bool)
    gone[:, 8:] = True
    for settings in (
        TIMSettings(solver="gd", iterations=20, rate=1e-2),
        TIMSettings(solver="adm", iterations=20),
    ):
        head = TIM(inputs(), settings)
        torch.testing.assert_close(
            head(without_queries(episodes, gone))[:, :8],
            head(some_queries(episodes, 8)),
            rtol=1e-8,
            atol=1e-9,
        )


def test_the_same_as_easyfsl() -> None:
    care = pytest.importorskip("fsmm.extract.weights.torchvision_care")
    try:
        care.ensure_torchvision()
        peer = pytest.importorskip("easyfsl.methods").TIM
    except ImportError:
        pytest.skip("easyfsl needs torchvision")
    episodes = random_episodes(batch=2, dtype=torch.float32)
    settings = TIMSettings(
        solver="gd",
        distance="cosine",
        temperature=10.0,
        support_weight=1.0,
        iterations=30,
        rate=1e-2,
        transform="un",
    )
    ours = TIM(inputs(), settings)(episodes)
    support, query = features(episodes)
    for b in range(2):
        method = peer(nn.Identity(), fine_tuning_steps=30, fine_tuning_lr=1e-2)
        method.process_support_set(support[b].flatten(0, 1), torch.arange(4).repeat_interleave(2))
        torch.testing.assert_close(ours[b], 10 * method(query[b]), rtol=1e-3, atol=1e-3)


def test_the_alternating_solver_is_euclidean() -> None:
    with pytest.raises(UsageError, match="solver=gd"):
        TIM(inputs(), TIMSettings(solver="adm", distance="cosine"))


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_no_step_of_the_alternating_solver_raises_its_objective(spread: float) -> None:
    head = TIM(inputs(), TIMSettings(solver="adm", conditional_weight=0.3, marginal_weight=0.8))
    episodes = random_episodes(batch=16, spread=spread)
    gone = torch.rand(16, 12, generator=torch.Generator().manual_seed(1)) < 0.2
    state = head.alternation(encoded_task(without_queries(episodes, gone), head.encode))
    posteriors = state.log_posteriors(state.weights)
    value = state.objective(posteriors, state.assignments)
    start = value
    for _ in range(80):
        state.update_assignments(posteriors)
        assigned = state.objective(posteriors, state.assignments)
        posteriors = state.update_weights(posteriors)
        moved = state.objective(posteriors, state.assignments)
        assert (assigned <= value + 1e-12).all()
        assert (moved <= assigned + 1e-12).all()
        value = moved
    assert (value < start).all()


def test_a_published_step_can_raise_the_objective() -> None:
    """So the guard has something to do: far samples are where the tangent of the log-sum-exp is no bound."""
    head = TIM(inputs(), TIMSettings(solver="adm", guard=False))
    state = head.alternation(encoded_task(random_episodes(batch=16, spread=3.0), head.encode))
    posteriors = state.log_posteriors(state.weights)
    state.update_assignments(posteriors)
    before = state.objective(posteriors, state.assignments)
    assert (state.objective(state.update_weights(posteriors), state.assignments) > before + 1e-2).any()


def test_the_alternating_objective_is_that_of_tim_where_assignments_are_posteriors() -> None:
    head = TIM(inputs(), TIMSettings(solver="adm", marginal_weight=0.8, conditional_weight=0.3))
    task = encoded_task(random_episodes(), head.encode)
    state = head.alternation(task)
    posteriors = state.log_posteriors(state.weights)
    found = 0.8 * state.objective(posteriors, posteriors[1].exp())
    torch.testing.assert_close(found, head.objective(task, state.weights))


def test_the_published_weights_are_a_step_down_the_gradient() -> None:
    """w_new - w = -(dF/dw) / (temperature (1 + alpha) times the class's mass): the closed form of proposition 1."""
    head = TIM(
        inputs(), TIMSettings(solver="adm", marginal_weight=0.8, conditional_weight=0.3, temperature=6.0)
    )
    state = head.alternation(encoded_task(random_episodes(), head.encode))
    state.update_assignments(state.log_posteriors(state.weights))
    w = state.weights.clone().requires_grad_()
    value = state.objective(state.log_posteriors(w), state.assignments).sum()
    (slope,) = torch.autograd.grad(value, w)
    move = state.published_weights(state.log_posteriors(state.weights)) - state.weights
    ratio = -move / slope
    torch.testing.assert_close(ratio, ratio.mean(-1, keepdim=True).expand_as(ratio), rtol=1e-6, atol=0)
    shots, queries, alpha = 8, 12, 0.3 / 0.8
    mass = (0.1 / 0.8) * 2 / shots + (1 + alpha) * state.assignments.sum(1) / queries
    torch.testing.assert_close(ratio.mean(-1), 1 / (6.0 * mass), rtol=1e-6, atol=0)
