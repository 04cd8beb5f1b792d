"""The graph heads' building blocks against slow, obvious computations."""

from __future__ import annotations

import pytest
import torch
from tests_support import bank_of
from torch.nn import functional as F

from fsmm.heads.graph.blocks import (
    DistanceTerm,
    Pointwise,
    balanced_mean,
    edge_cross_entropy,
    mean_square_distance,
    neighbour_distance_ratio,
    pair_distances,
    pair_values,
    row_mass_kept,
    same_class,
    touching_queries,
    without_self,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("square", [True, False])
def test_pairs_in_evaluation_equal_a_loop_over_pairs(square: bool) -> None:
    torch.manual_seed(0)
    net = Pointwise(5, [7, 4], out=1).double().eval()
    x = random(2, 6, 5)
    found = pair_values(net, x, squared=square)
    for i in range(6):
        for j in range(6):
            gap = (x[:, i] - x[:, j]).square() if square else (x[:, i] - x[:, j]).abs()
            assert torch.allclose(found[:, i, j], net(gap[:, None]).squeeze((1, 2)))


def test_pairs_in_training_normalise_over_all_pairs() -> None:
    """The running mean after one step with momentum one is the mean over the n * n ordered pairs."""
    net = Pointwise(3, [4], out=1).double().train()
    net.norm[0].momentum = 1.0
    x = random(2, 5, 3)
    pair_values(net, x)
    gap = (x[:, :, None] - x[:, None]).abs()
    assert torch.allclose(net.norm[0].running_mean, net.linear[0](gap).flatten(0, 2).mean(0))


def test_dropped_channels_are_dropped_for_a_whole_graph() -> None:
    torch.manual_seed(1)
    net = Pointwise(3, [8], drop=[0.5]).double().train()
    y = net(random(4, 9, 3))
    gone = (y == 0).all(1)
    assert 0 < int(gone.sum()) < gone.numel()
    assert torch.equal((y == 0).any(1), gone)  # a channel is gone everywhere or nowhere


def test_the_edge_update_keeps_the_row_sums_of_the_edges_before() -> None:
    similarity, previous = random(3, 6, 6).sigmoid(), random(3, 6, 6, seed=1).abs()
    edge = row_mass_kept(similarity, previous)
    assert torch.allclose(edge.sum(-1), without_self(previous).sum(-1))
    assert torch.equal(edge.diagonal(dim1=-2, dim2=-1), torch.zeros(3, 6, dtype=torch.float64))


def test_pairs_that_touch_a_query_by_a_loop() -> None:
    present = torch.tensor([[True, True, False, True, True]])
    for among in (True, False):
        found = touching_queries(present, 2, among_queries=among)
        for i in range(5):
            for j in range(5):
                queries = int(i >= 2) + int(j >= 2)
                expected = bool(present[0, i] and present[0, j]) and (
                    queries == 1 or (among and queries == 2)
                )
                assert bool(found[0, i, j]) == expected


def test_unknown_labels_belong_to_no_class() -> None:
    same = same_class(torch.tensor([[0, 1, -1, -1, 0]]))
    assert same[0].sum() == 5  # two on the diagonal with label 0, their two pairs, and one with label 1
    assert not same[0, 2].any()


def test_the_balanced_mean_weighs_both_kinds_alike() -> None:
    """Repeating the pairs of two classes changes nothing; that is the point of balancing."""
    same = torch.tensor([[[True, False], [False, True]]])
    value = torch.tensor([[[1.0, 4.0], [6.0, 3.0]]])
    counted = torch.ones_like(same)
    assert balanced_mean(value, same, counted).item() == pytest.approx(2.0 + 5.0)
    counted[0, 0, 1] = False
    assert balanced_mean(value, same, counted).item() == pytest.approx(2.0 + 6.0)


def test_the_loss_of_edges_is_binary_cross_entropy() -> None:
    edge, same = random(1, 4, 4).sigmoid(), random(1, 4, 4, seed=2) > 0
    expected = F.binary_cross_entropy(edge, same.double(), reduction="none")
    assert torch.allclose(edge_cross_entropy(edge, same), expected)


def test_smoothing_moves_towards_the_neighbours_mean_and_leaves_the_isolated() -> None:
    term = DistanceTerm(2.0, 0.25).double()
    x = random(1, 4, 3)
    edge = torch.zeros(1, 4, 4, dtype=torch.float64)
    edge[0, 0, 1] = edge[0, 0, 2] = 0.5
    edge[0, 0, 0] = 9.0  # a node's own edge does not count
    moved = term.smoothed(x, edge)
    assert torch.allclose(moved[0, 0], 0.75 * x[0, 0] + 0.25 * (x[0, 1] + x[0, 2]) / 2, atol=1e-6)
    assert torch.allclose(moved[0, 1:], x[0, 1:])
    assert torch.allclose(term(pair_distances(x)), -2.0 * torch.cdist(x, x).square(), atol=1e-5)


def test_mean_square_distance_is_the_mean_over_pairs() -> None:
    x = random(7, 3)
    found = mean_square_distance(bank_of(x, torch.arange(7)))
    assert found == pytest.approx(torch.cdist(x, x).square().mean().item())


def test_the_neighbour_distance_ratio_is_what_clusters_leave_within_them() -> None:
    """Ten far clusters of forty: neighbours lie within one, so the ratio is near (nearest within) / (all pairs)."""
    centre = 10 * random(10, 16)
    clips = centre.repeat_interleave(40, 0) + random(400, 16, seed=1)
    label = torch.arange(10).repeat_interleave(40)
    ratio = neighbour_distance_ratio(bank_of(clips, label), group=400)
    square = torch.cdist(clips, clips).square()
    off = ~torch.eye(400, dtype=torch.bool)
    expected = square.masked_fill(~off, torch.inf).sort(-1).values[:, :4].mean() / square[off].mean()
    assert ratio == pytest.approx(float(expected), rel=0.01)
    assert neighbour_distance_ratio(bank_of(random(400, 16), label), group=400) > 10 * ratio
    assert neighbour_distance_ratio(bank_of(3 * clips, label), group=400) == pytest.approx(ratio, rel=1e-6)


def test_the_neighbour_distance_ratio_of_too_few_clips_is_one() -> None:
    assert neighbour_distance_ratio(bank_of(random(3, 4), torch.arange(3))) == 1.0
