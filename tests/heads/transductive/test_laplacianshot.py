"""LaplacianShot: neighbours as scikit-learn's, updates as a slow loop, energy that falls, absent queries apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metric_support import features, inputs, random_episodes, some_queries, without_queries
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F

from fsmm.heads.transductive.laplacianshot import LaplacianShot, LaplacianShotSettings


def _slow(unary: np.ndarray, affinity: np.ndarray, weight: float, rounds: int) -> np.ndarray:
    def softmax(a: np.ndarray) -> np.ndarray:
        e = np.exp(a - a.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    y, old = softmax(-unary), np.inf
    for step in range(rounds):
        y = softmax(weight * affinity @ y - unary)
        energy = (y * np.log(np.maximum(y, 1e-20)) + unary * y - weight * (affinity @ y) * y).sum()
        if step > 1 and abs(energy - old) <= 1e-6 * abs(old):
            break
        old = energy
    return y


@pytest.mark.parametrize("knn", [1, 3, 5])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_as_a_loop_with_scikit_learns_neighbours(knn: int, weight: float) -> None:
    episodes = random_episodes(spread=1.5)
    head = LaplacianShot(inputs(), LaplacianShotSettings("l2n", weight, knn, rectify=False))
    ours = head(episodes)
    support, query = features(episodes)
    for b in range(3):
        q = F.normalize(query[b], dim=-1).numpy()
        mean = F.normalize(support[b], dim=-1).mean(1).numpy()
        affinity = np.zeros((len(q), len(q)))
        index = NearestNeighbors(n_neighbors=knn).fit(q).kneighbors(q, return_distance=False)
        for i, row in enumerate(index):
            affinity[i, row[1:]] = 1
        unary = ((q[:, None] - mean[None]) ** 2).sum(-1)
        np.testing.assert_allclose(ours[b].exp().numpy(), _slow(unary, affinity, weight, 20), rtol=1e-9)


def test_symmetric_neighbours_make_the_energy_fall() -> None:
    head = LaplacianShot(inputs(), LaplacianShotSettings("l2n", knn=2, rectify=False))
    # Mutual pairs: the bound is tight for a symmetric affinity.
    partner = torch.tensor([[1, 0, 3, 2]])[..., None]
    unary = torch.rand(1, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, energy = head.bound_updates(unary, partner, torch.ones(1, 4, 1).double(), torch.ones(1, 4) > 0)
    steps = energy[:, 0][~energy[:, 0].isnan()]
    assert len(steps) > 2
    assert (steps.diff() <= 1e-12).all()


def test_an_absent_query_is_as_if_it_were_not_asked() -> None:
    episodes = random_episodes()
    gone = torch.zeros(3, 12, dtype=torch.bool)
    gone[:, 7:] = True
    head = LaplacianShot(inputs(), LaplacianShotSettings())
    torch.testing.assert_close(head(without_queries(episodes, gone))[:, :7], head(some_queries(episodes, 7)))


def test_rectification_that_leaves_a_class_empty() -> None:
    episodes = random_episodes(batch=1, ways=2, shots=2)
    support = episodes.support["frame"].x
    # The two supports of class 0 lie opposite one another and off to the side: its mean is nearest to nothing.
    support[0, 0, 0] = support[0, 1, 0] * 1.01
    support[0, 0, 1] = -support[0, 1, 0]
    kept = LaplacianShot(inputs(), LaplacianShotSettings("un", empty="keep"))(episodes)
    dropped = LaplacianShot(inputs(), LaplacianShotSettings("un", empty="drop"))(episodes)
    assert kept.isfinite().all()
    assert dropped.isfinite().all()
