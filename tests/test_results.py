"""The pages of figures say what the data has, and a run becomes a figure."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tests_support import script, synthetic_cache

from fsmm.episodes.protocol import Protocol
from fsmm.runs.run import episode_eval
from fsmm.runs.spec import RunSpec
from fsmm.studies.compare import compare

ROOT = Path(__file__).resolve().parents[1]
RUN = {
    "config.json": {
        "method": "trx",
        "dataset": "demo",
        "modalities": ["frame", "flow"],
        "fusion": "lf",
        "settings": {"words": "false"},
        "words": None,
        "normalise": "l2",
        "train_missing": [{"modality": "flow", "rate": 0.5, "side": "both"}],
        "train_seed": 3,
        "episodes": 200,
        "fingerprint": "0123",
        "chosen": {"blend": 0.5},
        "protocol": {"n_way": [3, 8], "k_shot": 5, "n_query": 15, "seed": 3, "generalised": False},
    },
    "metrics.json": {
        "accuracy": 0.61237,
        "ci95": 0.0004,
        "map": 0.5,
        "episodes": 200,
        "out": "/somewhere/runs/made",
        "per_class": {"cat": 0.5},
    },
}
PLACE = ["--page", "tried", "--table", "tried-heads", "--row", "trx", "--column", "both, 5-shot"]


results = script("results")
files, pages, texts, commands = (
    script(f"figures.{name}") for name in ("data", "pages", "text", "run_command")
)
DATA = files.read_all(ROOT)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one commit that holds docs/."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "docs", root / "docs")
    _git(root, "init", "-q")
    _git(root, "add", ".")
    _git(root, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "docs")
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run."""
    return _run_folder(tmp_path / "made", RUN)


def _run_folder(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_pages_are_up_to_date() -> None:
    results.main(["--check"])


def test_check_names_the_stale_page(checkout: Path) -> None:
    page = checkout / "docs" / "results" / "demo.md"
    page.write_text(page.read_text().replace("54.6", "54.7"))
    with pytest.raises(SystemExit, match=r"docs/results/demo\.md is not up to date"):
        results.main(["--root", str(checkout), "--check"])
    results.main(["--root", str(checkout)])
    results.main(["--root", str(checkout), "--check"])


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=lambda p: p.stem)
def test_every_figure_has_a_page_a_table_and_no_guessed_commit(path: Path) -> None:
    data = files.read_file(path)
    for figure in data.figures:
        assert figure.page == path.stem
        assert figure.column in data.tables[figure.table].columns
        assert figure.commit is None or re.fullmatch("[0-9a-f]{40}", figure.commit)
        assert figure.run is None or (path.parent / "runs" / f"{figure.run}.json").is_file()
        assert (figure.interval is not None) == (figure.interval_over is not None)
        assert not (figure.difference is None and figure.difference_widths)


def test_every_table_stands_on_a_page() -> None:
    sources = "".join(p.read_text() for p in (ROOT / "docs" / "results" / "sources").glob("*.md.in"))
    for name in DATA.tables:
        assert f"{{{{ table: {name} }}}}" in sources


def test_no_interval_is_printed_as_zero() -> None:
    for path, text in pages.pages(ROOT).items():
        assert not re.search(r"± 0(\.0+)?(?![\d.])", text), path.name
        assert "{{" not in text, path.name
    assert texts.half_width(0.04, 1) == "< 0.1"
    assert texts.half_width(0.05001, 1) == "0.1"


def test_the_overview_is_short() -> None:
    assert len((ROOT / "docs" / "results.md").read_text().splitlines()) <= 60


def test_a_placeholder_that_names_no_figure_is_refused() -> None:
    with pytest.raises(SystemExit, match="0 figures have this place"):
        pages.fill("{{ figure: demo-events | nobody | event }}", DATA, "demo")


def test_add_records_a_run(checkout: Path, run: Path) -> None:
    results.main(["--root", str(checkout), "add", str(run), *PLACE])
    data = files.read_file(checkout / "docs" / "results" / "tried.json")
    (figure,) = data.figures
    assert (figure.value, figure.interval, figure.interval_over, figure.episodes) == (
        61.24,
        0.04,
        "draws",
        200,
    )
    assert figure.commit == _git(checkout, "rev-parse", "HEAD")
    assert figure.command == (
        "fsmm episode-eval --method trx --dataset demo --modalities frame,flow --fusion lf --train-missing "
        "flow=0.5@both --set words=false --words none --episodes 200 --n-way 3-8 --k-shot 5 --seed 3 --cache CACHE"
    )
    assert "| trx | 61.2 ± < 0.1 |" in texts.table_text("tried-heads", data)
    kept = json.loads((checkout / "docs" / "results" / "runs" / f"{figure.run}.json").read_text())
    assert kept["config"] == RUN["config.json"]
    assert kept["metrics"] == {"accuracy": 0.61237, "ci95": 0.0004, "map": 0.5, "episodes": 200}
    assert (kept["folder"], kept["commit"]) == ("made", figure.commit)


def test_every_field_of_a_run_has_an_option_in_the_command_that_makes_it_again() -> None:
    assert {f.name for f in fields(Protocol)} == set(commands.PROTOCOL_DEFAULTS)
    assert {f.name for f in fields(RunSpec)} - {"protocol"} <= set(commands.RUN_DEFAULTS)
    for name, default in Protocol().to_dict().items():
        assert commands.PROTOCOL_DEFAULTS[name] == default or not default
    assert commands.option("shared_group", False) == ["--no-shared-group"]
    assert commands.option("generalised", False) == []


def test_add_replaces_the_figure_of_the_same_place(checkout: Path, run: Path, tmp_path: Path) -> None:
    better = {**RUN, "metrics.json": {**RUN["metrics.json"], "accuracy": 0.7}}
    for folder in (run, _run_folder(tmp_path / "again" / "made", better)):
        results.main(["--root", str(checkout), "add", str(folder), *PLACE])
    results.main(["--root", str(checkout), "add", str(run), *PLACE, "--part", "mAP", "--metric", "map"])
    figures = files.read_file(checkout / "docs" / "results" / "tried.json").figures
    assert [(f.part, f.value, f.interval) for f in figures] == [(None, 70.0, 0.04), ("mAP", 50.0, None)]


def test_add_records_a_paired_difference_with_its_widths(checkout: Path, tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path / "cache", noise=2.0)
    runs = [
        episode_eval(
            "protonet",
            "toy",
            cache,
            protocol=Protocol(n_query=4),
            episodes=60,
            modalities=[m],
            out=tmp_path / m,
        ).out
        for m in ("frame", "audio")
    ]
    results.main(["--root", str(checkout), "add", str(runs[0]), *PLACE, "--minus", str(runs[1])])
    data = files.read_file(checkout / "docs" / "results" / "tried.json")
    (figure,) = data.figures
    (pair,) = compare(runs, draws=True).pairs
    assert figure.difference == round(100 * pair.difference, 2)
    for kind in ("draws", "clips", "classes"):
        width = getattr(pair, kind).ci95
        assert figure.difference_widths.of(kind) == (None if width is None else round(100 * width, 2))
    assert figure.difference_widths.clips > 0
    assert figure.interval_over == "clips"
    with pytest.raises(SystemExit, match="not a complete run"):
        results.main(
            ["--root", str(checkout), "add", str(runs[0]), *PLACE, "--minus", str(tmp_path), "--dirty"]
        )


def _difference(row: str, difference: float | None, **widths: float) -> Any:
    """The figure of 61.2 % in a row, with a difference and its half widths."""
    known = {f.name: None for f in fields(files.Figure)}
    given = {"page": "tried", "table": "t", "row": row, "column": "c", "value": 61.2, "unit": "%"}
    return files.Figure(
        **{**known, **given, "difference": difference, "difference_widths": files.Widths(**widths)}
    )


def test_a_difference_has_its_widths_and_a_dash_for_one_that_is_not_known() -> None:
    table = files.Table("t", corner="head", columns=("c",), digits=1, difference_from="ProtoNet")
    figures = [
        _difference("ProtoNet", None),
        _difference("one", 6.71, draws=0.2, clips=0.84, classes=1.9),
        _difference("two", -1.0, draws=0.01, clips=0.8),
        _difference("same", 0.0),
    ]
    assert texts.table_text("t", files.Data({"t": table}, figures)).splitlines() == [
        "In brackets is the paired difference from ProtoNet ± its 95 % half width over draws / clips / classes "
        "(–: not known). A zero without ± is that of heads that decide every query alike.",
        "",
        "| head | c |",
        "| --- | --- |",
        "| ProtoNet | 61.2 |",
        "| one | 61.2 (+6.7 ± 0.2 / 0.8 / 1.9) |",
        "| two | 61.2 (-1.0 ± < 0.1 / 0.8 / –) |",
        "| same | 61.2 (+0.0) |",
    ]


def test_a_table_of_one_kind_of_width_prints_that_one_and_says_which() -> None:
    table = files.Table("t", corner="head", columns=("c",), digits=1, difference_from="ProtoNet")
    figure = replace(_difference("one", 6.7, draws=0.2), interval=0.5, interval_over="draws")
    lines = texts.table_text("t", files.Data({"t": table}, [figure])).splitlines()
    assert lines[0] == (
        "± is the 95 % half width over draws. In brackets is the paired difference from ProtoNet "
        "± its 95 % half width over draws."
    )
    assert lines[-1] == "| one | 61.2 ± 0.5 (+6.7 ± 0.2) |"


def test_prose_can_quote_a_difference_and_each_of_its_widths() -> None:
    figure = _difference("one", 6.7, draws=0.2, clips=0.8)
    held = files.Data({"t": files.Table("t", columns=("c",), digits=1)}, [figure])
    prose = "{{ figure: t | one | c | paired }}; {{ figure: t | one | c | clips }}"
    assert pages.fill(prose, held, "tried") == "+6.7 ± 0.2 / 0.8; 0.8"
    with pytest.raises(SystemExit, match="its classes was not measured"):
        pages.fill("{{ figure: t | one | c | classes }}", held, "tried")


def test_a_file_of_figures_is_read_as_it_was_written(tmp_path: Path) -> None:
    figures = [_difference("one", 6.7, draws=0.2, clips=0.8), _difference("two", None)]
    held = files.Data({"t": files.Table("t", columns=("c",))}, figures)
    files.write_file(tmp_path / "tried.json", held)
    assert files.read_file(tmp_path / "tried.json") == held
    text = (tmp_path / "tried.json").read_text()
    (tmp_path / "tried.json").write_text(text.replace('"draws": 0.2', '"videos": 0.2'))
    with pytest.raises(SystemExit, match="widths over other things"):
        files.read_file(tmp_path / "tried.json")


def test_add_refuses_a_changed_checkout(checkout: Path, run: Path) -> None:
    (checkout / "new.py").write_text("")
    with pytest.raises(SystemExit, match="uncommitted changes"):
        results.main(["--root", str(checkout), "add", str(run), *PLACE])
    results.main(["--root", str(checkout), "add", str(run), *PLACE, "--dirty"])
    assert files.read_file(checkout / "docs" / "results" / "tried.json").figures[0].commit is None


def test_a_configuration_without_an_option_is_refused() -> None:
    with pytest.raises(SystemExit, match="colour"):
        commands.command_of({**RUN["config.json"], "colour": "red"}, "CACHE")


def test_demo_refuses_a_changed_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ROOT / "docs" / "results"
    for figure in files.read_file(folder / "demo-small.json").figures:
        kept = json.loads((folder / "runs" / f"{figure.run}.json").read_text())
        _run_folder(tmp_path / "runs" / kept["folder"], {"metrics.json": kept["metrics"]})
    results.main(["demo", "--home", str(tmp_path)])
    assert "are within 2 points" in capsys.readouterr().out
    changed = tmp_path / "runs" / "protonet-flow-event" / "metrics.json"
    metrics = json.loads(changed.read_text())
    changed.write_text(json.dumps({**metrics, "accuracy": metrics["accuracy"] - 0.021}))
    with pytest.raises(
        SystemExit, match=r"^ProtoNet, flow, event: this run has 67\.1 %, the recorded one 69\.25 %"
    ):
        results.main(["demo", "--home", str(tmp_path)])
