"""The tables of the frontier come from the runs: accuracies, differences, order certificates and stress curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests_support import script, synthetic_cache

from fsmm.studies.compare import compare
from fsmm.studies.grid.spec import read_study_file
from fsmm.studies.grid.store import Row, Study
from fsmm.studies.grid.sweep import sweep

ROOT = Path(__file__).resolve().parents[1]
HEADS, ORDER, STRESS = (script(f"frontier_{name}") for name in ("heads", "order", "stress"))
STUDY = """
name: small
fixed: {dataset: toy, n_query: 3, n_way: 5, episodes: 300, modalities: frame}
blocks:
  - name: utd
    variants:
      - {label: protonet, method: protonet}
      - {label: nearest, method: nearest}
      - {label: bdcspn, method: bdcspn}
    grid: {k_shot: [1, 5]}
  - name: classes
    fixed: {k_shot: 1}
    grid: {method: [protonet, bdcspn], query_classes: [null, 1, 2]}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    synthetic_cache(folder / "cache", dataset="toy", clips=12, streams={"frame/net": (1, 8)}, noise=2.0)
    (folder / "small.yaml").write_text(STUDY)
    return sweep(folder / "small.yaml", folder / "cache", out=folder / "out", jobs=1)


def values(tables: Any, name: str) -> dict[tuple[str, str], Any]:
    """The figures of a table by row and column."""
    return {(figure.row, figure.column): figure for figure in tables.figures if figure.table == name}


def test_heads_stand_beside_the_best_free_row(study: Study) -> None:
    tables = HEADS.Tables(page="frontier", commit=None)
    HEADS.head_tables(tables, study, machine="two cores")
    runs = {
        (row.varies["variant"], row.config["protocol"]["k_shot"]): row
        for row in study.done
        if row.block == "utd"
    }
    for shots in (1, 5):
        accuracy = {
            label: 100 * study.metrics(runs[label, shots])["accuracy"] for label, k in runs if k == shots
        }
        free = max(("protonet", "nearest"), key=lambda label: accuracy[label])
        (pair,) = compare([study.run_folder(runs[label, shots]) for label in ("bdcspn", free)]).pairs
        task = f"UTD-MHAD, {shots}-shot"
        assert values(tables, "frontier-utd")["bdcspn", f"{shots}-shot"].value == pytest.approx(
            accuracy["bdcspn"], abs=1e-3
        )
        found = values(tables, "frontier-free")["bdcspn", task]
        assert found.value == pytest.approx(100 * pair.difference, abs=1e-3)
        wins = values(tables, "frontier-wins")
        assert wins[task, "best free row"].note == f"({free})"
        assert pair.clips is not None
        assert found.interval == pytest.approx(100 * pair.clips.ci95, abs=1e-3)
        verdict = "surely above it" if pair.difference > pair.clips.ci95 else "not told apart"
        verdict = "surely below it" if pair.difference < -pair.clips.ci95 else verdict
        assert wins[task, verdict].value == 1
        assert wins[f"demo, {shots}-shot", verdict].value is None, "what is not done is a dash"
    assert values(tables, "frontier-time")["bdcspn", "UTD-MHAD, 5-shot"].value == pytest.approx(
        study.metrics(runs["bdcspn", 5])["eval_seconds"], abs=1e-3
    )


def test_classes_that_need_order_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(name: str, shuffled: float, width: float) -> dict[str, Any]:
        changes = dict.fromkeys(("shuffled", "reversed", "single step"), 0.0)
        return {
            "name": name,
            "accuracy": {"in order": 0.9, **dict.fromkeys(changes, 0.9), "shuffled": 0.9 - shuffled},
            "loss": {**changes, "shuffled": shuffled},
            "interval": {**changes, "shuffled": width},
            "needs_order": shuffled > width,
        }

    planned = certificates_of_the_study()
    assert [(block, len(rows)) for block, rows in planned.items()] == [
        ("utd-certificate", 6), ("ave28-certificate", 6), ("demo-certificate", 6), ("demo_order-certificate", 2)
    ]  # fmt: skip
    done = [row for row in planned["utd-certificate"] if row.config["protocol"]["class_split"] == "s0"]
    rows = [row("sit", 0.02, 0.03), row("wave", 0.3, 0.1), row("all classes", 0.16, 0.2)]
    monkeypatch.setattr(Study, "done", done)
    monkeypatch.setattr(Study, "metrics", lambda *_: {"order_certificate": {"episodes": 50, "rows": rows}})
    study = Study(folder=Path("x"), about={"name": "frontier"}, rows=done, failures={})
    tables = HEADS.Tables(page="frontier", commit=None)
    ORDER.order_tables(tables, study)
    classes = values(tables, "order-utd")
    assert [row for row, column in classes if column == "in order"] == ["wave", "sit"], (
        "the greatest loss comes first"
    )
    assert (classes["wave", "shuffled"].difference, classes["wave", "shuffled"].difference_widths.clips) == (
        -30,
        10,
    )
    assert classes["wave", "shuffled"].command == f"{HEADS.SWEEP} --only utd-certificate"
    assert [figure.note for figure in classes.values() if figure.note] == ["●"]
    every = values(tables, "order-all")
    assert every["UTD-MHAD", "shuffled"].difference_widths.classes == 20
    for row_name in ("UTD-MHAD", "UTD-MHAD, diagonal"):
        count = every[row_name, "classes that need order"]
        assert (count.value, count.note) == (1, "of 2")
    assert every["AVE-28", "in order"].value is None
    monkeypatch.setattr(Study, "done", [])
    nothing = HEADS.Tables(page="frontier", commit=None)
    ORDER.order_tables(nothing, study)
    assert nothing.layouts == {}, "tables whose certificates are not done stay as they were"


def certificates_of_the_study() -> dict[str, list[Row]]:
    """The rows of the study's order certificates by their blocks, for every class split that its file names."""
    document = read_study_file(ROOT / "examples" / "frontier.yaml")
    found: dict[str, list[Row]] = {}
    for block in document.file.blocks:
        if not block.name.endswith("-certificate"):
            continue
        for variant in block.variants:
            for split in block.grid.get("class_split", ["default"]):
                options = {"k_shot": block.fixed["k_shot"], "class_split": split}
                row = Row(
                    key=f"{block.name} {variant['label']} {split}",
                    block=block.name,
                    label="",
                    varies={"variant": variant["label"]},
                    config={"protocol": options, "method": variant["method"]},
                )
                found.setdefault(block.name, []).append(row)
        assert block.fixed["order_certificate"] is True
    return found


def test_stress_curves_are_drawn_from_their_table(study: Study) -> None:
    tables = HEADS.Tables(page="frontier", commit=None)
    STRESS.stress_tables(tables, "toy", study.folder)
    found = values(tables, "stress-toy-1-shot")
    runs = {
        (row.config["method"], row.config["protocol"]["query_classes"]): 100 * study.metrics(row)["accuracy"]
        for row in study.done
        if row.block == "classes"
    }
    for (method, classes), accuracy in runs.items():
        column = "even" if classes is None else f"{classes} classes"
        assert found[method, column].value == pytest.approx(accuracy, abs=1e-3)
    data = STRESS.Data(tables.layouts, tables.figures)
    ((path, text),) = STRESS.draw(data).items()
    assert path.name == "stress-toy.svg"
    assert text.count("<polyline") == 2
    assert ">protonet<" in text
