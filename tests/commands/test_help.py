"""The help that a person sees: options in groups, examples that the parser takes, and nothing heavy imported for it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fsmm.cli import app
from fsmm.commands import encoder_tune, evaluate, extract, fit
from fsmm.commands.options import owners_of
from fsmm.episodes.protocol import Protocol
from fsmm.extract.contract import Sampling
from fsmm.extract.request import Request
from fsmm.runs.job import Job, Place
from fsmm.runs.spec import RunSpec

PAGES = {
    "encoder-tune": encoder_tune.EXAMPLES,
    "episode-eval": evaluate.EXAMPLES,
    "extract": extract.EXAMPLES,
    "fit": fit.EXAMPLES,
}
GROUPS = {
    "encoder-tune": ["Encoder and clips", "Tuning", "Joint head", "Work", "Clips and classes", "General"],
    "episode-eval": [
        "Method and features", "Task", "What clips lack", "Training", "Place", "Evaluation", "Several runs", "General"
    ],
    "fit": ["Examples and model", "Head", "Features", "General"],
    "extract": ["Data and streams", "Work", "Many machines, many clips", "Clips and classes", "Sampling", "General"],
}  # fmt: skip


@pytest.mark.parametrize("command", PAGES)
def test_options_stand_in_groups_and_examples_at_the_end(command: str) -> None:
    page = CliRunner().invoke(app, [command, "--help"]).output
    titles = [line[:-1] for line in page.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sorted(titles, key=page.index) == sorted(GROUPS[command], key=page.index)
    assert titles[-1] == "General"
    assert page.index("Examples:") > page.index("--help")
    assert all(flag in page for flag in ("--config", "--json"))


@pytest.mark.parametrize(
    "line", [line.strip() for page in PAGES.values() for line in page.splitlines() if "fsmm " in line]
)
def test_the_parser_takes_an_example(line: str) -> None:
    program, command, *words = shlex.split(line)
    assert program == "fsmm"
    program_parser: Any = get_command(app)
    parser = program_parser.get_command(None, command)
    parser.make_context(command, words)


def test_an_option_stands_with_the_dataclass_that_has_it() -> None:
    owners = owners_of(Job)
    assert owners["method"] is RunSpec
    assert owners["n_way"] is Protocol
    assert owners["out"] is Place
    assert owners["episodes"] is Job
    assert owners_of(Request)["segments"] is Sampling


@pytest.mark.parametrize(
    "words",
    [["--help"], ["episode-eval", "--help"], ["extract", "--help"], ["encoder-tune", "--help"], ["methods"]],
)
def test_help_imports_neither_torch_nor_numpy(words: list[str], tmp_path: Path) -> None:
    code = (
        "import atexit, sys; sys.argv[0] = 'fsmm'; from fsmm.cli import main; "
        "atexit.register(lambda: print([m for m in ('torch', 'numpy', 'h5py') if m in sys.modules], file=sys.stderr)); "
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("words", [[], ["cache"]])
def test_a_command_without_its_words_shows_its_help_once(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "fsmm", *words], capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    assert done.returncode == 2
    assert shown.startswith(f"Usage: {' '.join(['fsmm', *words])}")
    assert shown.count("Usage:") == 1
    assert "See the command's --help" not in shown
