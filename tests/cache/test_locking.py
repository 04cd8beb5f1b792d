"""A catalog is changed by one process at a time, and a catalog of an older schema by none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmm.cache import locking
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.locking import CATALOG, locked, update_catalog
from fsmm.errors import CacheError


def catalog(clips: list[str]) -> Catalog:
    return Catalog("toy", clips, {"s": LabelSet(["x"], np.zeros(len(clips)))}, "s")


_ADD = """
import sys
import numpy as np
from pathlib import Path
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.locking import update_catalog

for i in range(6):
    def add(held):
        clips = [*(held.clip_id if held else []), f"{sys.argv[2]}{i}"]
        return Catalog("toy", clips, {"s": LabelSet(["x"], np.zeros(len(clips)))}, "s")
    update_catalog(Path(sys.argv[1]), add)
"""


def test_writers_of_different_clips_lose_none(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    writers = [subprocess.Popen([sys.executable, "-c", _ADD, str(folder), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert sorted(Catalog.read(folder).clip_id) == [f"{name}{i}" for name in "ab" for i in range(6)]


def test_a_change_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(held: Catalog | None) -> Catalog:
        raise CacheError("No.")

    with pytest.raises(CacheError, match="No"):
        update_catalog(tmp_path / "toy", fail)
    assert not (tmp_path / "toy").exists()
    update_catalog(tmp_path / "toy", lambda held: catalog(["a"]))
    with pytest.raises(CacheError, match="No"):
        update_catalog(tmp_path / "toy", fail)
    assert Catalog.read(tmp_path / "toy").clip_id == ["a"]


def test_a_lock_that_is_never_given_back_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_PATIENCE", 0.05)
    with locked(tmp_path, CATALOG), pytest.raises(CacheError, match="Another process has held the catalog"):
        update_catalog(tmp_path, lambda held: catalog(["a"]))
    update_catalog(tmp_path, lambda held: catalog(["a"]))


def test_an_older_schema_is_read_and_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = replace(catalog(["a"]), schema=1)
    with pytest.raises(CacheError, match=r"schema 1 of an earlier fsmm .* `fsmm cache upgrade --cache"):
        locking.refuse_older(tmp_path / "toy", older)
