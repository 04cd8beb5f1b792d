"""Classifiers that a graph convolution makes of the words of classes: one row of weights a class.

Rows begin at a ridge regression from what the graph makes of the words of base classes to these classes' mean codes,
in closed form; the learned convolution adds to them and begins at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .class_graph import ClassGraph, Graph
from .growing import let_grow

SLOPE = 0.2  # The slope of the leaky ReLU below zero.


class ClassRows(nn.Module):
    """H1 = lrelu(A G0 W1), H2 = A H1 W2, added to A A G0 R, where the regression finds R.

    dim: the width D of the codes; hidden: that of H1; penalty: the ridge, relative to the mean square of a node.
    """

    slope: Tensor
    left_out: Tensor

    def __init__(self, word_dim: int, dim: int, *, hidden: int, penalty: float) -> None:
        super().__init__()
        self.penalty = penalty
        self.first = nn.Linear(word_dim, hidden, bias=False)
        self.second = nn.Linear(hidden, dim, bias=False)
        nn.init.zeros_(self.second.weight)
        self.register_buffer("slope", torch.zeros(word_dim, dim))
        self.register_buffer("left_out", torch.zeros(0, dim))
        let_grow(self, "left_out")

    @torch.no_grad()
    def fit(self, graph: ClassGraph, means: Tensor, present: Tensor) -> None:
        """Finds R, and what it says of each base class when that class is left out of the regression.

        means: the mean code of each base class [C, D]; present: which classes have a clip, bool [C].
        """
        node, edge = graph.memory()
        heard = (edge @ (edge @ node))[: graph.bases].double()
        x, y = heard[present], means[present].double()
        kernel = x @ x.T
        ridge = self.penalty * kernel.diagonal().mean().clamp(min=1e-12)
        inverse = torch.linalg.inv(kernel + ridge * torch.eye(len(x), dtype=x.dtype, device=x.device))
        alpha = inverse @ y
        self.slope = (x.T @ alpha).to(self.slope)
        left = (heard @ (x.T @ alpha)).to(self.left_out)
        left[present] = (y - alpha / inverse.diagonal()[:, None]).to(self.left_out)
        self.left_out = left

    def forward(self, graph: Graph, ways: int, same: Tensor | None = None) -> Tensor:
        """The rows [B, N, D] of the last ``ways`` nodes of graphs.

        same: which base classes these are, bool [B, N, C]; such a class gets the regression without itself, as novel
        classes do. None: every class gets the regression over all base classes.
        """
        heard = graph.edge @ (graph.edge @ graph.node)
        start = heard[:, -ways:] @ self.slope
        if same is not None:
            is_base = same.any(-1, keepdim=True)
            share = same.to(start.dtype) / same.sum(-1, keepdim=True).clamp(min=1)
            start = torch.where(is_base, share @ self.left_out, start)
        h = F.leaky_relu(graph.edge @ self.first(graph.node), SLOPE)
        return start + (graph.edge @ self.second(h))[:, -ways:]
