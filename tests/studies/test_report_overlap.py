"""The report's section on classes known from pre-training: there where runs have both kinds, and with their figures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fsmm.studies.report.overlap import overlap_section


def study(*found: dict[str, Any] | None) -> Any:
    runs = [
        SimpleNamespace(
            metrics={"pretraining": one}, method="protonet", modalities=("frame",), folder=Path("x")
        )
        for one in found
    ]
    return SimpleNamespace(tasks=[SimpleNamespace(title="5-way", runs=runs)])


KNOWN = {
    "training_sets": ["kinetics-400"],
    "overlapping": {"archery": "archery (kinetics-400, same words)"},
    "classes_overlapping": 1,
    "classes_unseen": 2,
    "accuracy_overlapping": 0.9,
    "accuracy_unseen": 0.625,
}


def test_a_section_has_a_row_for_each_run_with_both_kinds() -> None:
    section = overlap_section(study(KNOWN, None, {**KNOWN, "classes_unseen": 0}))
    assert section is not None
    (table,) = section.tables
    assert table.rows == [("protonet", "frame", "kinetics-400", "1", "90.0", "2", "62.5")]
    assert "archery" in table.caption


def test_without_both_kinds_there_is_no_section() -> None:
    assert overlap_section(study(None, {**KNOWN, "classes_overlapping": 0})) is None
