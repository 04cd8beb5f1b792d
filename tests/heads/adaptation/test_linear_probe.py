"""The linear probe agrees with scikit-learn; the batched L-BFGS with closed forms; tasks do not touch each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests_support import bank_of
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import UsageError
from fsmm.heads.adaptation.linear_probe import LinearProbe, LinearProbeSettings
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Inputs
from fsmm.heads.parts.lbfgs import Point, minimise
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.scoring.gram import FromGram
from fsmm.heads.scoring.plan import best_shortcut, direct


def stream(x: Tensor, present: Tensor | None = None) -> Stream:
    there = torch.ones(x.shape[:-1], dtype=torch.bool) if present is None else present
    return Stream(x[..., None, :] * there[..., None, None], there, there.long())


def episodes(batch: int, ways: int, shots: int, dim: int, noise: float = 1.0, seed: int = 0) -> Episodes:
    torch.manual_seed(seed)
    centre = torch.randn(batch, ways, dim, dtype=torch.float64)
    label = torch.arange(ways).repeat(12).expand(batch, -1)
    query = centre[:, label[0]]

    def around(x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(x + noise * torch.randn_like(x), dim=-1)

    support = around(centre[:, :, None].expand(-1, -1, shots, -1))
    classes = torch.arange(ways).expand(batch, -1)
    return Episodes({"frame": stream(support)}, {"frame": stream(around(query))}, label, classes)


def probe(dim: int, **given: Any) -> LinearProbe:
    return LinearProbe(Inputs(streams={"frame": (1, dim)}), replace(LinearProbeSettings(), **given))


def peer(task: Episodes, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's predictions [B, Q] and decision function [B, Q, N] (two classes: [B, Q])."""
    predicted, decided = [], []
    for x, q in zip(task.support["frame"].x.flatten(1, 3), task.query["frame"].x.flatten(1, 2)):
        model = LogisticRegression(**given).fit(x, np.arange(task.ways).repeat(task.shots))
        predicted.append(model.predict(q))
        decided.append(model.decision_function(q))
    return np.stack(predicted), np.stack(decided)


@pytest.mark.parametrize(
    ("ways", "shots", "dim", "c"),
    [
        (5, 5, 64, 1.0),
        (5, 1, 64, 1.0),
        (5, 5, 64, 100.0),
        (5, 5, 64, 0.01),
        (2, 5, 32, 1.0),
        (5, 10, 16, 1.0),
    ],
)
def test_predictions_are_those_of_scikit_learn(ways: int, shots: int, dim: int, c: float) -> None:
    task = episodes(25, ways, shots, dim, noise=1.5)
    theirs, _ = peer(task, C=c)
    mine = probe(dim, c=c)(task.to("cpu", torch.float32)).argmax(-1).numpy()
    # Both solvers stop at a tolerance, so one query in 200 may lie too near a boundary to be decided alike.
    assert (mine == theirs).mean() >= 0.995


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("ways", [2, 4])
def test_decision_values_are_those_of_scikit_learn_at_a_tight_tolerance(ways: int, intercept: bool) -> None:
    task = episodes(4, ways, 3, 20)
    _, theirs = peer(task, C=3.0, tol=1e-10, max_iter=5000, fit_intercept=intercept)
    mine = probe(20, c=3.0, tol=1e-10, max_iter=1000, intercept=intercept)(task).numpy()
    if ways == 2:
        np.testing.assert_allclose(mine[..., 1] - mine[..., 0], theirs, atol=1e-6)
    else:
        np.testing.assert_allclose(
            mine - mine.mean(-1, keepdims=True), theirs - theirs.mean(-1, keepdims=True), atol=1e-6
        )


def test_absent_supports_are_left_out() -> None:
    task = episodes(3, 4, 3, 10)
    support = task.support["frame"]
    there = support.present.clone()
    there[:, :, 2] = False
    head = probe(10, tol=1e-9)
    hidden = head(replace(task, support={"frame": stream(support.x.squeeze(-2), there)}))
    fewer = head(replace(task, support={"frame": support[:, :, :2]}))
    torch.testing.assert_close(hidden, fewer, rtol=1e-5, atol=1e-6)


def test_a_class_without_supports_is_neutral_and_does_not_disturb_the_others() -> None:
    task = episodes(3, 4, 2, 10)
    support = task.support["frame"]
    there = support.present.clone()
    there[:, 3] = False
    head = probe(10, tol=1e-9)
    logits = head(replace(task, support={"frame": stream(support.x.squeeze(-2), there)}))
    torch.testing.assert_close(logits[..., 3], logits[..., :3].mean(-1))
    three = replace(task, support={"frame": support[:, :3]}, class_id=task.class_id[:, :3])
    torch.testing.assert_close(logits[..., :3], head(three), rtol=1e-5, atol=1e-6)


def test_a_batch_is_its_tasks_one_by_one() -> None:
    task = episodes(5, 3, 4, 12)
    easy = replace(
        task.support["frame"],
        x=task.support["frame"].x * torch.tensor([1, 5, 1, 0.1, 9.0]).view(5, 1, 1, 1, 1),
    )
    task, head = replace(task, support={"frame": easy}), probe(12)
    alone = torch.cat([head(task.slice(i, i + 1)) for i in range(5)])
    torch.testing.assert_close(head(task), alone, rtol=1e-9, atol=1e-9)


def test_repeated_supports_count_twice() -> None:
    """A singular Gram matrix: every support given twice equals twice the weight of the loss."""
    task = episodes(3, 3, 2, 10)
    twice = task.support["frame"][:, :, [0, 1, 0, 1]]
    doubled = probe(10, tol=1e-9)(replace(task, support={"frame": twice}))
    torch.testing.assert_close(doubled, probe(10, tol=1e-9, c=2.0)(task), rtol=1e-5, atol=1e-6)


def test_low_precision_is_raised() -> None:
    task = episodes(4, 5, 1, 16)
    assert torch.isfinite(probe(16)(task.to("cpu", torch.bfloat16))).all()


def test_a_penalty_must_be_positive() -> None:
    with pytest.raises(UsageError, match="=0 is not allowed; it must be above 0"):
        probe(4, c=0.0)


def quadratic(
    matrix: Tensor, target: Tensor, preconditioner: Tensor | None = None
) -> Callable[[Tensor], Point]:
    """x -> (x - t)^T H (x - t) / 2 for a batch; preconditioned by M^-1."""

    def at(x: Tensor) -> Point:
        gradient = torch.einsum("bij,bj->bi", matrix, x - target)
        conditioned = gradient
        if preconditioner is not None:
            conditioned = torch.linalg.solve(preconditioner, gradient[..., None]).squeeze(-1)
        return Point(((x - target) * gradient).sum(-1) / 2, gradient, conditioned)

    return at


def spd(batch: int, size: int) -> Tensor:
    root = torch.randn(batch, size, size, dtype=torch.float64)
    return root @ root.transpose(1, 2) + 0.1 * torch.eye(size)


def test_lbfgs_finds_the_minima_of_quadratics() -> None:
    torch.manual_seed(0)
    target = torch.randn(6, 8, dtype=torch.float64)
    found = minimise(quadratic(spd(6, 8), target), torch.zeros_like(target), torch.full((6,), 1e-9), 500)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-7)


def test_preconditioning_is_a_change_of_coordinates() -> None:
    """Steps with M = L L^T are those of plain L-BFGS in the coordinates L^T x."""
    torch.manual_seed(1)
    matrix, metric, target = spd(3, 5), spd(3, 5), torch.randn(3, 5, dtype=torch.float64)
    root = torch.linalg.cholesky(metric)
    inverse = torch.linalg.inv(root)
    start, never = torch.zeros_like(target), torch.zeros(3)
    for iterations in (1, 3, 6):
        direct = minimise(quadratic(matrix, target, metric), start, never, iterations)
        plain = minimise(
            quadratic(inverse @ matrix @ inverse.transpose(1, 2), torch.einsum("bji,bj->bi", root, target)),
            start,
            never,
            iterations,
        )
        torch.testing.assert_close(torch.einsum("bji,bj->bi", root, direct), plain, rtol=1e-6, atol=1e-6)


def test_a_converged_problem_stays_and_a_curved_valley_is_followed() -> None:
    def rosenbrock(x: Tensor) -> Point:
        x = x.detach().requires_grad_()
        value = (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return Point(value.detach(), gradient, gradient)

    start = torch.tensor([[-1.2, 1.0], [1.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    found = minimise(rosenbrock, start, torch.full((3,), 1e-8), 300)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-6)
    assert found[1].tolist() == [1.0, 1.0]


def test_inner_products_of_all_clips_give_the_same_logits() -> None:
    torch.manual_seed(0)
    bank = bank_of(torch.randn(72, 10), torch.arange(6).repeat_interleave(12))
    task = Protocol(n_way=4, k_shot=3, n_query=5)
    head = build_head("linear-probe", inputs_of(bank))
    index = next(Sampler(bank, task).batches(0, 20, 20))
    test = EpisodeTest(bank=bank, protocol=task, episodes=10_000)
    way = best_shortcut(head, test)
    assert isinstance(way, FromGram)
    torch.testing.assert_close(way.prepare(test)(index), direct(head, test)(index), rtol=1e-3, atol=1e-3)
