"""Merging parts gives the whole; contradictions are refused by the clip's name, before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.relations.graph import RelationGraph, graphs_of, read_graph
from fsmm.cache.schema import Provenance, StreamName, list_streams, shard_paths
from fsmm.cache.shard import read_shard
from fsmm.cache.stream import StreamWriter, stream_checks
from fsmm.cache.upkeep.merge import merge, unite
from fsmm.cache.upkeep.verify import verify
from fsmm.errors import FsmmError

FRAME = Provenance("net", "frame", 4, dtype="float32")
STREAM = StreamName("frame", "net")
NAMES = ["x", "y", "z"]


def part(
    root: Path,
    clips: list[int],
    *,
    provenance: Provenance = FRAME,
    value: Callable[[int], float] = float,
    label: Callable[[int], int] = lambda i: i % 3,
    names: list[str] = NAMES,
    **more: Any,
) -> Path:
    """A cache with clips of known features; clip 5 has no frames."""
    folder = root / "toy"
    ids = [f"c{i}" for i in clips]
    labels = LabelSet(names, np.array([label(i) for i in clips]), splits={"default": [1, 2, 3]})
    Catalog("toy", ids, {"s": labels}, "s", **more).write(folder)
    with StreamWriter(folder, provenance, max_clips=3) as writer:
        for i in clips:
            writer.add(f"c{i}", None if i == 5 else np.full((2, provenance.dim), value(i)), {"duration": i})
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_parts_make_the_whole_and_what_is_there_twice_is_dropped(tmp_path: Path) -> None:
    whole = part(tmp_path / "whole", list(range(10)))
    parts = [
        part(tmp_path / "a", [0, 1, 2, 3, 4]),
        part(tmp_path / "b", [3, 4, 5, 6]),
        part(tmp_path / "c", [6, 7, 8, 9]),
    ]
    report = merge(parts, tmp_path / "all")
    assert report.copied == {"toy/frame/net": 10}
    assert report.duplicates == {"toy/frame/net": 3}
    assert stream_checks(tmp_path / "all" / "toy", STREAM) == stream_checks(whole / "toy", STREAM)
    merged, catalog = Catalog.read(tmp_path / "all" / "toy"), Catalog.read(whole / "toy")
    assert merged.clip_id == catalog.clip_id
    assert np.array_equal(merged.labels().label, catalog.labels().label)
    assert verify(tmp_path / "all").findings == []
    one, other = (FeatureBank.load(r, split="all") for r in (whole, tmp_path / "all"))
    rows = one.label.new_tensor(range(9))
    assert one.fingerprint() == other.fingerprint()
    assert np.array_equal(
        one.tables["frame"].gather(rows).x.numpy(), other.tables["frame"].gather(rows).x.numpy()
    )
    shards = [read_shard(path) for path in shard_paths(tmp_path / "all/toy", STREAM)]
    facts = {key: seconds for s in shards for key, seconds in zip(s.key, s.facts["duration"])}
    assert facts == {f"c{i}": i for i in range(10)}


def test_merging_again_and_merging_into_a_part_change_nothing_more(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", [0, 1]), part(tmp_path / "b", [1, 2])
    merge([a], b)
    assert set(stream_checks(b / "toy", STREAM)) == {"c0", "c1", "c2"}
    before = stream_checks(b / "toy", STREAM)
    shards = {k: v for k, v in files(b).items() if "streams" in k}
    report = merge([a, a], b)
    assert sum(report.copied.values()) == 0
    assert stream_checks(b / "toy", STREAM) == before
    assert {k: v for k, v in files(b).items() if "streams" in k} == shards


def test_streams_that_only_one_machine_made_are_added(
    tmp_path: Path, make_cache: Callable[..., Path]
) -> None:
    a, b = make_cache(), tmp_path / "b"
    shutil.copytree(a, b)
    shutil.rmtree(a / "toy/streams/audio")
    shutil.rmtree(b / "toy/streams/frame")
    merge([a, b], tmp_path / "all")
    assert [str(s) for s in list_streams(tmp_path / "all" / "toy")] == ["audio/net", "frame/net", "word/toy"]


CLASHES: list[tuple[dict[str, Any], str]] = [
    ({"value": lambda i: i + (i == 1)}, "Clip 'c1' has different features of stream frame/net"),
    ({"label": lambda i: 2}, "Clip 'c1' has another label of 's'"),
    ({"names": ["x", "y", "w"]}, "other classes or words"),
    ({"provenance": replace(FRAME, weights_sha256="cd")}, "weights_sha256 is '' here and 'cd' there"),
    ({"provenance": replace(FRAME, dim=5)}, "dim is 4 here and 5 there"),
    ({"clip_split": ["test", "test"]}, "Clip 'c1' has another clip split"),
    ({"facts": {"sha256": np.array([b"x" * 64] * 2, "S64")}}, "Clip 'c1' has another source file"),
]


@pytest.mark.parametrize(("given", "says"), CLASHES)
def test_contradictions_are_refused_before_anything_is_written(
    tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    a = part(
        tmp_path / "a", [0, 1], clip_split=["train"] * 2, facts={"sha256": np.array([b"a" * 64] * 2, "S64")}
    )
    b = part(tmp_path / "b", [1, 2], **given)
    for sources, target in (([a, b], tmp_path / "all"), ([b], a)):
        before = files(target)
        with pytest.raises(FsmmError, match=says):
            merge(sources, target)
        assert files(target) == before


def test_what_only_one_catalog_knows_is_taken() -> None:
    def catalog(ids: list[str], label: list[int], **more: Any) -> Catalog:
        return Catalog("toy", ids, {"s": LabelSet(NAMES, np.array(label))}, "s", **more)

    first = catalog(["a", "b"], [0, -1], path=["", "p"], attrs={"k": "1"})
    second = catalog(
        ["b", "c", "a"],
        [2, 1, -1],
        path=["q", "r", "s"],
        clip_split=["t", "", "t"],
        attrs={"k": "2", "l": "3"},
    )
    second.label_sets["extra"] = LabelSet(["e"], np.array([[1], [0], [0]]))
    both = unite([("one", first), ("two", second)])
    assert both.clip_id == ["a", "b", "c"]
    assert both.label_sets["s"].label.tolist() == [0, 2, 1]
    assert both.label_sets["extra"].label.tolist() == [[0], [1], [0]]
    assert both.path == ["s", "p", "r"]
    assert both.clip_split == ["t", "t", ""]
    assert both.attrs == {"k": "1", "l": "3"}


def test_failures_are_united_less_what_another_machine_could_read(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", [0, 1, 5]), part(tmp_path / "b", [2, 3])
    lines = [
        {"id": "c2", "stage": "decode", "reason": "torn", "stream": ""},  # b has it
        {"id": "c3", "stage": "encode", "reason": "short", "stream": "frame/net"},  # b has it
        {"id": "c0", "stage": "partial", "reason": "sound is damaged", "stream": ""},  # read, but not whole
        {"id": "c5", "stage": "absent", "reason": "no frames", "stream": "frame/net"},  # recorded as absent
        {"id": "c9", "stage": "decode", "reason": "torn", "stream": ""},
    ]
    for root in (a, b):
        (root / "toy/failures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    merge([a, b], tmp_path / "all")
    kept = [json.loads(line) for line in (tmp_path / "all/toy/failures.jsonl").read_text().splitlines()]
    assert kept == lines[2:]


def test_a_damaged_shard_is_not_spread(tmp_path: Path) -> None:
    a = part(tmp_path / "a", [0, 1])
    path = shard_paths(a / "toy", STREAM)[0]
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(FsmmError, match="is damaged; run `fsmm cache verify --repair`"):
        merge([a], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_what_cannot_be_merged_is_one_sentence(tmp_path: Path) -> None:
    a = part(tmp_path / "a", [0])
    with pytest.raises(FsmmError, match="both a source and the destination"):
        merge([a], a)
    with pytest.raises(FsmmError, match="holds dataset 'other'"):
        merge([a], tmp_path / "all", "other")
    with pytest.raises(FsmmError, match="holds any dataset"):
        merge([tmp_path / "nothing"], tmp_path / "all")


def test_groups_are_united_and_contradictions_refused(tmp_path: Path) -> None:
    sources = [
        part(tmp_path / "a", [0, 1], group=["film", ""]),
        part(tmp_path / "b", [1, 2], group=["film", "other"]),
    ]
    merge(sources, tmp_path / "out")
    assert Catalog.read(tmp_path / "out" / "toy").group == ["film", "film", "other"]
    part(tmp_path / "c", [2], group=["film"])
    with pytest.raises(FsmmError, match="'c2' has another group"):
        merge([tmp_path / "c"], tmp_path / "out")


def graph(root: Path, name: str, weight: float, origin: str = "here") -> RelationGraph:
    """A stored relation graph over the classes of ``part``."""
    made = RelationGraph(
        name=name, label_set="s", classes=NAMES, edges=[(0, 1, weight)], origin={"source": origin}
    )
    made.save(root / "toy")
    return made


def test_relation_graphs_come_along_and_equal_ones_are_one(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", [0, 1]), part(tmp_path / "b", [1, 2])
    alone, first = graph(a, "mine", 0.5), graph(a, "shared", 0.25)
    graph(b, "shared", 0.25, origin="elsewhere")
    report = merge([a, b], tmp_path / "all")
    assert report.graphs == {"toy": ["mine", "shared"]}
    merged = tmp_path / "all" / "toy"
    assert graphs_of(merged) == ["mine", "shared"]
    assert [read_graph(merged, name).edges for name in ("mine", "shared")] == [alone.edges, first.edges]
    before = files(tmp_path / "all")
    assert merge([a, b], tmp_path / "all").graphs == {"toy": []}
    assert files(tmp_path / "all") == before


@pytest.mark.parametrize("held", [False, True])
def test_relation_graphs_of_one_name_that_differ_are_refused_before_anything_is_written(
    tmp_path: Path, held: bool
) -> None:
    a, b = part(tmp_path / "a", [0, 1]), part(tmp_path / "b", [1, 2])
    graph(a, "shared", 0.5)
    graph(b, "shared", 0.25)
    target = a if held else tmp_path / "all"
    before = files(tmp_path)
    with pytest.raises(
        FsmmError, match="Relation graph 'shared' of dataset 'toy' has other nodes, edges or vectors"
    ):
        merge([b] if held else [a, b], target)
    assert files(tmp_path) == before


def test_a_damaged_relation_graph_stops_the_merge(tmp_path: Path) -> None:
    a = part(tmp_path / "a", [0, 1])
    (a / "toy" / "relations").mkdir()
    (a / "toy" / "relations" / "mine.json").write_text('{"kind": "fsmm-relations"}')
    with pytest.raises(FsmmError, match="is not a relation graph"):
        merge([a], tmp_path / "all")
    assert not (tmp_path / "all" / "toy").exists()
