"""ECKPN before training, as arithmetic on inner products: the rule that remains while all learned updates are zero.

It gives the logits of an untrained head with ``start=similarity`` (a test compares the two) at a small part of the
cost, since features are read once, for their inner products. So many settings can be tried on the same tasks.

In shapes B is the number of tasks, N that of classes, R that of nodes (supports class by class, then queries), Q that
of queries and D the width of features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .eckpn_class import assignment, class_weights, edge_votes
from .eckpn_graph import first_adjacency, renormalised
from .eckpn_settings import MASS, Rule


@dataclass(frozen=True, kw_only=True)
class Task:
    """B tasks in inner products, all of whose clips are present."""

    gram: Tensor
    """[B, R + N, R + N] of all nodes and then of what the words say of each class; [B, R, R] without words."""
    ways: int
    """The number N of classes."""
    shots: int
    """The number of supports of a class."""
    nodes: int
    """The number R of nodes."""

    @property
    def supports(self) -> int:
        return self.ways * self.shots

    def label(self) -> Tensor:
        """The classes int64 [N*K] of the supports."""
        return torch.arange(self.ways, device=self.gram.device).repeat_interleave(self.shots)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The instance graph of B tasks after its last layer."""

    mixed: Tensor
    """Each node as a mixture of the features of all nodes, [B, R, R]."""
    p: Tensor
    """The assignment of all nodes to classes, [B, R, N]."""
    near: Tensor
    """The inner products of the query nodes with all points of the task, [B, Q, R + N]."""
    square: Tensor
    """The squared lengths of the query nodes, [B, Q, 1]."""


def task_of(x: Tensor, images: Tensor | None, *, ways: int, shots: int) -> Task:
    """The task of nodes x [B, R, D], in units of their mean squared distance.

    images: what its words say of each class, [B, N, D], or None.
    """
    points = x if images is None else torch.cat([x, images], 1)
    gram, nodes = points @ points.transpose(1, 2), x.shape[1]
    inner = gram[:, :nodes, :nodes]
    spread = inner.diagonal(dim1=1, dim2=2).sum(1) - inner.sum((1, 2)) / nodes
    unit = (2 * spread / (nodes - 1)).clamp(min=1e-12)[:, None, None]
    return Task(gram=gram / unit, ways=ways, shots=shots, nodes=nodes)


def graph_of(task: Task, rule: Rule, *, layers: int, masks: bool) -> Graph:
    """The instance graph of a task, by ``layers`` comparisons.

    masks: whether edges are multiplied by the previous adjacency.
    """
    inner, label = task.gram[:, : task.nodes, : task.nodes], task.label()
    present = torch.ones(inner.shape[:2], dtype=torch.bool, device=inner.device)
    adjacency = first_adjacency(label, present, inner.dtype)
    mixed = torch.eye(task.nodes, dtype=inner.dtype, device=inner.device).expand_as(inner)
    product = score = inner
    for _ in range(layers):
        square = product.diagonal(dim1=1, dim2=2)
        distance = (square[:, :, None] - 2 * product + square[:, None]).clamp(min=0)
        score = rule.sharpness / 3 - rule.sharpness * distance
        adjacency = renormalised(score[:, None], adjacency if masks else None, present)[:, 0]
        if rule.blend:
            mixed = mixed + rule.blend * (adjacency @ mixed - mixed)
            product = mixed @ inner @ mixed.transpose(1, 2)
    votes = F.log_softmax(edge_votes(score, label, present, task.ways), -1)
    query = mixed[:, task.supports :]
    near = query @ task.gram[:, : task.nodes]
    return Graph(
        mixed=mixed,
        p=assignment(votes.exp(), label, present),
        near=near,
        square=(near[..., : task.nodes] * query).sum(-1, keepdim=True),
    )


def logits_of(graph: Graph, task: Task, rule: Rule) -> Tensor:
    """The logits [B, Q, N]: minus the scaled squared distances of the query nodes to the class nodes."""
    weight = class_weights(graph.p, task.supports, MASS[rule.query_mass])
    centre = weight.transpose(1, 2) @ graph.mixed
    if task.gram.shape[-1] > task.nodes:
        own = torch.eye(task.ways, dtype=centre.dtype, device=centre.device).expand(len(centre), -1, -1)
        centre = torch.cat([(1 - rule.word_weight) * centre, rule.word_weight * own], -1)
    product = graph.near @ centre.transpose(1, 2)
    length = (centre @ task.gram * centre).sum(-1)
    return -rule.sharpness * (graph.square - 2 * product + length[:, None])
