"""Options that come from dataclasses, and the files that give the same options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, get_type_hints

import pytest
import typer
import yaml
from typer.testing import CliRunner

from fsmm.cli import app as real
from fsmm.commands.options import derived, leaves, options_of
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.errors import UsageError
from fsmm.extract.contract import Sampling
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.extract.request import Request
from fsmm.machine.field_docs import field_docs
from fsmm.runs.job import Job, Place
from fsmm.runs.spec import RunSpec


@dataclass(frozen=True)
class Inner:
    size: int = 3
    """The size."""
    kind: Literal["round", "square"] = "round"
    """The kind."""


@dataclass(frozen=True)
class Outer:
    name: str
    """The name."""
    inner: Inner = field(default_factory=Inner)
    parts: tuple[str, ...] | None = None
    """The parts."""
    given: Mapping[str, str] = field(default_factory=dict)
    """The pairs."""
    fast: bool = False
    """Whether it is fast."""
    width: int = 3
    """The width."""


@pytest.fixture
def call() -> Callable[..., tuple[Outer, str | None]]:
    """A command made from Outer; called with words it returns what its body was given."""
    got: list[Any] = []

    @derived(Outer, flags={"given": "--set"}, follows={"width": "size"})
    def body(outer: Outer, more: Annotated[Optional[str], typer.Option(help="More.")] = None) -> None:
        got.append((outer, more))

    app = typer.Typer()
    app.command()(body)

    def run(*words: str | Path) -> tuple[Outer, str | None]:
        app([str(word) for word in words], standalone_mode=False)
        return got.pop()

    return run


def test_defaults_are_those_of_the_fields(call: Callable[..., Any]) -> None:
    assert call("--name", "a") == (Outer("a"), None)


def test_nested_fields_pairs_and_flags_reach_the_body(call: Callable[..., Any]) -> None:
    words = "--name a --size 5 --kind square --parts x,y --set k=v --fast --more m"
    assert call(*words.split()) == (
        Outer(name="a", inner=Inner(5, "square"), parts=("x", "y"), given={"k": "v"}, fast=True, width=5),
        "m",
    )


def test_a_followed_option_is_the_default_of_its_follower(call: Callable[..., Any]) -> None:
    assert call("--name", "a", "--size", "7")[0].width == 7
    assert call("--name", "a", "--size", "7", "--width", "2")[0].width == 2


def test_a_required_option_is_asked_for(call: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Missing option '--name'"):
        call()
    (tmp_path / "c.json").write_text('{"name": "a"}')
    assert call("--config", tmp_path / "c.json")[0] == Outer("a")


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_file_gives_any_option_and_the_command_line_wins(
    call: Callable[..., Any], tmp_path: Path, form: str
) -> None:
    values = {
        "name": "a",
        "inner": {"size": 9, "kind": "square"},
        "parts": ["x", "y"],
        "given": {"k": 1, "l": "b"},
        "fast": True,
        "more": "m",
    }
    path = tmp_path / f"c.{form}"
    path.write_text(json.dumps(values) if form == "json" else yaml.safe_dump(values))
    whole = Outer(
        name="a", inner=Inner(9, "square"), parts=("x", "y"), given={"k": "1", "l": "b"}, fast=True, width=9
    )
    assert call("--config", path) == (whole, "m")
    words = ("--name", "b", "--size", "2", "--no-fast", "--set", "k=2", "--more", "n", "--parts", "z")
    expected = Outer(
        name="b", inner=Inner(2, "square"), parts=("z",), given={"k": "2", "l": "b"}, fast=False, width=2
    )
    assert call("--config", path, *words) == (expected, "n")


def test_a_file_may_name_options_as_the_command_line_does(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"name": "a", "size": 4, "set": ["k=v"]}')
    assert call("--config", tmp_path / "c.json")[0] == Outer("a", Inner(4), given={"k": "v"}, width=4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"nmae": "a"}', r"Unknown key in the configuration file '.*c.json': 'nmae'. Did you mean 'name'"),
        ('{"inner": {"sise": 1}}', "Did you mean 'size'"),
        ('{"name": 3}', r"name in '.*c.json' takes a text"),
        ('{"name": "a", "kind": "rond"}', "Did you mean 'round'"),
        ("{", "is not valid JSON"),
        ("[1]", "must hold a table of keys"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_is_one_sentence_that_names_it(
    call: Callable[..., Any], tmp_path: Path, text: str | None, sentence: str
) -> None:
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=sentence) as caught:
        call("--config", path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert "c.json" in str(caught.value)


@pytest.mark.parametrize("cls", [Protocol, RunSpec, Place, Job, Sampling, DatasetOptions, Request])
def test_every_field_has_a_docstring_of_one_line(cls: type) -> None:
    hints, docs = get_type_hints(cls), field_docs(cls)
    for name in (f.name for f in fields(cls) if not is_dataclass(hints[f.name])):
        assert docs[name].endswith("."), name
        assert "\n" not in docs[name], name


@pytest.mark.parametrize(
    ("command", "cls", "given"),
    [
        (
            "episode-eval",
            Job,
            {
                "flags": {"settings": "--set"},
                "follows": {"train_seed": "seed"},
                "without": ("replay",),  # the digest of --episodes-file
            },
        ),
        (
            "extract",
            Request,
            {
                "flags": {"encoders": "--encoder", "position": "--sampling", "compiled": "--compile"},
                "without": ("split_file", "split_seed"),  # --class-split stands for both
            },
        ),
    ],
)
def test_every_field_is_an_option_of_the_command_with_help_and_default(
    command: str, cls: type, given: dict[str, Any]
) -> None:
    options = options_of(cls, **given)
    assert {f.name for f, _, _ in leaves(cls)} == options.keys() | set(given.get("without", ()))
    shown = CliRunner().invoke(real, [command, "--help"], terminal_width=1000).output
    shown = " ".join(shown.split())
    for option in options.values():
        if option.hidden:  # an option of stored configurations alone
            assert f" {option.flag} " not in shown, option.flag
            continue
        assert f" {option.flag} " in shown, option.flag
        assert " ".join(option.help.split()) in shown, option.flag
        assert len(option.help) > 10, option.flag


def test_every_option_of_every_command_has_help() -> None:
    for command in typer.main.get_command(real).commands.values():
        for option in getattr(command, "params", ()):
            assert getattr(option, "help", "text"), (command.name, option.name)


def test_a_job_is_the_inverse_of_what_a_run_stores(tmp_path: Path) -> None:
    lossy = (Missing("audio", 0.5, "query"),)
    protocol = Protocol(n_way=(3, 6), k_shot=2, missing=lossy, label_set="event", dirichlet=1.0)
    spec = RunSpec(method="relation", protocol=protocol, fusion="ea", modalities=("frame", "audio"), words=None,
                   train_missing=(Missing("frame", 0.25),), settings={"train.steps": "5"}, train_seed=4)  # fmt: skip
    job = Job(
        spec=spec, place=Place(cache=tmp_path, dataset="toy", device="cpu"), episodes=70, reliability=True
    )
    (tmp_path / "config.json").write_text(json.dumps(job.to_dict()))
    got = []

    @derived(Job, flags={"settings": "--set"}, follows={"train_seed": "seed"})
    def body(job: Job) -> None:
        got.append(job)

    app = typer.Typer()
    app.command()(body)
    app(["--config", str(tmp_path / "config.json")], standalone_mode=False)
    assert got == [job]
