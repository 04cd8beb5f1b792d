"""DPGN: its two kinds of distribution, its losses, its start."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from graph_support import inputs, parts, perturbed, random_task, with_absent_support
from torch.nn import functional as F

from fsmm.errors import UsageError
from fsmm.heads.graph.blocks import nodes_of
from fsmm.heads.graph.dpgn import DPGN, DPGNSettings, initial_edges


def make(shot: int | None = None, **given: object) -> DPGN:
    torch.manual_seed(0)
    small = {"embed": 6, "generations": 2}
    head = perturbed(DPGN(replace(inputs(), shot=shot), DPGNSettings(**{**small, **given})))
    assert isinstance(head, DPGN)
    return head


def test_a_number_a_class_and_a_number_a_support_agree_for_one_shot() -> None:
    task = random_task(shots=1)
    assert torch.equal(make(distribution="class")(task), make(1)(task))


def test_a_number_a_support_needs_the_number_of_shots() -> None:
    head = make(2)
    assert torch.isfinite(head(random_task(shots=2))).all()
    with pytest.raises(UsageError, match="built for 2 shots and got 3"):
        head(random_task(shots=3))


def test_rows_of_edges_sum_to_one() -> None:
    _, after = make().generations(random_task())
    for generation in after:
        for edge in (generation.point, generation.distribution):
            assert torch.allclose(edge.sum(-1), torch.ones(2, 12, dtype=torch.float64))


def test_initial_edges_by_a_loop() -> None:
    edge = initial_edges(nodes_of(random_task(shots=2), torch.float64), 3)[0]
    for i in range(12):
        for j in range(12):
            if i < 6 and j < 6:
                expected = float(i // 2 == j // 2)
            elif i < 6 or j < 6:
                expected = 1 / 6
            else:
                expected = float(i == j)
            assert edge[i, j].item() == pytest.approx(expected)


@pytest.mark.parametrize("gap", ["l1", "l2"])
def test_distances_are_those_before_the_generation(gap: str) -> None:
    head, task = make(gap=gap), random_task()
    graph, after = head.generations(task)
    x = head.embedding(graph.x)
    power = 2 if gap == "l2" else 1
    expected = -(x[:, :, None] - x[:, None]).abs().pow(power).sum(-1)
    assert torch.allclose(after[0].distance, expected)


def test_the_slip_takes_the_axis_of_queries_for_that_of_classes() -> None:
    task = random_task(shots=1, per_class=1)
    head = make()
    graph, after = head.generations(task)
    logits = after[0].distance[:, 3:, :3]
    label = torch.cat([torch.arange(3).expand(2, 3), task.query_label], 1)
    right = head.distance_loss(after[0].distance, label, graph, 3)
    assert torch.allclose(right, F.cross_entropy(logits.flatten(0, 1), task.query_label.flatten()))
    slipped = make(transposed_distance_loss=True).distance_loss(after[0].distance, label, graph, 3)
    turned = logits.transpose(1, 2).flatten(0, 1)
    assert torch.allclose(slipped, F.cross_entropy(turned, task.query_label.flatten()))
    with pytest.raises(UsageError, match="one query a class"):
        make(transposed_distance_loss=True).loss(random_task(per_class=2))


def test_the_first_generations_and_the_last_are_weighed() -> None:
    head = make(generations=4, weighed_generations=2, dropout=0.0)
    losses = head.loss(random_task())
    first, *_, last = losses.parts.values()
    assert torch.allclose(losses.total, (0.2 * first + last) / 2)


@pytest.mark.parametrize("switch", ["use_point", "use_distance", "use_distribution"])
def test_switched_off_outputs_are_zero(switch: str) -> None:
    name = switch.removeprefix("use_")
    _, after = make(**{switch: False}).generations(random_task())
    assert all(not getattr(generation, name).any() for generation in after)


def test_an_absent_support_is_no_support() -> None:
    absent, gone = with_absent_support(random_task(shots=3))
    head = make()
    assert torch.allclose(head(absent), head(gone))


def test_the_start_ranks_one_shot_classes_by_distance() -> None:
    head = DPGN(inputs(), DPGNSettings(smooth=1e-6)).double().eval()
    task = random_task(shots=1)
    support, query = parts(task)
    assert torch.equal(head(task).argmax(-1), torch.cdist(query, support[:, :, 0]).argmin(-1))


def test_more_classes_than_built_for_are_refused() -> None:
    assert make()(random_task(ways=2)).shape[-1] == 2
    with pytest.raises(UsageError, match="built for 3 classes and got 4"):
        make()(random_task(ways=4))
