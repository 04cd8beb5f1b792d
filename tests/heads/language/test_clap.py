"""ZS-LP, TaskRes and CLAP against torch's autograd and optimiser, a task at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from word_support import WAYS, shared_head, word_episodes

STEPS = 12


def rate(step: int) -> float:
    return 1e-5 if step == 0 else 0.1 * (1 + math.cos(math.pi * (step - 1) / STEPS)) / 2


def logits(x: Tensor, w: Tensor) -> Tensor:
    return 20 * F.normalize(x, dim=-1) @ F.normalize(w, dim=-1).T


def penalty(constraint: str | None, w: Tensor, text: Tensor, a: Tensor) -> Tensor:
    if constraint is None:
        return w.new_zeros(())
    if constraint == "cosine":
        return (a * (1 - F.cosine_similarity(w, text, dim=-1))).mean()
    return (a * (w - text).square().sum(1)).mean()


def multipliers(constraint: str | None, posterior: Tensor) -> Tensor:
    own = torch.stack([posterior[2 * c : 2 * c + 2, c].mean() for c in range(WAYS)])
    return {
        "balanced": torch.ones_like(own),
        "corrected": own * WAYS / own.sum(),
        "constant": own.mean().expand(WAYS),
    }.get(constraint or "", own)


def trained(s: Tensor, text: Tensor, constraint: str | None, residual: float | None) -> Tensor:
    label = torch.arange(WAYS).repeat_interleave(2)
    a = multipliers(constraint, logits(s, text).softmax(-1))
    weight = nn.Parameter(text.clone() if residual is None else torch.zeros_like(text))
    optimiser = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = rate(step)
        optimiser.zero_grad()
        w = weight if residual is None else text + residual * weight
        (F.cross_entropy(logits(s, w), label) + penalty(constraint, w, text, a)).backward()
        optimiser.step()
    return (weight if residual is None else text + residual * weight).detach()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("zs-lp", {}),
        ("taskres", {"residual": 0.5}),
        *(("clap", {"constraint": c}) for c in ("l2", "balanced", "corrected", "constant", "cosine")),
    ],
)
def test_the_descent(name: str, own: dict[str, Any]) -> None:
    task = word_episodes(shots=2)
    found = shared_head(name, scale=20, steps=STEPS, length=3, **own)(task)
    assert task.words is not None
    for i in range(task.batch):
        text = 3 * F.normalize(task.words[i], dim=-1)
        s = task.support["frame"].x[i, :, :, 0].flatten(0, 1)
        w = trained(s, text, own.get("constraint"), own.get("residual"))
        assert torch.allclose(found[i], logits(task.query["frame"].x[i, :, 0], w))


def test_length_none_takes_words_as_they_are() -> None:
    task = word_episodes(shots=2)
    as_they_are = shared_head("zs-lp", length="none")(task)
    assert not torch.allclose(as_they_are, shared_head("zs-lp")(task))


def test_growing_multipliers_do_not_throw_prototypes_out() -> None:
    """With the published passes and rate: a descent on a parabola diverges where its slope outgrows the step."""
    task = word_episodes()
    found = shared_head("clap", constraint="adaptative", scale=20)(task)
    words_alone = shared_head("frozen-space", scale=20)(task)
    assert bool(found.isfinite().all())
    assert float((found - words_alone).abs().mean()) < float(
        (shared_head("zs-lp", scale=20)(task) - words_alone).abs().mean()
    )
