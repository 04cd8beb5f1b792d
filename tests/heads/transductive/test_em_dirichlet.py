"""EM-Dirichlet: the parameters it finds, names of clusters, absent queries, and what it refuses."""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import numpy as np
import pytest
import torch
from metric_support import inputs, random_episodes, some_queries, without_queries
from scipy import optimize, special

from fsmm.errors import UsageError
from fsmm.heads.head import Inputs
from fsmm.heads.parts.dirichlet import log_density, most_likely
from fsmm.heads.parts.naming import as_classes, cluster_names
from fsmm.heads.transductive.em_dirichlet import EMDirichlet, EMDirichletSettings


@pytest.mark.parametrize("newton", [False, True])
def test_the_parameters_are_those_of_a_general_optimiser(newton: bool) -> None:
    chance = np.random.default_rng(0)
    logs = np.log(chance.dirichlet([2.0, 5.0, 1.0], 40)).mean(0)
    start = torch.ones(1, 1, 3, dtype=torch.float64)
    given = torch.from_numpy(logs)[None, None]
    found = most_likely(start, given, steps=1000, tolerance=1e-16, newton=newton)[0, 0].numpy()

    def loss(log_alpha: np.ndarray) -> float:
        alpha = np.exp(log_alpha)
        return float(special.gammaln(alpha).sum() - special.gammaln(alpha.sum()) - (alpha - 1) @ logs)

    other = np.exp(optimize.minimize(loss, np.zeros(3), tol=1e-12).x)
    np.testing.assert_allclose(found, other, rtol=1e-4)


@pytest.mark.parametrize("newton", [False, True])
@pytest.mark.parametrize("first", [1e-3, 1.0, 300.0])
def test_no_step_towards_the_parameters_lowers_the_likelihood(first: float, newton: bool) -> None:
    chance = torch.Generator().manual_seed(0)
    z = torch.randn(4, 9, 3, generator=chance, dtype=torch.float64).mul(3).softmax(-1)
    alpha, logs = torch.full((4, 1, 3), first, dtype=torch.float64), z.log().mean(1, keepdim=True)
    before = log_density(alpha, z.log()).sum(1)
    for _ in range(40):
        alpha = most_likely(alpha, logs, steps=1, tolerance=0.0, newton=newton)
        after = log_density(alpha, z.log()).sum(1)
        assert (after >= before - 1e-9).all()
        before = after


def test_the_density_is_scipys() -> None:
    from scipy.stats import dirichlet

    z = torch.tensor([[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]], dtype=torch.float64)
    alpha = torch.tensor([[[2.0, 0.5, 3.0]]], dtype=torch.float64)
    expected = [dirichlet([2.0, 0.5, 3.0]).logpdf(row) for row in z[0].numpy()]
    np.testing.assert_allclose(log_density(alpha, z.log())[0, :, 0].numpy(), expected)


def test_the_matching_of_clusters_and_classes_is_the_best_of_all() -> None:
    chance = torch.Generator().manual_seed(1)
    z = torch.randn(6, 20, 4, generator=chance, dtype=torch.float64).softmax(-1)
    cluster = torch.randint(0, 4, (6, 20), generator=chance)
    present = torch.ones(6, 20, dtype=torch.bool)
    name = cluster_names(cluster, z, present, matching=True)
    for b in range(6):
        mean = torch.stack([z[b][cluster[b] == k].mean(0) for k in range(4)])
        best = max(permutations(range(4)), key=lambda p: float(sum(mean[k, c] for k, c in enumerate(p))))
        assert tuple(name[b].tolist()) == best


def test_empty_clusters_have_no_name_and_their_classes_come_last() -> None:
    z = torch.tensor([[[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]])
    name = cluster_names(torch.tensor([[2, 2]]), z, torch.ones(1, 2, dtype=torch.bool), matching=True)
    assert name.tolist() == [[-1, -1, 1]]
    score = as_classes(torch.tensor([[[-5.0, -4.0, -0.1], [-3.0, -9.0, -0.2]]]), name)
    torch.testing.assert_close(score, torch.tensor([[[-6.0, -0.1, -6.0], [-10.0, -0.2, -10.0]]]))


@pytest.mark.parametrize("assignment", ["soft", "hard"])
@pytest.mark.parametrize("shots", [0, 2])
def test_an_absent_query_is_as_if_it_were_not_asked(assignment: str, shots: int) -> None:
    episodes = random_episodes(words=12, shots=max(shots, 1))
    if not shots:
        episodes.support = {m: s[:, :, :0] for m, s in episodes.support.items()}
    gone = torch.zeros(3, 12, dtype=torch.bool)
    gone[:, 8:] = True
    settings = EMDirichletSettings(
        assignment=assignment, scores="cosine", sharpness=8.0, steps=60, effective=2
    )
    head = EMDirichlet(inputs(words=12), settings)
    torch.testing.assert_close(
        head(without_queries(episodes, gone))[:, :8], head(some_queries(episodes, 8)), rtol=1e-7, atol=1e-8
    )


def test_zero_shot_decides_by_words_alone() -> None:
    """Queries near the words of their class, of two of four classes: all are named rightly."""
    episodes = random_episodes(batch=5, words=12, shots=1, per_class=4, seed=3)
    episodes.support = {m: s[:, :, :0] for m, s in episodes.support.items()}
    label = episodes.query_label % 2
    episodes.query_label = label
    near = torch.gather(episodes.words, 1, label[..., None].expand(-1, -1, 12))
    chance = torch.Generator().manual_seed(0)
    for stream in episodes.query.values():
        stream.x[:] = (near + 0.5 * torch.randn(near.shape, generator=chance))[:, :, None]
    head = EMDirichlet(
        inputs(words=12), EMDirichletSettings(scores="cosine", sharpness=10.0, steps=200, effective=2)
    )
    assert (head(episodes).argmax(-1) == label).all()


def test_cosines_need_words_as_wide_as_the_features() -> None:
    with pytest.raises(UsageError, match="scores=ridge"):
        EMDirichlet(Inputs(streams={"frame": (1, 12)}, word_dim=8), EMDirichletSettings(scores="cosine"))


@pytest.mark.parametrize(("width", "scores"), [(12, "cosine"), (8, "ridge")])
def test_words_as_wide_as_features_are_taken_as_they_are(
    width: int, scores: Literal["cosine", "ridge"]
) -> None:
    episodes, given = random_episodes(words=width), inputs(words=width)
    told = EMDirichlet(given, EMDirichletSettings(scores=scores))
    assert torch.equal(EMDirichlet(given, EMDirichletSettings())(episodes), told(episodes))
