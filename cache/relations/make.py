"""Making a relation graph of a data set: its classes and objects, looked up in a source of relations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...errors import CacheError, UsageError, unknown
from ..bank import choose_words, load_words
from ..catalog import Catalog
from ..schema import dataset_folder
from .conceptnet import ConceptNet
from .graph import RelationGraph
from .terms import RESERVED, SOURCES, words_of
from .wordnet import KINDS, WordNet

Edges = tuple[list[tuple[int, int, float]], list[str]]


@dataclass(frozen=True, kw_only=True)
class GraphReport:
    """A graph that was made."""

    dataset: str
    """The data set."""
    graph: RelationGraph
    """The graph."""
    path: Path
    """Its file."""
    unknown: list[str]
    """The names that the source does not know; these nodes have no edges."""

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "name": self.graph.name,
            "label_set": self.graph.label_set,
            "classes": len(self.graph.classes),
            "objects": len(self.graph.objects),
            "edges": len(self.graph.edges),
            "unknown": self.unknown,
            "origin": dict(self.graph.origin),
            "path": str(self.path),
        }


def make_graph(
    cache: Path,
    dataset: str | None = None,
    *,
    source: str = "words",
    data: Path | None = None,
    name: str | None = None,
    label_set: str | None = None,
    objects: Path | None = None,
    vectors: Path | None = None,
    words: str = "auto",
) -> GraphReport:
    """Make a relation graph of a data set's classes, and of objects, and store it beside the streams.

    source: "words" (cosines of class words), "wordnet" (``data``: the folder of its files) or "conceptnet" (``data``:
    the assertions or the archive that holds them). name: that of the graph; None for one by the source. objects: a text
    file with the name of one object a line, in the order of their scores; vectors: an npz with the arrays ``words`` and
    ``vec``, from which objects get word vectors. words: the word stream of the classes.
    Raises UsageError and CacheError where something is lacking.
    """
    if source not in SOURCES:
        raise unknown("source of relations", source, SOURCES)
    name = name or ("word-likeness" if source == "words" else source)
    if name in RESERVED:
        raise UsageError(
            f"{name!r} is what heads call a graph that needs no file; give another name by --name."
        )
    folder = dataset_folder(cache, dataset)
    catalog = Catalog.read(folder)
    label_set = label_set or catalog.default_label_set
    labels = catalog.labels(label_set)
    things = [] if objects is None else read_objects(objects)
    texts = [*labels.words, *things]
    known = None if vectors is None else vectors_of(things, vectors)
    if source == "words":
        if things and known is None:
            raise UsageError(
                "Edges by words need word vectors of the objects; give an npz with the arrays words and vec by "
                "--vectors."
            )
        stream = choose_words(folder, words)
        if stream is None:
            raise CacheError(
                f"Dataset {folder.name!r} has no class words; extract or import a word stream first."
            )
        held = load_words(folder, stream, label_set, labels.class_names).numpy()
        edges, lacking = word_edges(held, known)
        origin = {"source": "words", "stream": str(stream)}
    else:
        edges, lacking, origin = _looked_up(source, data, texts)
    graph = RelationGraph(
        name=name,
        label_set=label_set,
        classes=list(labels.class_names),
        objects=things,
        edges=edges,
        vectors=None if known is None else known.tolist(),
        origin=origin,
    )
    return GraphReport(dataset=folder.name, graph=graph, path=graph.save(folder), unknown=lacking)


def _looked_up(
    source: str, data: Path | None, texts: Sequence[str]
) -> tuple[list[tuple[int, int, float]], list[str], dict[str, str]]:
    """Edges between nodes of these names, the names that are not known, and the origin, from a source on this disk."""
    if data is None:
        what = "the folder of WordNet's files" if source == "wordnet" else "the assertions of ConceptNet"
        raise UsageError(f"--source {source} needs {what}; give it by --data.")
    files = [data / f"{part}.{kind}" for kind in KINDS for part in ("index", "data")]
    found = WordNet(data).edges(texts) if source == "wordnet" else ConceptNet(data).edges(texts)
    digest = _sha256(files if source == "wordnet" else [data])
    return *found, {"source": source, "file": data.name, "sha256": digest}


def word_edges(classes: np.ndarray, objects: np.ndarray | None) -> Edges:
    """Edges by the likeness of words: cosines of vectors of length one, centred by the classes' mean, where above 0.

    classes: vectors [C, E]; objects: [O, E], or None.
    """
    unit = F.normalize(torch.from_numpy(np.asarray(classes, np.float64)), dim=-1)
    node = unit - unit.mean(0)
    if objects is not None:
        if objects.shape[1] != classes.shape[1]:
            raise UsageError(
                f"The vectors of the objects have {objects.shape[1]} numbers and those of the classes "
                f"{classes.shape[1]}; give vectors of the same kind by --vectors."
            )
        more = F.normalize(torch.from_numpy(np.asarray(objects, np.float64)), dim=-1) - unit.mean(0)
        node = torch.cat([node, more])
    node = F.normalize(node, dim=-1)
    near = torch.triu(node @ node.T, 1)
    return [(int(a), int(b), round(float(near[a, b]), 6)) for a, b in (near > 1e-6).nonzero().tolist()], []


def read_objects(path: Path) -> list[str]:
    """The names of objects, one a line. Raises UsageError where the file cannot be read or names one twice."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"The objects {str(path)!r} cannot be read ({reason}).") from None
    if not names or len(set(names)) < len(names):
        raise UsageError(f"{str(path)!r} must name each object once, one a line.")
    return names


def vectors_of(names: Sequence[str], path: Path) -> np.ndarray:
    """The mean vector [O, E] of the words of each name, from the arrays ``words`` [V] and ``vec`` [V, E] of an npz.

    Raises UsageError where the file cannot be read, or has no word of a name.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            row = {str(word): i for i, word in enumerate(arrays["words"].tolist())}
            table = np.asarray(arrays["vec"], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{str(path)!r} is not an npz with the arrays words and vec ({error}).") from None
    if table.ndim != 2 or len(table) < len(row) or not np.isfinite(table).all():
        raise UsageError(f"The array vec of {str(path)!r} must hold one finite vector for each of its words.")
    found = []
    for name in names:
        rows = [row[word] for word in words_of(name) if word in row]
        if not rows:
            raise UsageError(f"{str(path)!r} has no vector for any word of object {name!r}.")
        found.append(table[rows].mean(0))
    return np.stack(found) if found else np.zeros((0, table.shape[1]), np.float32)


def _sha256(files: Sequence[Path]) -> str:
    """The SHA-256 of files, one after another, in hex."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
