"""The card of a data set: a paragraph from what the cache holds, and a folder that is a whole cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.origin import ClipSources, Origin
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.cache.upkeep.card import CARD, SUMS, card, write_card
from fsmm.cache.upkeep.verify import verify
from fsmm.cli import app
from fsmm.errors import UsageError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of three clips, one without a picture, and a log of two clips that were lost."""
    folder = tmp_path / "cache" / "toy"
    labels = LabelSet(["a", "b|c"], np.array([0, 1, 1]), splits={"default": np.array([1, 3])})
    catalog = Catalog("toy", ["x", "y", "z"], {"kind": labels}, "kind", attrs={"licence": "CC-BY-4.0"})
    replace(catalog, sources=ClipSources.of(Origin("folder", "/home/me/videos", "/home/me/videos"), 3)).write(
        folder
    )
    about = Provenance(
        "net",
        "frame",
        2,
        weights="lite",
        weights_sha256="ab" * 32,
        preprocessing="rgb 8",
        sampling="4 segments",
    )
    with StreamWriter(folder, about) as writer:
        writer.add("x", np.ones((4, 2)))
        writer.add("y", np.ones((4, 2)))
        writer.add("z", None)
    lines = [
        {"id": "q", "stage": "decode", "reason": "it is empty", "stream": ""},
        {"id": "r", "stage": "decode", "reason": "it is empty", "stream": ""},
        {"id": "x", "stage": "partial", "reason": "a frame is damaged", "stream": ""},
    ]
    (folder / "failures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "cache"


def test_the_paragraph_says_all_that_made_the_features(cache: Path) -> None:
    text = card(cache, None, {"lite": "Apache-2.0"}).paragraph()
    for part in (
        "3 clips of toy",
        "frame/net (weights lite, SHA-256 abababababababab)",
        "4 x 2 numbers stored as float16 for 2 clips, absent in 1: rgb 8; 4 segments",
        "Lost clips: 2 could not be decoded (it is empty (2))",
        "The data set's licence: CC-BY-4.0",
        "Licences of weights: net: Apache-2.0",
    ):
        assert part in text


def test_the_folder_is_a_whole_cache_without_places_of_this_machine(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_card(cache, out, card(cache, "toy", {}))
    assert verify(out).ok
    assert Catalog.read(out / "toy").clip_id == ["x", "y", "z"]
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"/home/me" not in written
    assert not (out / "toy" / "failures.jsonl").exists()
    for line in (out / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
        assert digest in (out / CARD).read_text()


def test_the_front_matter_is_yaml(cache: Path, tmp_path: Path) -> None:
    write_card(cache, tmp_path / "out", card(cache, "toy", {}))
    front = yaml.safe_load((tmp_path / "out" / CARD).read_text().split("---\n")[1])
    assert front["license"] == "CC-BY-4.0"
    assert "net" in front["tags"]


def test_a_folder_that_is_there_is_left_alone(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_card(cache, tmp_path / "out", card(cache, "toy", {}))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_the_command_prints_the_paragraph_or_one_document(cache: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["cache", "card", "--cache", str(cache)])
    assert said.exit_code == 0, said.output
    assert said.output.startswith("Features of the 3 clips of toy")
    place = ["--cache", str(cache), "--out", str(tmp_path / "out"), "--json"]
    document = json.loads(CliRunner().invoke(app, ["cache", "card", *place]).output)
    assert document["lost"] == {"decode": 2}
    assert document["files"][0] == str(tmp_path / "out" / CARD)
