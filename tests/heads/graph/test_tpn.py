"""TPN against label propagation written out in numpy, and against its own power series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from graph_support import DIM, inputs, parts, perturbed, random_task, with_absent_support

from fsmm.errors import UsageError
from fsmm.heads.graph.blocks import nodes_of
from fsmm.heads.graph.tpn import TPN, TPNSettings
from fsmm.heads.head import Inputs


def make(**given: object) -> TPN:
    torch.manual_seed(0)
    head = perturbed(TPN(inputs(), TPNSettings(**given)), 0.02)
    assert isinstance(head, TPN)
    return head


@pytest.mark.parametrize("neighbours", [0, 3, 100])
def test_labels_spread_as_in_the_paper(neighbours: int) -> None:
    head, task = make(neighbours=neighbours, alpha=0.8, embed=6), random_task()
    support, query = (x.numpy() for x in parts(task))
    for b in range(2):
        x = np.concatenate([support[b].reshape(-1, DIM), query[b]]) * DIM**0.5
        x = torch.from_numpy(x) @ head.encoder.weight.T.detach()
        x = (x / head.relation(x[None])[0].detach()).numpy()
        n = len(x)
        weight = np.array([[np.exp(-np.mean((x[i] - x[j]) ** 2) / 2) for j in range(n)] for i in range(n)])
        if 0 < neighbours < n:
            keep = np.zeros((n, n), bool)
            for i in range(n):
                keep[i, np.argsort(-weight[i])[:neighbours]] = True
            weight = weight * (keep | keep.T)
        root = np.diag(1 / np.sqrt(weight.sum(0)))
        truth = np.zeros((n, 3))
        truth[np.arange(6), np.arange(6) // 2] = 1
        alpha = head.alpha.item()
        spread, power = truth.copy(), truth.copy()
        for _ in range(300):
            power = alpha * root @ weight @ root @ power
            spread += power
        assert np.allclose(head(task)[b].detach(), spread[6:], atol=1e-8)


def test_the_loss_counts_supports_unless_told_otherwise() -> None:
    task = random_task()
    both, queries = make().loss(task).total, make(support_loss=False).loss(task).total
    logits = make()(task)
    assert torch.allclose(
        queries, torch.nn.functional.cross_entropy(logits.flatten(0, 1), task.query_label.flatten())
    )
    assert not torch.allclose(both, queries)


def test_an_absent_support_is_no_support() -> None:
    absent, gone = with_absent_support(random_task(shots=3))
    head = make(neighbours=0)
    assert torch.allclose(head(absent), head(gone))


def test_one_length_scale_at_the_start() -> None:
    head, task = TPN(inputs(), TPNSettings(sigma=0.7)).double(), random_task()
    graph = nodes_of(task, torch.float64)
    spread = head.propagate(graph, torch.zeros(2, 6, 3))
    assert torch.allclose(spread.sigma, torch.full((2, 12, 1), 0.7, dtype=torch.float64))


def test_alpha_is_learned_only_when_asked() -> None:
    task = random_task()
    for learn in (True, False):
        head = make(learn_alpha=learn)
        head.loss(task).total.backward()
        assert (head.alpha.grad is not None) == learn


def test_maps() -> None:
    """The published relation net takes maps of any side that divides the features."""
    torch.manual_seed(0)
    head = TPN(Inputs(streams={"frame": (1, 18)}, way=3), TPNSettings(side=3, rescale=False)).double().eval()
    task = random_task()
    x = torch.randn(2, 3, 2, 1, 18).double()
    support, query = replace(task.support["frame"], x=x), replace(task.query["frame"], x=x.flatten(1, 2))
    task = replace(task, support={"frame": support}, query={"frame": query})
    assert torch.isfinite(head(task)).all()
    with pytest.raises(UsageError, match="not maps of 4 x 4"):
        TPN(Inputs(streams={"frame": (1, 18)}), TPNSettings(side=4))


def test_alpha_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="alpha=1 is not allowed"):
        TPN(inputs(), TPNSettings(alpha=1.0))
