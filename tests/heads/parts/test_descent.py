"""Batched descent: the same steps as torch's optimisers, the same gradients as autograd, exact coordinates."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fsmm.heads.parts import descent


def _problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(3, 7, 5, generator=chance, dtype=torch.float64), dim=-1)
    w = torch.randn(3, 4, 5, generator=chance, dtype=torch.float64)
    label = torch.randint(0, 4, (3, 7), generator=chance)
    return x, w, label


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (descent.Descent("adam", 0.05), lambda p: torch.optim.Adam(p, 0.05)),
        (descent.Descent("adam", 0.05, decay=0.1), lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.1)),
        (descent.Descent("sgd", 0.3), lambda p: torch.optim.SGD(p, 0.3)),
        (
            descent.Descent("sgd", 0.3, momentum=0.9, dampening=0.9, decay=0.01),
            lambda p: torch.optim.SGD(p, 0.3, momentum=0.9, dampening=0.9, weight_decay=0.01),
        ),
    ],
)
def test_the_same_steps_as_torch(ours: descent.Descent, theirs: object) -> None:
    x, w, label = _problem()
    free = w.clone().requires_grad_()
    optimiser = theirs([free])
    for _ in range(12):
        logits = descent.cosine_logits(x, free, 4.0)
        loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, free)
        free.grad = gradient
        optimiser.step()
        residual = torch.softmax(descent.cosine_logits(x, w, 4.0), -1) - F.one_hot(label, 4)
        w = ours.step(w, descent.cosine_gradient(x, w, 4.0, residual))
    torch.testing.assert_close(w, free.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_written_gradients_are_autograds(kind: str) -> None:
    x, w, _ = _problem(1)
    logits_of, gradient_of = getattr(descent, f"{kind}_logits"), getattr(descent, f"{kind}_gradient")
    free = w.clone().requires_grad_()
    weight = torch.randn(3, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad((logits_of(x, free, 3.0) * weight).sum(), free)
    torch.testing.assert_close(gradient_of(x, w, 3.0, weight), expected)


@pytest.mark.parametrize("supports", [2, 6, 9])
def test_coordinates_of_the_span_keep_inner_products(supports: int) -> None:
    chance = torch.Generator().manual_seed(3)
    s = torch.randn(2, supports, 8, generator=chance, dtype=torch.float64)
    s[:, 1] = s[:, 0]  # a repeated clip: the span has fewer dimensions than supports
    q = torch.randn(2, 5, 8, generator=chance, dtype=torch.float64)
    a, b = descent.span_coordinates(s, q)
    torch.testing.assert_close(a @ a.transpose(1, 2), s @ s.transpose(1, 2))
    torch.testing.assert_close(b @ a.transpose(1, 2), q @ s.transpose(1, 2))
