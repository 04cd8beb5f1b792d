"""Limited-memory BFGS for many small problems at once (Liu and Nocedal, Mathematical Programming 1989).

Each problem of a batch has its own history, its own line search and its own end: a problem that has converged stays
where it is, so that its solution does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Point(NamedTuple):
    """A function at x [B, P]: value [B], gradient [B, P], and the gradient preconditioned (M^-1 gradient) [B, P].

    With the preconditioner M the steps are those of plain L-BFGS in coordinates where M is the identity.
    """

    value: Tensor
    gradient: Tensor
    conditioned: Tensor

    def squared_norm(self) -> Tensor:
        """The squared length <gradient, M^-1 gradient> [B] of the preconditioned gradient."""
        return (self.gradient * self.conditioned).sum(-1)


class _Pair(NamedTuple):
    """One step of the history.

    s: the change of x; y: the change of the gradient, and preconditioned; inverse: 1 / <s, y>, or 0 for no step.
    """

    s: Tensor
    y: Tensor
    conditioned: Tensor
    inverse: Tensor


def minimise(
    function: Callable[[Tensor], Point],
    start: Tensor,
    tolerance: Tensor,
    max_iter: int = 100,
    memory: int = 8,
) -> Tensor:
    """x [B, P] where each problem's preconditioned gradient norm is at most ``tolerance`` [B], from ``start`` [B, P].

    A problem also ends where its line search finds no smaller value (the limit of the precision), or after
    ``max_iter`` iterations.
    """
    x, current = start, function(start)
    history: list[_Pair] = []
    active = current.squared_norm() > tolerance.square()
    for _ in range(max_iter):
        if not active.any():
            break
        step = _direction(current, history)
        x_new, new, moved = _line_search(function, x, current, step, active)
        s, y, conditioned = x_new - x, new.gradient - current.gradient, new.conditioned - current.conditioned
        product = (s * y).sum(-1)
        # A problem that did not move contributes nothing: weight zero instead of 1 / 0.
        inverse = torch.where(product > 0, 1 / product.clamp(min=torch.finfo(x.dtype).tiny), 0.0)
        history = [*history[-(memory - 1) :], _Pair(s, y, conditioned, inverse)]
        x, current = x_new, new
        active = active & moved & (current.squared_norm() > tolerance.square())
    return x


def _direction(current: Point, history: list[_Pair]) -> Tensor:
    """The next step [B, P]: minus the estimated inverse Hessian times the gradient, by the two-loop recursion."""
    if not history:
        return -current.conditioned / current.squared_norm().sqrt().clamp(min=1.0)[:, None]
    q, r = current.gradient, current.conditioned
    shares = []
    for pair in reversed(history):
        share = (pair.inverse * (pair.s * q).sum(-1))[:, None]
        q, r = q - share * pair.y, r - share * pair.conditioned
        shares.append(share)
    last = history[-1]
    curvature = last.inverse * (last.y * last.conditioned).sum(-1)
    r = r / torch.where(curvature > 0, curvature, 1.0)[:, None]
    for pair, share in zip(history, reversed(shares)):
        r = r + pair.s * (share - (pair.inverse * (pair.y * r).sum(-1))[:, None])
    return -r


def _line_search(
    function: Callable[[Tensor], Point],
    x: Tensor,
    current: Point,
    step: Tensor,
    active: Tensor,
    halvings: int = 20,
) -> tuple[Tensor, Point, Tensor]:
    """The next x, the function there, and which problems moved, bool [B].

    Each problem's step is halved until the value falls enough (Armijo), where values are compared up to rounding.
    Inactive problems, and those without such a step, stay.
    """
    slope = (current.gradient * step).sum(-1)
    slack = 4 * torch.finfo(x.dtype).eps * current.value.abs()
    size = active.to(x.dtype)
    for _ in range(halvings):
        moved_x = x + size[:, None] * step
        new = function(moved_x)
        short = active & ~(new.value <= current.value + 1e-4 * size * slope + slack)
        if not short.any():
            break
        size = torch.where(short, size / 2, size)
    moved = active & ~short
    keep = moved[:, None]
    return (
        torch.where(keep, moved_x, x),
        Point(
            torch.where(moved, new.value, current.value),
            torch.where(keep, new.gradient, current.gradient),
            torch.where(keep, new.conditioned, current.conditioned),
        ),
        moved,
    )
