"""A table of docs/results from a real study: differences are those of compare, and what is not done is a dash."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests_support import synthetic_cache

from fsmm.studies.compare import compare
from fsmm.studies.grid.store import Study
from fsmm.studies.grid.sweep import sweep

ROOT = Path(__file__).resolve().parents[1]
STUDY = """
name: small
fixed: {dataset: toy, n_query: 3, n_way: 3, episodes: 300, modalities: "frame,audio"}
blocks:
  - name: heads
    variants:
      - {label: protonet, method: protonet}
      - {label: ridge, method: ridge}
    grid: {k_shot: [1, 2]}
  - name: later
    variants: [{label: protonet, method: protonet, seed: 1}]
"""


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module("study_table")
    sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    synthetic_cache(
        folder / "cache", dataset="toy", clips=12, streams={"frame/net": (1, 8), "audio/net": (1, 4)}
    )
    (folder / "small.yaml").write_text(STUDY)
    return sweep(folder / "small.yaml", folder / "cache", out=folder / "out", jobs=1, only=["heads"])


def test_a_cell_is_the_mean_and_its_paired_difference_over_clips(script: ModuleType, study: Study) -> None:
    cells = {(label, shots): cell for label, shots, cell in script.cells_of(study, "heads", "protonet")}
    assert list(cells) == [("protonet", 1), ("protonet", 2), ("ridge", 1), ("ridge", 2)]
    folders = {
        (row.varies["variant"], row.config["protocol"]["k_shot"]): study.run_folder(row) for row in study.done
    }
    for shots in (1, 2):
        base, ridge = cells["protonet", shots], cells["ridge", shots]
        assert (base.difference, base.half_width) == (None, None)
        assert ridge.difference == pytest.approx(
            ridge.value - base.value, abs=1e-5
        )  # accuracies are stored in float32
        (pair,) = compare([folders["ridge", shots], folders["protonet", shots]]).pairs
        assert pair.clips is not None
        assert ridge.half_width == (None if pair.clips.one_sided else pytest.approx(100 * pair.clips.ci95))


def test_a_cell_that_is_not_done_is_empty(script: ModuleType, study: Study) -> None:
    assert [cell for _, _, cell in script.cells_of(study, "later", "protonet")] == [script.UNDONE]
