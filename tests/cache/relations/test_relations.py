"""Relation graphs: what the sources say of small worlds, and what is stored comes back or is refused."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsmm.cache.relations.conceptnet import MEMBER, ConceptNet
from fsmm.cache.relations.graph import RelationGraph, graphs_of, load_relations, path_of, read_graph
from fsmm.cache.relations.make import make_graph, read_objects, vectors_of, word_edges
from fsmm.cache.relations.wordnet import WordNet
from fsmm.errors import CacheError, UsageError

# A world of six senses: run (verb 1) -@> move (2) <@- walk (3); ball (noun 4) -@> thing (5) <@- bat (6).
INDEX = {
    "verb": "run v 1 1 @ 1 0 00000001\nmove v 1 0 1 0 00000002\nwalk v 1 1 @ 1 0 00000003\n",
    "noun": "ball n 1 1 @ 1 0 00000004\nthing n 1 0 1 0 00000005\nbat n 1 1 @ 1 0 00000006\n",
}
DATA = {
    "verb": "00000001 38 v 01 run 0 001 @ 00000002 v 0000 00 | go fast\n"
    "00000002 38 v 01 move 0 000 00 | change place\n"
    "00000003 38 v 01 walk 0 002 @ 00000002 v 0000 ! 00000001 v 0101 00 | go | slow\n",
    "noun": "00000004 06 n 01 ball 0 001 @ 00000005 n 0000 | round\n"
    "00000005 03 n 01 thing 0 000 | it\n"
    "00000006 06 n 01 bat 0 001 @ 00000005 n 0000 | a club\n",
}
FACTS = [
    ("UsedFor", "Bat", "Hit Ball"),
    ("IsA", "Ball", "Toy"),
    ("IsA", "Kite", "Toy"),
    ("Antonym", "Walk", "Run"),
]


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wordnet")
    for kind in ("noun", "verb", "adj", "adv"):
        licence = "  1 This software is licensed\n"
        (folder / f"index.{kind}").write_text(licence + INDEX.get(kind, ""))
        (folder / f"data.{kind}").write_text(licence + DATA.get(kind, ""))
    return folder


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conceptnet") / "facts.ndjson"
    path.write_text("".join(json.dumps({"rel": r, "start": a, "end": b}) + "\n" for r, a, b in FACTS))
    return path


def test_wordnet_relates_by_the_number_of_pointers_and_leaves_antonyms_out(wordnet: Path) -> None:
    edges, unknown = WordNet(wordnet).edges(["running", "walk", "moving", "ball", "qwerty"])
    assert edges == [(0, 1, pytest.approx(1 / 3)), (0, 2, 0.5), (1, 2, 0.5)]
    assert unknown == ["qwerty"]


def test_conceptnet_relates_by_assertions_and_shared_neighbours(facts: Path, tmp_path: Path) -> None:
    names = ["ball", "kite", "toys", "walk", "run"]
    edges, unknown = ConceptNet(facts).edges(names)
    assert edges == [(0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0)]
    assert unknown == ["walk", "run"]
    archive = tmp_path / "facts.tgz"
    with tarfile.open(archive, "w:gz") as tape:
        tape.add(facts, f"package/data/conceptnet/{MEMBER}")
    assert ConceptNet(archive).edges(names)[0] == edges


def test_sources_that_are_missing_or_strange_say_so_in_one_sentence(wordnet: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wordnet-base"):
        WordNet(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in wordnet.iterdir():
        (broken / path.name).write_text("run v two\n")
    with pytest.raises(UsageError, match="line 1 is not of the form"):
        WordNet(broken)
    with pytest.raises(UsageError, match="npm pack"):
        ConceptNet(tmp_path / "absent.tgz")
    for text in ("[1]\n", "not json\n", '{"rel": 1, "start": 2, "end": 3}\n', "[" * 100_000):
        (tmp_path / "odd").write_text(text)
        with pytest.raises(UsageError, match="line 1 is not an assertion"):
            ConceptNet(tmp_path / "odd")


def graph(**changes: Any) -> RelationGraph:
    given: dict[str, Any] = {
        "name": "g",
        "label_set": "event",
        "classes": ["a", "b", "c"],
        "objects": ["x"],
        "edges": [(0, 1, 0.5), (1, 3, 2.0)],
        "vectors": [[1.0, 2.0]],
        "origin": {"source": "made up"},
    }
    return RelationGraph(**{**given, **changes})


def test_a_stored_graph_comes_back_matched_by_the_names_of_classes(tmp_path: Path) -> None:
    graph().save(tmp_path)
    assert graphs_of(tmp_path) == ["g"]
    found = load_relations(tmp_path, "g", "event", ["new", "b", "a"])
    expected = torch.zeros(4, 4)
    expected[1, 2] = expected[2, 1] = 0.5
    expected[1, 3] = expected[3, 1] = 2.0
    assert torch.equal(found.weight, expected)
    assert found.vectors is not None
    assert found.vectors.tolist() == [[1.0, 2.0]]
    with pytest.raises(CacheError, match="of label set 'event', not 'other'"):
        load_relations(tmp_path, "g", "other", ["a"])
    with pytest.raises(UsageError, match="Did you mean 'g'"):
        read_graph(tmp_path, "gg")
    with pytest.raises(UsageError, match="not usable"):
        read_graph(tmp_path, "../g")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "other"),
        ("classes", [1]),
        ("edges", [[0, 9, 1.0]]),
        ("edges", [[1, 0, 1.0]]),
        ("edges", [[0, 1, -1.0]]),
        ("edges", [[0, True, 1.0]]),
        ("edges", [[0, 1, 1e999]]),
        ("vectors", [[1.0], [2.0]]),
        ("vectors", [["x"]]),
        ("origin", None),
    ],
)
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, key: str, value: object) -> None:
    path = graph().save(tmp_path)
    table = json.loads(path.read_text())
    del table["check"]
    path.write_text(json.dumps(table))
    assert read_graph(tmp_path, "g").edges == graph().edges, "a file of one's own has no digest"
    path.write_text(json.dumps({**table, key: value}))
    with pytest.raises(CacheError):
        read_graph(tmp_path, "g")


def test_no_flipped_bit_of_a_stored_graph_changes_an_edge_or_a_vector(tmp_path: Path) -> None:
    path = graph().save(tmp_path)
    whole, stored = path.read_bytes(), read_graph(tmp_path, "g")
    refused = 0
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            assert read_graph(tmp_path, "g") == stored
        except (CacheError, UsageError):
            refused += 1
    assert refused > 6 * len(whole)


def test_edges_by_words_are_centred_cosines() -> None:
    classes = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.1]])
    unit = classes / np.linalg.norm(classes, axis=1, keepdims=True)
    node = unit - unit.mean(0)
    node /= np.linalg.norm(node, axis=1, keepdims=True)
    edges, _ = word_edges(classes, None)
    expected = [
        (i, j, node[i] @ node[j]) for i in range(4) for j in range(i + 1, 4) if node[i] @ node[j] > 1e-6
    ]
    assert [(i, j) for i, j, _ in edges] == [(i, j) for i, j, _ in expected]
    assert np.allclose([w for *_, w in edges], [w for *_, w in expected], atol=1e-5)


def test_objects_and_their_vectors_are_read(tmp_path: Path) -> None:
    (tmp_path / "o.txt").write_text("cup\ntea pot\n\n")
    np.savez(tmp_path / "v.npz", words=np.array(["cup", "tea", "pot"]), vec=np.eye(3))
    names = read_objects(tmp_path / "o.txt")
    assert names == ["cup", "tea pot"]
    assert vectors_of(names, tmp_path / "v.npz").tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    with pytest.raises(UsageError, match="no vector for any word of object 'spoon'"):
        vectors_of(["spoon"], tmp_path / "v.npz")
    (tmp_path / "o.txt").write_text("cup\ncup\n")
    with pytest.raises(UsageError, match="once"):
        read_objects(tmp_path / "o.txt")
    assert path_of(tmp_path, "w") == tmp_path / "relations" / "w.json"
    with pytest.raises(UsageError, match="give another name"):
        make_graph(tmp_path, source="words", name="none")
