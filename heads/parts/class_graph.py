"""Graphs of classes and objects: who is related to whom, and what a graph convolution makes of the nodes.

The nodes of an episode's graph are the base classes, the objects of a relation graph where there is one, and the N
classes of the episode. Edges come from the likeness of words, or from a relation graph of the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...cache.relations.terms import RESERVED
from ...errors import UsageError
from .growing import let_grow

WORDS, NONE = RESERVED
"""The settings of ``graph`` that name no relation graph: edges by the likeness of words, or no edges."""
SAME = 1 - 1e-5  # Two classes whose unit words have at least this cosine are one class.


class Graph(NamedTuple):
    """Graphs of V nodes: their words [..., V, E], and how much each hears of each other, [..., V, V]."""

    node: Tensor
    edge: Tensor


class ClassGraph(nn.Module):
    """The words of base classes and objects, and the relations among all classes of a label set and the objects.

    source: ``words``, ``none``, or the name of a relation graph, which :meth:`fit` then takes from the base bank.
    """

    base_words: Tensor
    base_id: Tensor
    object_words: Tensor
    centre: Tensor
    relation: Tensor

    def __init__(self, word_dim: int, source: str) -> None:
        super().__init__()
        self.source = source
        self.register_buffer("base_words", torch.zeros(0, word_dim))
        self.register_buffer("base_id", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("object_words", torch.zeros(0, word_dim))
        self.register_buffer("centre", torch.zeros(word_dim))
        self.register_buffer("relation", torch.zeros(0, 0))
        let_grow(self, "base_words", "base_id", "object_words", "relation")

    @property
    def bases(self) -> int:
        """How many base classes are nodes."""
        return len(self.base_id)

    @property
    def objects(self) -> int:
        """How many objects are nodes."""
        return len(self.object_words)

    @torch.no_grad()
    def fit(self, base: FeatureBank) -> None:
        """Takes the words of the base classes and, for a relation graph, its edges and objects.

        Objects without words of their own get the mean of the words of the base classes that they are related to.
        Raises UsageError where base classes have no words, or the bank holds no relation graph.
        """
        if base.words is None:
            raise UsageError("A graph of classes needs class words; extract a word stream.")
        unit = F.normalize(base.words.to(self.centre), dim=-1)
        self.centre = unit.mean(0)
        self.base_words, self.base_id = self.read(base.words), base.class_id.clone()
        if self.source in (WORDS, NONE):
            return
        if base.relations is None:
            raise UsageError(
                f"The bank holds no relation graph {self.source!r}; load it with relations={self.source!r}."
            )
        self.relation = base.relations.weight.to(self.centre)
        if base.relations.vectors is not None:
            self.object_words = self.read(base.relations.vectors.to(self.centre))
        elif base.relations.objects:
            shared = self.relation[-len(base.relations.objects) :, self.base_id]
            self.object_words = F.normalize(shared @ self.base_words, dim=-1)

    def read(self, words: Tensor) -> Tensor:
        """Words [..., E] as nodes carry them: of length one, centred by those of the base classes, of length one."""
        return F.normalize(F.normalize(words.to(self.centre), dim=-1) - self.centre, dim=-1)

    def memory(self) -> Graph:
        """The graph of the base classes and the objects, [M, E] and [M, M]."""
        node = torch.cat([self.base_words, self.object_words])
        present = torch.ones(len(node), dtype=torch.bool, device=node.device)
        return Graph(node, hearing(self._weights(node, self._places(self.base_id)), present))

    def episode(self, words: Tensor, class_id: Tensor) -> Graph:
        """The graph of base classes, objects and the classes of episodes, whose nodes stand last.

        words: [B, N, E]; class_id: int64 [B, N]. A base class that is one of the episode's is left out as such.
        """
        own = self.read(words)
        known = torch.cat([self.base_words, self.object_words])
        node = torch.cat([known.expand(len(own), -1, -1), own], 1)
        place = torch.cat([self._places(self.base_id).expand(len(own), -1), self._known_ids(class_id)], 1)
        twice = self.same(own).any(1)
        there = torch.ones(node.shape[:2], dtype=torch.bool, device=node.device)
        there[:, : self.bases] = ~twice
        return Graph(node, hearing(self._weights(node, place), there))

    def relations(self, words: Tensor, class_id: Tensor) -> tuple[Tensor, Tensor]:
        """How related classes of episodes are to base classes and to each other, [B, N, C + N], each to itself 1.

        Objects are left out. The second value says which base classes are among the episode's, bool [B, C].
        """
        own = self.read(words)
        node = torch.cat([self.base_words.expand(len(own), -1, -1), own], 1)
        place = torch.cat([self._known_ids(self.base_id).expand(len(own), -1), self._known_ids(class_id)], 1)
        eye = torch.eye(node.shape[1], dtype=node.dtype, device=node.device)
        return (self._weights(node, place) + eye)[:, -own.shape[1] :], self.same(own).any(1)

    def same(self, own: Tensor) -> Tensor:
        """Which base classes the nodes own [..., N, E] are, by their words, bool [..., N, C]."""
        return own @ self.base_words.T >= SAME

    def _known_ids(self, class_id: Tensor) -> Tensor:
        """The ids of classes, -1 for those that the relation graph does not know."""
        return torch.where(class_id < len(self.relation) - self.objects, class_id, -1)

    def _places(self, base_id: Tensor) -> Tensor:
        """The rows of the known nodes in the relation graph, int64 [M]; -1 for none."""
        count = len(self.relation)
        objects = torch.arange(count - self.objects, count, device=base_id.device)
        return torch.cat(
            [self._known_ids(base_id), objects[-self.objects :] if self.objects else objects[:0]]
        )

    def _weights(self, node: Tensor, place: Tensor) -> Tensor:
        """The weights of edges [..., V, V], none of a node to itself; place: rows of the relation graph [..., V]."""
        eye = torch.eye(node.shape[-2], dtype=torch.bool, device=node.device)
        if self.source == NONE:
            return torch.zeros_like(eye, dtype=node.dtype)
        if self.source == WORDS:
            return (node @ node.transpose(-1, -2)).clamp(min=0).masked_fill(eye, 0.0)
        if not len(self.relation):
            return torch.zeros_like(eye, dtype=node.dtype)
        known = (place >= 0)[..., :, None] & (place >= 0)[..., None, :] & ~eye
        rows = place.clamp(min=0)
        return self.relation[rows[..., :, None], rows[..., None, :]] * known


def hearing(weight: Tensor, present: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 of weights A [..., V, V] without loops; rows and columns of absent nodes are zero.

    >>> hearing(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([True, True]))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    there = present.to(weight.dtype)
    eye = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)
    a = (weight + eye) * there[..., :, None] * there[..., None, :]
    root = a.sum(-1).clamp(min=1e-12).rsqrt() * there
    return a * root[..., :, None] * root[..., None, :]
