"""Reports: rows are the figures of the runs, marks those of a comparison, and each section has its figures."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_support import SECTIONS, made_up, make_study

from fsmm.errors import FsmmError, UsageError
from fsmm.heads.registry import METHODS
from fsmm.runs.listing import find_runs
from fsmm.runs.store import load_run, save_run
from fsmm.studies.compare import compare
from fsmm.studies.grid.store import Failure, Row, add_failure, write_study
from fsmm.studies.report import make
from fsmm.studies.report.cost import pareto
from fsmm.studies.report.data import read
from fsmm.studies.report.embedding import components
from fsmm.studies.report.make import Report, report
from fsmm.studies.report.parts import plot_of
from fsmm.studies.report.tables import csv_text, latex_text, markdown_text

pytest.importorskip("jinja2")
pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def made(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return report(study, tmp_path_factory.mktemp("out"))


class Page(HTMLParser):
    """What the tests look for in a page: ids, figures, and everything that would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.plots: list[str] = []
        self.fetched: list[str] = []
        self.figures: dict[str, str] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.ids |= {found["id"]} if "id" in found else set()
        self.plots += [found["id"]] if "plot" in found.get("class", "").split() else []
        self._open = found.get("data-plot", "")
        links = [found[key] for key in ("src", "href", "action") if key in found]
        self.fetched += [link for link in links if not link.startswith(("#", "data:"))]

    def handle_data(self, data: str) -> None:
        if self._open:
            self.figures[self._open] = self.figures.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def test_rows_are_the_figures_of_the_runs(study: Path, made: Report) -> None:
    rows = {row["run"]: row for row in made.runs}
    whole = [folder for folder in find_runs(study) if folder.name != "damaged"]
    assert len(rows) == len(whole)
    for folder in whole:
        config, metrics, _ = load_run(folder)
        row = rows[folder.name]
        assert row["accuracy"] == metrics["accuracy"]
        assert (row["ci95_clips"], row["ci95_draws"]) == (metrics["ci95_clips"], metrics["ci95"])
        assert row["modalities"] == "+".join(sorted(metrics["streams"]))
        assert row["shots"] == str(config["protocol"]["k_shot"])
        assert row["transductive"] == METHODS[config["method"]].transductive
        assert row["seconds"] == pytest.approx(metrics["train_seconds"] + metrics["eval_seconds"])
        assert (row["effective_classes"] is not None) == row["transductive"]
    assert rows["two-classes"]["effective_classes"] == 2
    assert "effective classes" in (made.page.parent / "runs.md").read_text().splitlines()[0]
    with open(made.page.parent / "runs.csv", newline="") as file:
        read = {row["run"]: row for row in csv.DictReader(file)}
    assert {name: float(row["accuracy"]) for name, row in read.items()} == {
        name: row["accuracy"] for name, row in rows.items()
    }


def test_parquet_holds_the_same_rows(made: Report) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(made.page.parent / "runs.parquet").to_pylist() == list(made.runs)
    assert parquet.read_table(made.page.parent / "tasks.parquet").to_pylist() == list(made.tasks)


def test_free_rows_come_first_in_each_task(made: Report) -> None:
    for task in {row["task"] for row in made.runs}:
        rows = [row for row in made.runs if row["task"] == task]
        assert [row["free"] for row in rows] == sorted((row["free"] for row in rows), reverse=True)
    free = {row["run"] for row in made.runs if row["free"]}
    assert {"protonet-frame", "protonet-lf", "nearest-frame"} <= free
    assert not {"bdcspn-frame", "relation-0", "relation-1"} & free


def test_the_best_and_those_not_worse_are_what_a_comparison_says(study: Path, made: Report) -> None:
    task = next(row["task"] for row in made.runs if row["run"] == "protonet-lf")
    rows = [row for row in made.runs if row["task"] == task]
    kind = [row for row in rows if not row["transductive"] and not row["trained"]]
    best = max(kind, key=lambda row: row["accuracy"])
    assert [row["run"] for row in rows if row["best"]] == [best["run"]], "the transductive run has no rival"
    for row in kind:
        if row is not best:
            pair = compare([study / best["run"], study / row["run"]]).pairs[0]
            assert pair.clips is not None
            assert row["not_worse"] == (pair.difference <= pair.clips.ci95)


def test_a_trained_head_is_judged_by_the_best_free_run_on_its_own_modalities(
    study: Path, made: Report
) -> None:
    rows = {row["run"]: row for row in made.runs}
    free = max((rows[name] for name in ("protonet-frame", "nearest-frame")), key=lambda row: row["accuracy"])
    for name in ("relation-0", "relation-1"):
        assert rows[name]["best_free"] == free["run"]
        mean = (rows["relation-0"]["accuracy"] + rows["relation-1"]["accuracy"]) / 2
        assert rows[name]["above_free"] == pytest.approx(mean - free["accuracy"], abs=1e-6)
        assert rows[name]["beats_free"] == (rows[name]["above_free"] > rows[name]["above_free_ci95_clips"])
    assert not any(rows[name]["best_free"] for name in ("protonet-frame", "bdcspn-frame"))
    alone = [compare([study / f"relation-{seed}", study / free["run"]]).pairs[0] for seed in (0, 1)]
    assert rows["relation-0"]["above_free"] == pytest.approx(np.mean([pair.difference for pair in alone]))


def test_a_task_with_one_head_has_no_best(made: Report) -> None:
    alone = next(row for row in made.runs if row["run"] == "protonet-lf-1")
    assert not alone["best"]
    assert alone["not_worse"] is None


def test_every_section_is_there_with_its_figures_and_nothing_is_fetched(made: Report) -> None:
    assert tuple(made.sections) == SECTIONS
    page = Page(made.page.read_text())
    assert set(SECTIONS) <= page.ids
    assert page.fetched == []
    drawn = {name.rpartition("-")[0] for name in page.plots}
    assert drawn == set(SECTIONS) - {"runs", "seeds", "made-of", "failed"}
    assert sorted(page.figures) == sorted(page.plots)
    for text in page.figures.values():
        assert json.loads(text)["data"]


def test_figures_show_the_figures_of_the_runs(study: Path, made: Report) -> None:
    figures = {name: json.loads(text) for name, text in Page(made.page.read_text()).figures.items()}
    accuracy = {row["run"]: 100 * row["accuracy"] for row in made.runs}
    (curve,) = (trace for trace in figures["missing-1"]["data"] if trace.get("mode") == "lines+markers")
    assert curve["x"] == [0, 50, 100]
    assert curve["y"] == pytest.approx(
        [accuracy[name] for name in ("protonet-lf", "missing-0.5", "missing-1.0")]
    )
    floor = figures["missing-1"]["layout"]["shapes"][0]["y0"]
    assert floor == pytest.approx(max(accuracy["protonet-frame"], accuracy["nearest-frame"]))
    few, uneven = figures["stress-1"]["data"]
    assert few["x"] == [2, 5]
    assert few["y"] == pytest.approx([accuracy["two-classes"], accuracy["bdcspn-frame"]])
    assert uneven["x"] == [3, 5], "(5 alpha + 1) / (alpha + 1) at alpha 1"
    assert uneven["y"] == pytest.approx([accuracy["dirichlet"], accuracy["bdcspn-frame"]])
    (matrix,) = figures["matrix-1"]["data"]
    cells = {(y, x): z for y, row in zip(matrix["y"], matrix["z"]) for x, z in zip(matrix["x"], row)}
    assert cells["frame", "audio"] == 25
    assert cells["frame", "frame"] == pytest.approx(accuracy["cross-same"], abs=0.06)
    per_class = load_run(study / "protonet-lf")[1]["per_class"]
    together = figures["carried-1"]["data"][-1]
    assert dict(zip(together["y"], together["x"])) == pytest.approx(
        {n: 100 * v for n, v in per_class.items()}
    )


def test_what_failed_is_named_with_the_reason(made: Report) -> None:
    text = made.page.read_text()
    section = text[text.index('<section id="failed"') :]
    assert "damaged" in section
    assert "not a complete run" in section
    (told,) = [note for note in made.notes if "failed or cannot be read" in note]
    assert told.startswith("1 run failed")
    assert "damaged" in told
    assert "not a complete run" in told


def test_latex_has_the_structure_of_a_table(made: Report) -> None:
    text = (made.page.parent / "runs.tex").read_text()
    lines = text.splitlines()
    columns = re.search(r"\\begin\{tabular\}\{(l+)\}", text)
    assert columns is not None
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == len(made.runs) + 1
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == len(columns[1]) - 1
    for rule in (r"\toprule", r"\bottomrule", r"\end{tabular}"):
        assert lines.count(rule) == 1
    unescaped = re.compile(r"(?<!\\)[#_%]")
    assert not any(unescaped.search(line) for line in rows)
    assert text.count("{") == text.count("}")


def test_tables_escape_what_would_break_them() -> None:
    row = {"task": 1, "title": "a & b_c | 50 %", "runs": 1}
    assert r"a \& b\_c | 50 \%" in latex_text([row], ["title"])
    assert r"a & b_c \| 50 %" in markdown_text([row], ["title"])
    assert "| &lt;b> |" in markdown_text([{"task": 1, "title": "<b>", "runs": 1}], ["title"])
    formula = {"row": "=cmd|' /C calc'!A0", "value": "-0.5", "gain": "+1.2", "other": "@SUM(1)"}
    assert csv_text([formula]).splitlines()[1] == "'=cmd|' /C calc'!A0,-0.5,+1.2,'@SUM(1)"
    assert csv_text([{"title": 'say "a", b'}]) == 'title\n"say ""a"", b"\n'
    assert csv_text([{"title": "@a", "gain": -0.5, "as": "-0.5"}]) == "title,gain,as\n'@a,-0.5,-0.5\n"


def test_five_hundred_runs_stay_below_ten_megabytes(study: Path, tmp_path: Path) -> None:
    made_up(study / "protonet-lf", tmp_path / "many", 500)
    found = report(tmp_path / "many")
    assert len(found.runs) == 500
    assert found.page == tmp_path / "many" / "report" / "report.html"
    assert found.page.stat().st_size < 10e6


def test_a_report_in_the_study_folder_is_no_run_of_it(study: Path, tmp_path: Path) -> None:
    made_up(study / "protonet-lf", tmp_path / "few", 2)
    assert len(report(tmp_path / "few").runs) == len(report(tmp_path / "few").runs) == 2


def test_a_sweeps_folder_is_read_with_its_failures(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    rows = [
        Row(key=f"run-{number:03d}", block="shots", label=f"row {number}", varies={}, config={})
        for number in range(4)
    ]
    write_study(folder, {"name": "My sweep", "description": "What it is for."}, rows)
    made_up(study / "protonet-lf", folder / "runs", 2)
    add_failure(folder, Failure(key="run-002", kind="UsageError", reason="There is no <such> stream."))
    found = report(folder, tmp_path / "out")
    assert [row["block"] for row in found.runs] == ["shots", "shots"]
    text = found.page.read_text()
    assert "<h1>My sweep</h1>" in text
    assert "There is no &lt;such&gt; stream." in text
    assert "shots: row 3" in text[text.index("Not run yet") :]


@pytest.mark.parametrize("name", ["study.json", "rows.json"])
def test_a_study_whose_files_were_changed_is_one_sentence(tmp_path: Path, name: str) -> None:
    row = Row(key="run", block="shots", label="1 shot", varies={"k_shot": 1}, config={"method": "tim"})
    stated = {"source": "A paper", "rows": [{"label": "protonet", "k_shot": 1, "values": {"toy": 61.5}}]}
    write_study(tmp_path, {"name": "My sweep", "published": stated}, [row])
    path = tmp_path / name
    path.write_text(path.read_text().replace('"k_shot": 1', '"k_shot": 5').replace("61.5", "63.5"))
    with pytest.raises(FsmmError, match=rf"^{name} of the study .* is not as it was written; sweep"):
        report(tmp_path)


def test_a_legend_of_many_long_names_leaves_room_for_the_curves() -> None:
    traces = [
        {"type": "scatter", "name": f"{number} {'name ' * 20}", "x": [1], "y": [1]} for number in range(17)
    ]
    heights = [plot_of(shown).layout.height for shown in (traces[:2], traces)]
    assert heights[0] == 380, "the usual height"
    assert heights[1] >= 2 * 17 * 20, "twice a legend with a row for each name"


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no run yet; `fsmm episode-eval"):
        report(tmp_path)
    write_study(tmp_path / "sweep", {"name": "My sweep"}, [])
    with pytest.raises(UsageError, match=r"holds no run yet; `fsmm sweep"):
        report(tmp_path / "sweep")
    with pytest.raises(UsageError, match="There is no folder"):
        report(tmp_path / "none")


def test_what_is_not_installed_is_named(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "find_spec", lambda name: None)
    with pytest.raises(FsmmError, match=r"A report needs jinja2 and plotly; run `pip install .*\[report\]"):
        report(study)


def test_the_map_is_that_of_principal_components() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = np.random.default_rng(0).normal(size=(50, 8)) * np.arange(1, 9)
    places, shares = components(x)
    expected = decomposition.PCA(2, svd_solver="full").fit(x)
    assert np.abs(places) == pytest.approx(np.abs(expected.transform(x)))
    assert shares == pytest.approx(expected.explained_variance_ratio_)


def test_no_run_beats_one_of_the_front() -> None:
    points = [tuple(point) for point in np.random.default_rng(1).random((40, 2))]
    front = set(pareto(points))
    for i, (cost, accuracy) in enumerate(points):
        beaten = any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)
        assert (i in front) == (not beaten)


def test_a_run_of_a_sweep_that_was_damaged_is_told_from_one_that_is_still_to_be_made(tmp_path: Path) -> None:
    rows = [Row(key=key, block="b", label=key, varies={}, config={}) for key in ("whole", "damaged", "later")]
    write_study(tmp_path, {"name": "My sweep"}, rows)
    config = {"method": "protonet", "dataset": "toy", "protocol": {"n_way": 5, "k_shot": 1}}
    arrays = {"accuracy": np.full(4, 0.5, np.float32)}
    for key in ("whole", "damaged"):
        save_run(tmp_path / "runs" / key, config, {"accuracy": 0.5}, arrays)
    (tmp_path / "runs" / "damaged" / "metrics.json").write_text('{"accuracy": 0.9}')
    data = read(tmp_path)
    assert [run.name for run in data.runs] == ["b: whole"]
    ((name, reason),) = data.failed
    assert name == "b: damaged"
    assert "metrics.json changed" in reason
    assert list(data.waiting) == ["b: later"]
