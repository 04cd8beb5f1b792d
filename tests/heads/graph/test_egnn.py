"""EGNN: edges, the two ways to evaluate, its start."""

from __future__ import annotations

import pytest
import torch
from graph_support import inputs, parts, perturbed, random_task, with_absent_support

from fsmm.heads.graph.blocks import nodes_of
from fsmm.heads.graph.egnn import EGNN, EGNNSettings, _neighbours_of_groups, initial_edges
from fsmm.heads.graph.groups import relations_of


def make(**given: object) -> EGNN:
    torch.manual_seed(0)
    small = {"embed": 6, "node_width": 8, "edge_width": 6}
    head = perturbed(EGNN(inputs(), EGNNSettings(**{**small, **given})))
    assert isinstance(head, EGNN)
    return head


def test_initial_edges_by_a_loop() -> None:
    task = random_task(shots=2)
    edge = initial_edges(nodes_of(task, torch.float64), 3, query_self=True)[0]
    for i in range(12):
        for j in range(12):
            both = i < 6 and j < 6
            alike = float(i // 2 == j // 2) if both else (1.0 if i == j else 0.5)
            assert edge[0, i, j] == alike
            assert edge[1, i, j] == 1 - alike


def test_the_two_parts_of_an_edge_sum_to_one() -> None:
    head, task = make(), random_task()
    graph = nodes_of(task, torch.float64)
    for edge in head.layers(graph, initial_edges(graph, 3, query_self=True)):
        assert torch.allclose(edge.sum(1), torch.ones(2, 12, 12, dtype=torch.float64))


def test_inductive_queries_are_scored_alone_and_transductive_ones_are_not() -> None:
    task = random_task(batch=1)
    query = task.query["frame"]
    for transductive in (False, True):
        head = make(transductive=transductive)
        alone = []
        for i in range(6):
            one = type(task)(
                task.support, {"frame": query[:, i : i + 1]}, task.query_label[:, i : i + 1], task.class_id
            )
            alone.append(head(one))
        assert torch.allclose(torch.cat(alone, 1), head(task)) != transductive


@pytest.mark.parametrize(("transductive", "heads"), [(True, 0), (False, 0), (True, 2)])
def test_an_absent_support_is_no_support(transductive: bool, heads: int) -> None:
    absent, gone = with_absent_support(random_task(shots=3))
    head = make(transductive=transductive, heads=heads)
    assert torch.allclose(head(absent), head(gone))


def test_the_inductive_start_ranks_one_shot_classes_by_distance() -> None:
    head = EGNN(inputs(), EGNNSettings(transductive=False, smooth=1e-6)).double().eval()
    task = random_task(shots=1)
    support, query = parts(task)
    assert torch.equal(head(task).argmax(-1), torch.cdist(query, support[:, :, 0]).argmin(-1))


def test_layer_losses_are_weighted_and_averaged() -> None:
    head, task = make(layers=3, hidden_weight=0.25, dropout=0.0), random_task()
    losses = head.train().loss(task)
    first, second, last = losses.parts.values()
    assert torch.allclose(losses.total, (0.25 * first + 0.25 * second + last) / 3)


def test_the_inductive_loss_leaves_pairs_of_queries_out() -> None:
    """Edges between queries exist in no graph; a loss over them would be infinite or constant."""
    head, task = make(transductive=False), random_task()
    with_labels = head.loss(task).total
    graph = nodes_of(task, torch.float64)
    alike = head.alike(graph, task.ways)
    assert torch.equal(alike[-1][:, 6:, 6:], torch.zeros(2, 6, 6, dtype=torch.float64))
    assert torch.isfinite(with_labels)
    assert with_labels.item() < 10


def test_a_relation_of_groups_begins_as_the_mean_of_alike_neighbours() -> None:
    """While a group's net says nothing, its channels are averaged along the alike edges."""
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    alike = torch.rand(2, 5, 5, dtype=torch.float64)
    edge = torch.stack([alike, 1 - alike], 1)
    groups = relations_of(6, 4)
    assert groups is not None
    found = torch.cat(_neighbours_of_groups(groups.double().eval(), x, edge), -1)
    others = alike * (1 - torch.eye(5, dtype=torch.float64))
    assert torch.allclose(found, others / others.sum(-1, keepdim=True) @ x)
    assert _neighbours_of_groups(relations_of(6, 0), x, edge) == []


def test_groups_of_channels_learn() -> None:
    head, task = make(heads=3), random_task()
    head.train().loss(task).total.backward()
    slopes = [weight.grad for weight in head.groups.parameters() if weight.grad is not None]
    assert any(float(slope.abs().max()) > 0 for slope in slopes)
