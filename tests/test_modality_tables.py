"""The tables of the presets missing and modality-table, from small studies of the same form."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.studies.compare import compare
from fsmm.studies.grid.store import Study
from fsmm.studies.grid.sweep import sweep

ROOT = Path(__file__).resolve().parents[1]
STUDY = """
name: small
fixed: {dataset: toy, n_query: 3, n_way: 3, k_shot: 2, episodes: 60}
blocks:
  - name: fillers
    variants: [{label: ProtoNet-EC, method: protonet, fusion: ec}]
    grid: {when_missing: [auto, match, zero], missing: [audio=0.5@query, audio=1]}
  - name: free
    variants: [{label: ridge, method: ridge}]
    grid: {support_modalities: [each, all], query_modalities: [each, all]}
"""


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module("modality_tables")
    sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    synthetic_cache(
        folder / "cache", dataset="toy", clips=12, streams={"frame/net": (1, 8), "audio/net": (1, 4)}
    )
    (folder / "small.yaml").write_text(STUDY)
    return sweep(folder / "small.yaml", folder / "cache", out=folder / "out", jobs=1)


def test_every_filler_stands_beside_the_default(script: ModuleType, study: Study) -> None:
    cells = {(each.row, each.column): each for each in script.fillers(study, "space-fillers")}
    assert len(cells) == 2 * 3
    rows = {
        row.config["when_missing"]: row
        for row in study.done
        if row.block == "fillers" and script.lacking(row) == "50 % of queries without audio"
    }
    (pair,) = compare([study.run_folder(rows[rule]) for rule in ("match", "auto")]).pairs
    found = cells["50 % of queries without audio", "match"]
    assert found.difference == pytest.approx(100 * pair.difference, abs=0.01)
    assert cells["100 % of all clips without audio", "auto"].details == "ProtoNet-EC"


def test_the_law_keeps_what_speaks_most_against_the_default(script: ModuleType, study: Study) -> None:
    law = {(each.details, each.column): each for each in script.law(study, "space-law")}
    differences = [
        each
        for each in script.fillers(study, "space-fillers")
        if each.column == "zero" and "of queries" in each.row
    ]
    assert law["queries", "zero"].difference in [each.difference for each in differences]
    assert "queries" in {side for side, column in law if column == script.CHOSEN}, "match is chosen there"
    row = next(row for row in study.done if row.config["when_missing"] == "auto" and row.block == "fillers")
    scores = study.metrics(row)["when_missing_choice"]["scores_by_part"]["val classes"]
    side = row.config["protocol"]["missing"][0]["side"]
    keys = {rule: script.key_of(rule, side) for rule in script.RULES[1:]}
    singly = {rule: scores[key] for rule, key in keys.items() if key in scores}
    assert singly[script.chosen(study, row)] == max(singly.values())


def test_the_promise_is_counted_over_the_runs_of_the_default(script: ModuleType, study: Study) -> None:
    """What runs of the default say of a filler is what the filler's own run beside them shows."""
    cells = {(each.details, each.column): each.value for each in script.promise(study, "space-promise")}
    by_task = script.by_task(study, "fillers")
    for side, word in script.SIDES.items():
        tasks = [rows for rows in by_task.values() if script.side_of(rows["auto"]) == side]
        if not tasks:
            assert (word, "runs") not in cells
            continue
        assert cells[word, "runs"] == len(tasks)
        assert cells[word, "comparisons"] == len(tasks) * (len(script.RULES) - 1)
        for rows in tasks:
            said = {way["way"]: way for way in study.metrics(rows["auto"])["when_missing_choice"]["beside"]}
            assert [*said] == [*script.RULES[1:]]
            for rule in ("match", "zero"):
                (pair,) = compare([study.run_folder(rows[each]) for each in (rule, "auto")]).pairs
                assert said[rule]["gain"] == pytest.approx(pair.difference, abs=1e-6)


def test_a_filler_s_curve_has_its_recorded_accuracies_by_rate(script: ModuleType) -> None:
    """A panel a side and modality, and in it a line a rule, from whole clips on; the more is lost, the lower it is."""
    figure, filled, whole = script.figure, "space-fillers", "space-modalities"
    figures = [
        replace(
            figure((filled, f"{rate} % of queries without audio", "match"), 0.9 - rate / 500, episodes=10),
            details="ProtoNet-EC",
        )
        for rate in (70, 30, 100)
    ]
    figures.append(figure((whole, "ProtoNet-EC, 5-shot", "both -> both"), 0.9, episodes=10))
    text = script.filler_curves(script.Data({}, figures), ("match", "zero"))
    (line,) = re.findall(r'<polyline points="([^"]*)"', text)
    across, down = zip(*(map(float, point.split(",")) for point in line.split()))
    steps = np.diff(across) / (across[-1] - across[0])
    assert steps == pytest.approx([0.3, 0.4, 0.3], abs=1e-3)
    assert np.diff(down) / (down[-1] - down[0]) == pytest.approx([0.3, 0.4, 0.3], abs=2e-2)
    assert down[-1] > down[0], "lower accuracies stand lower"
    assert script.filler_curves(script.Data({}, []), ("match",)) is None


def test_the_modality_table_has_a_column_for_each_passage(script: ModuleType, study: Study) -> None:
    cells = list(script.modalities(study, "space-modalities"))
    assert {each.row for each in cells} == {"ridge, 2-shot"}
    assert {each.column for each in cells} == set(script.PASSAGES)
