"""Relation graphs: weighted edges between the classes of a label set and, where there are any, objects.

A graph is one JSON file in the folder ``relations`` of a data set, beside its streams, with its origin. It is read by
plain parsing, matched to classes by their names, and whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._version import __version__
from ...errors import CacheError, UsageError, unknown
from ...machine.checked import with_check, without_check
from ...machine.files import read_table, write_json
from ..schema import check_name
from .terms import RESERVED

if TYPE_CHECKING:  # A cache with graphs is merged without torch.
    import torch
    from torch import Tensor

RELATIONS = "relations"
"""The folder of the relation graphs of a data set."""
KIND = "fsmm-relations"
MOST_NODES = 50_000
"""Graphs of more nodes are refused: their weights would not fit the memory."""


@dataclass(frozen=True, kw_only=True)
class RelationGraph:
    """A relation graph as it is stored."""

    name: str
    """The name under which heads ask for it."""
    label_set: str
    """The label set of the classes."""
    classes: list[str]
    """The names of the classes, which are nodes 0, 1, …"""
    objects: list[str] = field(default_factory=list)
    """The names of the objects, whose nodes follow; the order is that of their scores."""
    edges: list[tuple[int, int, float]] = field(default_factory=list)
    """Pairs of nodes, the first below the second, and the weight of their edge, above 0."""
    vectors: list[list[float]] | None = None
    """The word vector of each object, or None where they have none."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """Facts about where the edges come from: the source, its file and hash, how names were looked up."""

    def save(self, folder: Path) -> Path:
        """Write the graph to the data set's folder and return its path. Raises CacheError where that fails."""
        path = path_of(folder, self.name)
        try:
            write_json(path, with_check(self._table()))
        except OSError as error:
            raise CacheError(f"{str(path)!r} cannot be written ({error.strerror}); make room.") from None
        return path

    def _table(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "label_set": self.label_set,
            "classes": self.classes,
            "objects": self.objects,
            "edges": [list(edge) for edge in self.edges],
            "vectors": self.vectors,
            "origin": {**self.origin, "fsmm_version": __version__},
        }


@dataclass(frozen=True, kw_only=True)
class Relations:
    """A relation graph over the L classes of a label set, in their order, and O objects."""

    weight: Tensor
    """The weights of the edges, float32 [L + O, L + O], symmetric; 0 where there is none."""
    objects: list[str]
    """The names of the O objects."""
    vectors: Tensor | None
    """The word vectors of the objects, float32 [O, E], or None."""

    def to(self, device: torch.device | str) -> Relations:
        vectors = None if self.vectors is None else self.vectors.to(device)
        return Relations(weight=self.weight.to(device), objects=self.objects, vectors=vectors)


def path_of(folder: Path, name: str) -> Path:
    """The file of a relation graph. Raises UsageError for a name that is no file name."""
    return folder / RELATIONS / f"{check_name('Relation graph', name)}.json"


def graphs_of(folder: Path) -> list[str]:
    """The names of a data set's relation graphs."""
    return sorted(path.stem for path in (folder / RELATIONS).glob("*.json"))


def read_graph(folder: Path, name: str) -> RelationGraph:
    """A relation graph of a data set.

    Raises UsageError for one that there is not, CacheError for a file that is not what a graph is.
    """
    path = path_of(folder, name)
    if not path.is_file():
        known = unknown(f"relation graph of dataset {folder.name!r}", name, [*RESERVED, *graphs_of(folder)])
        raise UsageError(f"{known} `fsmm cache graph` makes one.")
    try:
        table, fault = without_check(read_table(path, "relation graph", error=CacheError)), ""
    except CacheError as error:
        raise CacheError(f"{str(error).rstrip('.')}; make it again by `fsmm cache graph`.") from None
    except ValueError as error:
        fault = str(error)
    if fault := fault or _fault(table):
        raise CacheError(
            f"{str(path)!r} is not a relation graph ({fault}); make it again by `fsmm cache graph`."
        )
    return RelationGraph(
        name=name,
        label_set=table["label_set"],
        classes=table["classes"],
        objects=table["objects"],
        edges=[(int(a), int(b), float(w)) for a, b, w in table["edges"]],
        vectors=table["vectors"],
        origin=table["origin"],
    )


def graph_digest(folder: Path, name: str) -> str:
    """A digest of a data set's relation graph. Raises UsageError and CacheError as ``read_graph``."""
    graph = read_graph(folder, name)
    told = [graph.label_set, graph.classes, graph.objects, graph.edges, graph.vectors]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def load_relations(folder: Path, name: str, label_set: str, classes: Sequence[str]) -> Relations:
    """A relation graph of a data set over ``classes``, in their order; a class that it does not name has no edges.

    Raises UsageError where there is no such graph or it is of another label set, CacheError for a broken file.
    """
    import torch

    graph = read_graph(folder, name)
    if graph.label_set != label_set:
        raise CacheError(
            f"Relation graph {name!r} is of label set {graph.label_set!r}, not {label_set!r}; make one by "
            f"`fsmm cache graph --label-set {label_set}`."
        )
    row = {name: i for i, name in enumerate(classes)}
    place = [row.get(name, -1) for name in graph.classes]
    place += [len(classes) + i for i in range(len(graph.objects))]
    size = len(classes) + len(graph.objects)
    weight = torch.zeros(size, size)
    for a, b, w in graph.edges:
        if place[a] >= 0 and place[b] >= 0:
            weight[place[a], place[b]] = weight[place[b], place[a]] = w
    vectors = None if graph.vectors is None else torch.tensor(graph.vectors, dtype=torch.float32)
    return Relations(weight=weight, objects=graph.objects, vectors=vectors)


def _fault(table: Mapping[str, Any]) -> str:
    """What keeps a table from being a graph, as a clause; "" where nothing does."""
    texts = all(isinstance(table.get(key), str) for key in ("kind", "label_set"))
    lists = all(isinstance(table.get(key), list) for key in ("classes", "objects", "edges"))
    if not texts or not lists or table["kind"] != KIND or not isinstance(table.get("origin"), dict):
        return "a key is lacking or of another kind"
    names = [*table["classes"], *table["objects"]]
    if not all(isinstance(name, str) for name in names) or len(names) > MOST_NODES:
        return f"nodes are not texts, or more than {MOST_NODES:,}"
    if not all(_is_edge(edge, len(names)) for edge in table["edges"]):
        return "an edge is not two nodes and a weight above 0"
    vectors = table.get("vectors")
    if vectors is not None and not _are_vectors(vectors, len(table["objects"])):
        return "objects do not have one vector each, of one length"
    return ""


def _is_edge(edge: Any, nodes: int) -> bool:
    if not isinstance(edge, list) or len(edge) != 3:
        return False
    a, b, weight = edge
    ends = all(isinstance(x, int) and not isinstance(x, bool) for x in (a, b)) and 0 <= a < b < nodes
    return ends and isinstance(weight, (int, float)) and math.isfinite(weight) and weight > 0


def _are_vectors(vectors: Any, count: int) -> bool:
    if not isinstance(vectors, list) or len(vectors) != count:
        return False
    if not all(isinstance(v, list) and len(v) == len(vectors[0]) > 0 for v in vectors):
        return False
    return all(isinstance(x, (int, float)) and math.isfinite(x) for v in vectors for x in v)
