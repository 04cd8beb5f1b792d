"""The docs say what the code has."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from fsmm._version import __version__
from fsmm.cli import app
from fsmm.heads.registry import METHODS, find

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_that_the_index_links(name: str) -> None:
    index = (ROOT / "docs" / "methods.md").read_text()
    found = re.search(rf"\| \[{re.escape(name)}\]\((methods/[a-z0-9-]+\.md)\)", index)
    assert found, f"docs/methods.md does not list {name}"
    assert Path(found[1]).stem in (ROOT / "docs" / found[1]).read_text().splitlines()[0].lower()


PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links {target}"


def commands(page: Path) -> list[str]:
    """The command lines of fsmm in the blocks of a page, without those that stand for their form."""
    text = page.read_text()
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    (.*)$", text, re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", "\n".join([*fenced, *indented])).splitlines()
    return [line for line in map(str.strip, lines) if line.startswith("fsmm ") and not set("[…<") & set(line)]


@pytest.fixture(scope="module")
def program() -> Any:
    """The parser of the command line."""
    return get_command(app)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.name)
def test_the_parser_takes_every_command(page: Path, program: Any) -> None:
    for line in commands(page):
        parser = program
        words = shlex.split(line, comments=True)[1:]
        words = words[
            : next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";")), len(words))
        ]
        while hasattr(parser, "get_command"):
            parser = parser.get_command(None, words.pop(0))
            assert parser is not None, line
        given = parser.make_context("fsmm", words).params
        if page.parent.name != "third_party" and given.get("method") not in (None, "auto"):
            find(given["method"])


def test_the_plans_for_many_clips_are_those_of_the_measured_rates() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "scale.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (ROOT / "docs/results/demo.json").is_file(), reason="needs docs/results/demo.json")
def test_the_figure_of_the_readme_is_drawn_from_the_data() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "readme_figure.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_slow_heads_of_the_readme_are_those_of_the_data() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "heads_speed.py"), "slow"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (ROOT / "README.md").read_text()
    assert all(line in text for line in done.stdout.splitlines()), done.stdout


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"


def test_pre_commit_runs_local_hooks_only() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.stem
)
def test_issue_forms_can_be_read(form: Path) -> None:
    content = yaml.safe_load(form.read_text())
    if form.stem != "config":
        assert content["name"]
        assert all(part["attributes"]["label"] for part in content["body"])
