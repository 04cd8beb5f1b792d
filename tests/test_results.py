"""The pages of figures say what the data has, and a run becomes a figure."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests_support import synthetic_cache

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


def _script() -> ModuleType:
    """scripts/results.py as a module."""
    spec = importlib.util.spec_from_file_location("results_script", ROOT / "scripts" / "results.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


results = _script()
DATA = results.read_all(ROOT)


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
    data = results.read_file(path)
    for figure in data.figures:
        assert figure.page == path.stem
        assert figure.column in data.tables[figure.table].columns
        assert figure.commit is None or re.fullmatch("[0-9a-f]{40}", figure.commit)
        assert figure.run is None or (path.parent / "runs" / f"{figure.run}.json").is_file()
        has_interval = figure.interval is not None or figure.difference_interval is not None
        assert has_interval == (figure.interval_over is not None)


def test_every_table_stands_on_a_page() -> None:
    sources = "".join(p.read_text() for p in (ROOT / "docs" / "results" / "sources").glob("*.md.in"))
    for name in DATA.tables:
        assert f"{{{{ table: {name} }}}}" in sources


def test_no_interval_is_printed_as_zero() -> None:
    for path, text in results.pages(ROOT).items():
        assert not re.search(r"± 0(\.0+)?(?![\d.])", text), path.name
        assert "{{" not in text, path.name
    assert results.half_width(0.04, 1) == "< 0.1"
    assert results.half_width(0.05001, 1) == "0.1"


def test_the_overview_is_short() -> None:
    assert len((ROOT / "docs" / "results.md").read_text().splitlines()) <= 60


def test_a_placeholder_that_names_no_figure_is_refused() -> None:
    with pytest.raises(SystemExit, match="0 figures have this place"):
        results.fill("{{ figure: demo-events | nobody | event }}", DATA, "demo")


def test_add_records_a_run(checkout: Path, run: Path) -> None:
    results.main(["--root", str(checkout), "add", str(run), *PLACE])
    data = results.read_file(checkout / "docs" / "results" / "tried.json")
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
    assert "| trx | 61.2 ± < 0.1 |" in results.table_text("tried-heads", data)
    kept = json.loads((checkout / "docs" / "results" / "runs" / f"{figure.run}.json").read_text())
    assert kept["config"] == RUN["config.json"]
    assert kept["metrics"] == {"accuracy": 0.61237, "ci95": 0.0004, "map": 0.5, "episodes": 200}
    assert (kept["folder"], kept["commit"]) == ("made", figure.commit)


def test_every_field_of_a_run_has_an_option_in_the_command_that_makes_it_again() -> None:
    assert {f.name for f in fields(Protocol)} == set(results.PROTOCOL_DEFAULTS)
    assert {f.name for f in fields(RunSpec)} - {"protocol"} <= set(results.RUN_DEFAULTS)
    for name, default in Protocol().to_dict().items():
        assert results.PROTOCOL_DEFAULTS[name] == default or not default
    assert results.option("shared_group", False) == ["--no-shared-group"]
    assert results.option("generalised", False) == []


def test_add_replaces_the_figure_of_the_same_place(checkout: Path, run: Path, tmp_path: Path) -> None:
    better = {**RUN, "metrics.json": {**RUN["metrics.json"], "accuracy": 0.7}}
    for folder in (run, _run_folder(tmp_path / "again" / "made", better)):
        results.main(["--root", str(checkout), "add", str(folder), *PLACE])
    results.main(["--root", str(checkout), "add", str(run), *PLACE, "--part", "mAP", "--metric", "map"])
    figures = results.read_file(checkout / "docs" / "results" / "tried.json").figures
    assert [(f.part, f.value, f.interval) for f in figures] == [(None, 70.0, 0.04), ("mAP", 50.0, None)]


def test_add_records_a_paired_difference_with_its_interval_over_clips(checkout: Path, tmp_path: Path) -> None:
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
    data = results.read_file(checkout / "docs" / "results" / "tried.json")
    (figure,) = data.figures
    (pair,) = compare(runs).pairs
    assert pair.clips is not None
    assert pair.clips.ci95 is not None
    assert figure.difference == round(100 * pair.difference, 2)
    assert figure.difference_interval == round(100 * pair.clips.ci95, 2)
    assert figure.interval_over == "clips"
    assert results.DRAWS_MARK not in results.table_text("tried-heads", data)
    with pytest.raises(SystemExit, match="not a complete run"):
        results.main(
            ["--root", str(checkout), "add", str(runs[0]), *PLACE, "--minus", str(tmp_path), "--dirty"]
        )


def test_the_interval_of_a_difference_over_draws_alone_is_marked() -> None:
    for table, over in (("ave28-heads", "draws"), ("ave28-heads", "clips")):
        figures = [f for f in DATA.figures if f.table == table and f.interval_over == over and f.difference]
        for figure in figures:
            text = results.difference_text(figure, DATA.tables[table])
            assert text.endswith(results.DRAWS_MARK) == (over == "draws")


def test_add_refuses_a_changed_checkout(checkout: Path, run: Path) -> None:
    (checkout / "new.py").write_text("")
    with pytest.raises(SystemExit, match="uncommitted changes"):
        results.main(["--root", str(checkout), "add", str(run), *PLACE])
    results.main(["--root", str(checkout), "add", str(run), *PLACE, "--dirty"])
    assert results.read_file(checkout / "docs" / "results" / "tried.json").figures[0].commit is None


def test_a_configuration_without_an_option_is_refused() -> None:
    with pytest.raises(SystemExit, match="colour"):
        results.command_of({**RUN["config.json"], "colour": "red"}, "CACHE")


def test_demo_refuses_a_changed_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ROOT / "docs" / "results"
    for figure in results.read_file(folder / "demo-small.json").figures:
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
