"""Heads that need class words refuse classes without them; the others do without."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.errors import CacheError
from fsmm.runs.banks import Banks
from fsmm.runs.job import Place
from fsmm.runs.spec import RunSpec


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
