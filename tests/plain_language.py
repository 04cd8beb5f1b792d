"""The language heads once more, for one task at a time, from their published equations and torch's own optimisers.

Shapes: supports s [N, K, D], queries q [Q, D], weights of class words t [N, D]; all are brought to length one here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE = 100.0


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def word_logits(q: Tensor, t: Tensor) -> Tensor:
    return SCALE * unit(q) @ unit(t).T


def labels(s: Tensor) -> Tensor:
    return torch.arange(s.shape[0]).repeat_interleave(s.shape[1])


def cosine_rates(first: float, steps: int) -> list[float]:
    return [first * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]


def descended(
    optimiser: torch.optim.Optimizer, rates: list[float], loss: Callable[[], Tensor]
) -> Iterator[int]:
    """Take a step of the optimiser with each of the rates; gives the number of each step."""
    for step, rate in enumerate(rates):
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        yield step


def tip_adapter(s: Tensor, q: Tensor, t: Tensor, *, beta: float, alpha: float, steps: int = 0) -> Tensor:
    """Tip-Adapter; with steps, Tip-Adapter-F."""
    x = unit(s).flatten(0, 1)
    keys, member = x.clone().requires_grad_(), F.one_hot(labels(s)).to(x)

    def logits(a: Tensor) -> Tensor:
        return word_logits(a, t) + alpha * torch.exp(-beta * (1 - a @ keys.T)) @ member

    optimiser = torch.optim.AdamW([keys], lr=1.0, eps=1e-4, weight_decay=0.01)
    for _ in descended(optimiser, cosine_rates(1e-3, steps), lambda: F.cross_entropy(logits(x), labels(s))):
        pass
    return logits(unit(q)).detach()


def cross_modal(s: Tensor, q: Tensor, t: Tensor, *, steps: int, wise: float) -> Tensor:
    """The linear classifier on supports and words, half of the loss each."""
    x, words = unit(s).flatten(0, 1), unit(t)
    w = words.clone().requires_grad_()

    def loss() -> Tensor:
        of_words = F.cross_entropy(SCALE * words @ w.T, torch.arange(len(words)))
        return 0.5 * F.cross_entropy(SCALE * x @ w.T, labels(s)) + 0.5 * of_words

    optimiser = torch.optim.AdamW([w], lr=1.0, weight_decay=0.01)
    for _ in descended(optimiser, cosine_rates(1e-3, steps), loss):
        pass
    return SCALE * unit(q) @ ((1 - wise) * w + wise * words).T.detach()


def prototypes(s: Tensor, q: Tensor, t: Tensor, *, kind: str, steps: int) -> Tensor:
    """ZS-LP, TaskRes or CLAP, from words of length ten."""
    x, text = unit(s).flatten(0, 1), 10 * unit(t)
    moved = torch.zeros_like(text).requires_grad_()
    own = torch.softmax(word_logits(x, text), -1)[torch.arange(len(x)), labels(s)]
    firm = own.view(s.shape[:2]).mean(1)

    def w() -> Tensor:
        return text + (0.5 if kind == "taskres" else 1.0) * moved

    def loss() -> Tensor:
        held = (firm * (w() - text).square().sum(-1)).mean() if kind == "clap" else torch.zeros(())
        return F.cross_entropy(SCALE * x @ unit(w()).T, labels(s)) + held

    optimiser = torch.optim.SGD([moved], lr=1.0, momentum=0.9)
    rates = [1e-5, *cosine_rates(0.1, steps)[: steps - 1]]
    for _ in descended(optimiser, rates, loss):
        pass
    return word_logits(q, w().detach())


def gaussians(q: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """x P mu_c - mu_c P mu_c / 2 - log C."""
    rows = [[x @ precision @ m - m @ precision @ m / 2 - math.log(len(mean)) for m in mean] for x in q]
    return torch.stack([torch.stack(row) for row in rows])


def gda(s: Tensor, q: Tensor, t: Tensor, *, alpha: float, scatter: float) -> Tensor:
    """GDA; scatter: what stands for tr(S) where every class has a single support."""
    x, dim = unit(s), s.shape[-1]
    mean = x.mean(1)
    away = (x - mean[:, None]).flatten(0, 1)
    count = len(away)
    trace = float(away.square().sum()) / (count - 1)
    trace = trace if trace > 1e-12 else scatter
    precision = dim * torch.linalg.inv(away.T @ away + trace * torch.eye(dim).to(x))
    return word_logits(q, t) + alpha * gaussians(unit(q), mean, precision)


def gda_new(base: Tensor, q: Tensor, t: Tensor, *, neighbours: int, copies: int) -> Tensor:
    """The base-to-new form, from base clips [n, D]."""
    base, dim = unit(base), t.shape[-1]
    means, precisions = [], []
    for w in unit(t):
        near = base[(base @ w).argsort(descending=True)[:neighbours]]
        means.append((near.sum(0) + copies * w) / (len(near) + copies))
        away = near - w
        trace = away.square().sum() / max(len(near) - 1, 1)
        precisions.append(dim * torch.linalg.inv(away.T @ away + trace * torch.eye(dim).to(t)))
    return word_logits(q, t) + gaussians(unit(q), torch.stack(means), torch.stack(precisions).mean(0))


def lppp(s: Tensor, q: Tensor, t: Tensor, *, start: float, steps: int) -> Tensor:
    """LP++ whose blending weights step along the gradient of every tenth pass."""
    f, text = unit(s).flatten(0, 1), unit(t).T
    near, label = f @ text, labels(s)
    own = near[torch.arange(len(f)), label].view(s.shape[:2]).mean(1)
    w = unit(s).sum(1).requires_grad_()
    b = torch.zeros(len(t)).to(f).requires_grad_()
    a = torch.full((len(t),), start * SCALE * float(own.mean())).to(f).requires_grad_()
    rate = 4 * len(f) / float(torch.linalg.matrix_norm(f, ord=2)) ** 2
    blend_rate = len(f) / (4 * float(near.square().sum(0).max()))

    def loss() -> Tensor:
        a.grad = None
        return F.cross_entropy(f @ w.T + b + a * near, label)

    optimiser = torch.optim.SGD([w, b], lr=rate, momentum=0.9)
    for step in descended(optimiser, [rate] * steps, loss):
        if (step + 1) % 10 == 0 and a.grad is not None:
            a.data -= blend_rate * a.grad
    return (unit(q) @ w.T + b + a * (unit(q) @ text)).detach()


def hoso(
    s: Tensor, q: Tensor, t: Tensor, *, visual: Callable[[Tensor, Tensor], Tensor], one_shot: float
) -> Tensor:
    """The blend of a visual score, visual(supports, queries), and the words' by the first shot of each class."""
    ratio = one_shot
    if s.shape[1] > 1:
        few, words = visual(s[:, 1:], s[:, 0]), word_logits(s[:, 0], t)
        losses = [
            float(F.cross_entropy(r * few + (1 - r) * words, torch.arange(len(s))))
            for r in (number / 100 for number in range(101))
        ]
        ratio = next(number for number, loss in enumerate(losses) if loss <= min(losses) + 1e-12) / 100
    return ratio * visual(s, q) + (1 - ratio) * word_logits(q, t)


def every_path(steps: int, others: int) -> Iterator[list[tuple[int, int]]]:
    """Every path from the first cell to the last, by a step, by an other, or by both."""

    def onwards(path: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        i, j = path[-1]
        if (i, j) == (steps - 1, others - 1):
            yield path
        for down, right in ((1, 1), (1, 0), (0, 1)):
            if i + down < steps and j + right < others:
                yield from onwards([*path, (i + down, j + right)])

    yield from onwards([(0, 0)])


def actalign(clip: Tensor, actions: Tensor, *, scale: float, bias: float) -> Tensor:
    """The mean affinity along the best of all paths of a clip [T, D] through sub-actions [M, D]."""
    affinity = torch.sigmoid(scale * unit(clip) @ unit(actions).T + bias)
    paths = [torch.stack([affinity[cell] for cell in path]) for path in every_path(*affinity.shape)]
    assert all(b[0] - a[0] <= 1 for path in every_path(2, 2) for a, b in pairwise(path))
    return max(paths, key=lambda path: float(path.sum())).mean()
