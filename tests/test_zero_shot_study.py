"""Figures of the zero-shot study that were measured elsewhere take their places beside those that stay."""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module("zero_shot_study")
    sys.path.remove(str(ROOT / "scripts"))


def test_figures_from_elsewhere_are_recorded_with_this_commit(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.json")
    monkeypatch.setattr(script, "commit", lambda: "c0ffee")
    table = script.Table(name="zero-shot-splits", columns=("accuracy",), digits=1)
    base = np.array([0.5, 0.6, 0.4])
    here = Namespace(into=None)
    rows = [script.row_of(name, values, base) for name, values in (("map", base), ("old", base**2))]
    script.store(here, [table], rows)
    away = Namespace(into=tmp_path / "away.json")
    better = base + np.array([0.1, 0.2, 0.3])
    script.store(away, [table], [script.row_of("old", better, base), script.row_of("new", base, base)])
    assert {figure.commit for figure in script.read_file(away.into).figures} == {None}
    script.record([away.into])
    found = {figure.row: figure for figure in script.read_file(tmp_path / "page.json").figures}
    assert list(found) == ["map", "old", "new"]
    assert (found["old"].value, found["old"].difference) == (70.0, 20.0)
    assert {figure.commit for figure in found.values()} == {"c0ffee"}


def test_the_splits_are_the_stated_ones(script: ModuleType) -> None:
    base, unseen = script.split(3)
    order = np.random.default_rng(3).permutation(28)
    assert (sorted(order[:8]), sorted(order[8:])) == (unseen, base)
