"""Heads that need class words refuse classes without them; the others do without."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests_support import flip, synthetic_cache

from fsmm.cache.catalog import Catalog
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.errors import CacheError
from fsmm.runs.banks import Banks
from fsmm.runs.job import Place
from fsmm.runs.spec import RunSpec


def test_damaged_val_clips_are_refused_and_not_taken_for_none(tmp_path: Path) -> None:
    root = synthetic_cache(tmp_path, classes=6, clips=4)
    bytes_of_a_clip = 4 * 16 * 4
    flip(
        root / "toy/streams/frame/net/00000.h5", "features", 10 * bytes_of_a_clip
    )  # of the third class, a val class
    spec, place = RunSpec(method="relation", modalities=("frame",)), Place(cache=root)
    banks = Banks(spec, place)
    assert len(banks.base) == 8
    with pytest.raises(CacheError, match="is damaged"):
        _ = banks.val
    with pytest.raises(CacheError, match="is damaged"):
        Banks(replace(spec, normalise="auto"), place)
    catalog = Catalog.read(root / "toy")
    catalog.label_sets["event"].splits["default"][2:4] = 0
    catalog.write(root / "toy")
    assert Banks(spec, place).val is None


def test_only_heads_that_need_class_words_refuse_a_class_without(tmp_path: Path) -> None:
    root = synthetic_cache(tmp_path, classes=6, clips=4)
    shutil.rmtree(root / "toy" / "streams" / "word")
    with StreamWriter(root / "toy", Provenance("vec", "word", 2, axis="class")) as writer:
        writer.add("event/class 0", np.ones((1, 2)))
    place = Place(cache=root)
    assert Banks(RunSpec(method="protonet"), place).test.notes == []
    optional = Banks(RunSpec(method="eckpn"), place).test
    assert optional.words is None
    assert "no words for class" in optional.notes[0]
    with pytest.raises(CacheError, match=r"'ridge-words' needs class words.*'class 4'"):
        Banks(RunSpec(method="ridge-words"), place)
