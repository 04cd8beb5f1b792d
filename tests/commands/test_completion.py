"""The values that a shell completes, as its completion script asks for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fsmm.heads.registry import METHODS

MAIN = "from fsmm.cli import main; main()"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of two data sets, of which completion sees the names of files and folders only."""
    root = tmp_path_factory.mktemp("cache")
    for dataset, streams in {"toy": ("frame/net", "audio/net", "word/vec"), "town": ("depth/net",)}.items():
        for name in ("catalog.h5", *(f"streams/{stream}/00000.h5" for stream in streams)):
            (root / dataset / name).parent.mkdir(parents=True, exist_ok=True)
            (root / dataset / name).touch()
    (root / "toy/runs/protonet-0a1b").mkdir(parents=True)
    (root / "toy/runs/protonet-0a1b/metrics.json").touch()
    return root


def completed(cache: Path, *words: str) -> list[str]:
    """What bash is offered for the last word."""
    asked = {
        "_FSMM_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        env={**os.environ, **asked, "FSMM_CACHE": str(cache)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


EVAL = ("fsmm", "episode-eval")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("fsmm", "ep"), ["episode-eval", "episodes"]),
        ((*EVAL, "--method", "proto"), ["protonet"]),
        ((*EVAL, "--method", "protonet-"), ["protonet-ec", "protonet-ea", "protonet-lf"]),
        (
            (*EVAL, "--method", "tip-adapter-"),
            ["tip-adapter-f", "tip-adapter-ec", "tip-adapter-ea", "tip-adapter-lf"],
        ),
        ((*EVAL, "--dataset", "to"), ["town", "toy"]),
        ((*EVAL, "--dataset", "toy", "--modalities", ""), ["audio", "frame"]),
        ((*EVAL, "--dataset", "toy", "--modalities", "frame,"), ["frame,audio"]),
        ((*EVAL, "--dataset", "town", "--query-modalities", "d"), ["depth"]),
        ((*EVAL, "--dataset", "toy", "--streams", "frame/"), ["frame/net"]),
        ((*EVAL, "--dataset", "toy", "--missing-sweep", "audio@q"), ["audio@query"]),
        ((*EVAL, "--normalise", "c"), ["centre-l2"]),
        ((*EVAL, "--split", "no"), ["novel"]),
        (("fsmm", "methods", "eck"), ["eckpn"]),
        (("fsmm", "extract", "--dataset", "3"), ["3massiv"]),
        (("fsmm", "extract", "--encoder", "frame=i3"), ["frame=i3d-rgb"]),
        (("fsmm", "encoders", "--fetch", "yam"), ["yamnet", "yamnet-scores"]),
        (("fsmm", "cache", "info", "--dataset", "tow"), ["town"]),
        (("fsmm", "compare", "toy/"), ["toy/protonet-0a1b"]),
        (("fsmm", "cache", "rm", "--dataset", "toy", "--run", "t"), ["toy/protonet-0a1b"]),
    ],
    ids=" ".join,
)
def test_the_values_of(cache: Path, words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(cache, *words) == offered


def test_every_method_is_offered(cache: Path) -> None:
    assert set(METHODS) <= set(completed(cache, *EVAL, "--method", ""))


def test_another_cache_on_the_line_counts(cache: Path, tmp_path: Path) -> None:
    assert completed(tmp_path, *EVAL, "--cache", str(cache), "--dataset", "tow") == ["town"]
    assert completed(tmp_path, *EVAL, "--dataset", "tow") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_by_the_script_that_is_printed(cache: Path, tmp_path: Path) -> None:
    program = tmp_path / "fsmm"
    program.write_text(f"#!{sys.executable}\n{MAIN}\n")
    program.chmod(0o755)
    script = 'eval "$(_FSMM_COMPLETE=source_bash fsmm)"; COMP_WORDS=(fsmm methods eck); COMP_CWORD=2; '
    script += '"$(complete -p fsmm | sed "s/.*-F //; s/ .*//")" fsmm eck methods; echo "${COMPREPLY[@]}"'
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FSMM_CACHE": str(cache)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["eckpn"], done.stderr


@pytest.mark.parametrize(
    "words", [(*EVAL, "--method", "p"), (*EVAL, "--dataset", ""), (*EVAL, "--modalities", "")]
)
def test_completion_imports_nothing_heavy(cache: Path, words: tuple[str, ...]) -> None:
    asked = {
        "_FSMM_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    code = (
        "import atexit, sys; atexit.register(lambda: print([m for m in ('torch', 'numpy') if m in sys.modules], "
        f"file=sys.stderr)); {MAIN}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked, "FSMM_CACHE": str(cache)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.strip() == "[]"
