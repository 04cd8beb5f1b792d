"""The objectives of a common space against loops over clips, written from their papers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fsmm.heads.parts.objectives import OBJECTIVES, Points, masked_error, pairing

T, MARGIN = 0.2, 0.3


def batch(seed: int = 0, clips: int = 14) -> Points:
    chance = torch.Generator().manual_seed(seed)
    draw = lambda n: F.normalize(torch.randn(n, 6, generator=chance, dtype=torch.float64), dim=-1)  # noqa: E731
    label = torch.randint(0, 4, (clips,), generator=chance)
    return Points(
        point=draw(clips), label=label, anchors=draw(5), second=draw(clips), temperature=T, margin=MARGIN
    )


def pairs(b: Points) -> list[tuple[int, int]]:
    """The ordered pairs of different clips of one class."""
    n = len(b.label)
    return [(i, j) for i in range(n) for j in range(n) if i != j and b.label[i] == b.label[j]]


def negatives(b: Points, i: int) -> list[int]:
    return [k for k in range(len(b.label)) if b.label[k] != b.label[i]]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_random_triplets_average_over_all_of_them() -> None:
    b = batch()
    c = b.point @ b.point.T
    each = [max(0.0, MARGIN + float(c[i, k] - c[i, j])) for i, j in pairs(b) for k in negatives(b, i)]
    assert float(OBJECTIVES["triplet_random"](b)) == pytest.approx(mean(each))


def test_semi_hard_triplets_take_the_nearest_negative_behind_the_positive() -> None:
    b = batch()
    c, each = b.point @ b.point.T, []
    for i, j in pairs(b):
        behind = [float(c[i, k]) for k in negatives(b, i) if c[i, k] < c[i, j]]
        wrong = max(behind) if behind else min(float(c[i, k]) for k in negatives(b, i))
        each.append(max(0.0, MARGIN + wrong - float(c[i, j])))
    assert float(OBJECTIVES["triplet_semi_hard"](b)) == pytest.approx(mean(each))


def test_hardest_triplets_take_the_farthest_positive_and_the_nearest_negative() -> None:
    b = batch()
    c = b.point @ b.point.T
    each = [
        max(0.0, MARGIN + max(float(c[i, k]) for k in negatives(b, i)) - min(float(c[i, j]) for j in mine))
        for i in range(len(b.label))
        if (mine := [j for a, j in pairs(b) if a == i])
    ]
    assert float(OBJECTIVES["triplet_hardest"](b)) == pytest.approx(mean(each))


def test_n_pairs_set_one_positive_against_one_clip_of_each_other_class() -> None:
    b = batch()
    c, label, each = b.point @ b.point.T / T, b.label.tolist(), []
    for i, own in enumerate(label):
        mine = [j for j, other in enumerate(label) if other == own and j != i]
        if not mine:
            continue
        positive = next((j for j in mine if j > i), mine[0])
        logits = [float(c[i, label.index(k)]) for k in sorted(set(label)) if k != own]
        total = sum(math.exp(v - float(c[i, positive])) for v in logits)
        each.append(math.log1p(total))
    assert float(OBJECTIVES["n_pairs"](b)) == pytest.approx(mean(each))


def test_supervised_contrast_averages_the_log_probabilities_of_positives() -> None:
    b = batch()
    c, each = b.point @ b.point.T / T, []
    for i in range(len(b.label)):
        mine = [j for a, j in pairs(b) if a == i]
        total = sum(math.exp(float(c[i, k])) for k in range(len(b.label)) if k != i)
        if mine:
            each.append(-mean([float(c[i, j]) - math.log(total) for j in mine]))
    assert float(OBJECTIVES["supcon"](b)) == pytest.approx(mean(each))


def test_simclr_sets_the_other_view_against_all_other_views_and_reads_no_label() -> None:
    b = batch()
    both = torch.cat([b.point, b.second])
    c, n = both @ both.T / T, len(b.point)
    each = [
        -float(c[i, (i + n) % (2 * n)])
        + math.log(sum(math.exp(float(c[i, k])) for k in range(2 * n) if k != i))
        for i in range(2 * n)
    ]
    assert float(OBJECTIVES["simclr"](b)) == pytest.approx(mean(each))


def test_the_words_term_is_half_the_squared_distance_to_the_own_anchor() -> None:
    b = batch()
    distance = (b.point - b.anchors[b.label]).square().sum(-1)
    assert float(OBJECTIVES["words"](b)) == pytest.approx(float(distance.mean() / 2))


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"n_pairs"}))
def test_the_order_of_the_clips_does_not_matter(name: str) -> None:
    b, order = batch(), torch.randperm(14, generator=torch.Generator().manual_seed(3))
    turned = replace(b, point=b.point[order], label=b.label[order], second=b.second[order])
    assert float(OBJECTIVES[name](turned)) == pytest.approx(float(OBJECTIVES[name](b)))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("label", [[0, 0, 0], [0, 1, 2], [2]])
def test_a_batch_without_positives_or_negatives_has_a_finite_value_and_gradient(
    name: str, label: list[int]
) -> None:
    point = F.normalize(torch.randn(len(label), 4, dtype=torch.float64), dim=-1).requires_grad_()
    anchors = F.normalize(torch.randn(3, 4, dtype=torch.float64), dim=-1)
    b = Points(
        point=point, label=torch.tensor(label), anchors=anchors, second=point, temperature=T, margin=MARGIN
    )
    value = OBJECTIVES[name](b)
    if value.requires_grad:
        value.backward()
    assert bool(value.isfinite())
    assert point.grad is None or bool(point.grad.isfinite().all())


def test_pairing_is_the_mean_of_both_directions_and_masked_error_counts_masked_steps_alone() -> None:
    b = batch()
    c = b.point @ b.second.T / T
    both = [-float(torch.log_softmax(m, -1).diagonal().mean()) for m in (c, c.T)]
    assert float(pairing(b.point, b.second, T)) == pytest.approx(mean(both))
    said, true = torch.zeros(1, 2, 3), torch.tensor([[[1.0, 1.0, 1.0], [9.0, 9.0, 9.0]]])
    assert float(masked_error(said, true, torch.tensor([[True, False]]))) == 1.0
