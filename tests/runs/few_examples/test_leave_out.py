"""Leave-one-out over examples equals deciding each round by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from classifier_support import NAMES, gaussian

from fsmm.runs.few_examples import leave_out
from fsmm.runs.few_examples.examples import Examples
from fsmm.runs.few_examples.fitted import FittedHead, HeadChoice
from fsmm.runs.few_examples.leave_out import can_be_left_out, rounds


def fitted(method: str, label: torch.Tensor, examples: Examples, fusion: str = "lf") -> FittedHead:
    choice = HeadChoice(method=method, fusion=fusion, modalities=("frame", "audio"))
    return FittedHead.untrained(choice, examples, label, NAMES)


@pytest.mark.parametrize("method", ["protonet", "ridge", "nearest", "linear-probe", "otam"])
@pytest.mark.parametrize("sizes", [(3, 3, 3), (1, 2, 4)])
def test_a_round_equals_a_head_without_its_examples(method: str, sizes: tuple[int, ...]) -> None:
    """The reference is a head fitted to the other examples alone, one round after another."""
    features, label = gaussian(4, steps=3, gap=1.0)
    rows = np.concatenate([np.flatnonzero(label == c)[:size] for c, size in enumerate(sizes)])
    features, kept = {m: x[rows] for m, x in features.items()}, torch.from_numpy(label[rows])
    examples = Examples.of(features)
    logits, tested = fitted(method, kept, examples).left_out()
    assert tested.tolist() == can_be_left_out(kept, 3).tolist()
    seen: dict[int, torch.Tensor] = {}
    for left in rounds(kept, 3):
        out = left[left >= 0].tolist()
        rest = [i for i in range(len(kept)) if i not in out]
        alone = fitted(method, kept[rest], examples[rest]).logits(examples[out])
        seen = dict(zip(out, alone)) | seen
    torch.testing.assert_close(
        logits, torch.stack([seen[row] for row in tested.tolist()]), atol=2e-3, rtol=1e-3
    )


def test_the_number_of_tasks_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, label = gaussian(4)
    head = fitted("ridge", torch.from_numpy(label), Examples.of(features))
    whole, _ = head.left_out()
    monkeypatch.setattr(leave_out, "_BYTES", 1)
    torch.testing.assert_close(head.left_out()[0], whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 1)])
def test_nothing_can_be_left_out_where_one_class_at_most_has_a_second_example(sizes: tuple[int, ...]) -> None:
    features, label = gaussian(3)
    rows = np.concatenate([np.flatnonzero(label == c)[:size] for c, size in enumerate(sizes)])
    features, label = {m: x[rows] for m, x in features.items()}, label[rows]
    logits, rows = fitted("protonet", torch.from_numpy(label), Examples.of(features)).left_out()
    assert logits.shape == (0, 3)
    assert len(rows) == 0


def test_many_examples_are_left_out_in_as_many_rounds_as_are_allowed() -> None:
    label = torch.arange(2).repeat_interleave(500)
    assert rounds(label, 2, most=10).shape == (10, 2)


@pytest.mark.parametrize("method", ["protonet", "ridge", "linear-probe"])
def test_labels_without_meaning_are_decided_no_better_than_by_chance(method: str) -> None:
    """Leaving out one example alone would show far less than a third: its class would be the smallest."""
    right = []
    for seed in range(12):
        features, label = gaussian(4, gap=0.0, seed=seed)
        logits, rows = fitted(method, torch.from_numpy(label), Examples.of(features)).left_out()
        right.append((logits.argmax(1).numpy() == label[rows.numpy()]).mean())
    assert abs(np.mean(right) - 1 / 3) < 4 * np.sqrt(2 / 9 / (12 * 12))
