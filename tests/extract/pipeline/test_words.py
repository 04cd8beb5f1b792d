"""Word streams: one row a class, unknown words absent, changed words made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from extract_support import Letters, rows

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import StreamName
from fsmm.cache.stream import stream_provenance
from fsmm.extract.pipeline import class_words as module
from fsmm.extract.pipeline.class_words import Words, embed_words, unknown_words
from fsmm.extract.pipeline.lane import Clock

STREAM = "word/letters"


def catalog(words: dict[str, str], also: dict[str, str] | None = None) -> Catalog:
    sets = {"kind": words, **({"mood": also} if also else {})}
    label_sets = {
        name: LabelSet(list(texts), np.zeros(1, np.int32), list(texts.values()))
        for name, texts in sets.items()
    }
    return Catalog("toy", ["clip"], label_sets, "kind")


def embed(folder: Path, words: dict[str, str], also: dict[str, str] | None = None) -> tuple[Words, Letters]:
    encoder = Letters()
    return embed_words(
        folder=folder, catalog=catalog(words, also), encoder=encoder, dtype="float32", clock=Clock()
    ), encoder


def letters(text: str) -> list[list[float]]:
    return [[float(text.count(c)) for c in "aei"]]


def test_each_class_of_each_label_set_has_a_row(tmp_path: Path) -> None:
    result, _ = embed(tmp_path, {"Cat": "a cat", "a/b": "eel"}, {"Cat": "a big cat"})
    got = rows(tmp_path, STREAM)
    assert {key: value.tolist() for key, value in got.items() if value is not None} == {
        "kind/Cat": letters("a cat"),
        "kind/a/b": letters("eel"),
        "mood/Cat": letters("a big cat"),
    }
    assert (result.written, result.held, result.unknown) == (3, 0, [])
    provenance = stream_provenance(tmp_path, StreamName.parse(STREAM))
    assert provenance is not None
    assert provenance.axis == "class"


def test_unknown_words_are_absent_and_told(tmp_path: Path) -> None:
    result, _ = embed(tmp_path, {"x": "zzz", "y": "tea"})
    assert rows(tmp_path, STREAM)["kind/x"] is None
    assert result.unknown == ["kind/x"]
    assert "'kind/x'" in unknown_words(StreamName.parse(STREAM), result)
    assert unknown_words(StreamName.parse(STREAM), Words()) == ""


def test_only_what_is_missing_is_embedded(tmp_path: Path) -> None:
    embed(tmp_path, {"x": "aa", "y": "tea"})
    result, encoder = embed(tmp_path, {"x": "aa", "y": "tea", "z": "pie"})
    assert encoder.seen == ["pie"]
    assert (result.written, result.held) == (1, 2)
    assert set(rows(tmp_path, STREAM)) == {"kind/x", "kind/y", "kind/z"}


@pytest.mark.parametrize("per_shard", [1, 2, 256])
def test_changed_words_are_embedded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_shard: int
) -> None:
    monkeypatch.setattr(module, "_SHARD_ROWS", per_shard)
    embed(tmp_path, {"w": "i", "x": "aa", "y": "tea", "z": "pie"})
    changed = {"w": "i", "x": "aa", "y": "coffee", "z": "pie"}
    embed(tmp_path, changed)
    got = rows(tmp_path, STREAM)
    assert {key: value.tolist() for key, value in got.items() if value is not None} == {
        f"kind/{name}": letters(text) for name, text in changed.items()
    }
