"""fsmm doctor: one line a check, the remedy beside what fails, and sense without the packages that read videos."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from fsmm.cli import app
from fsmm.commands import doctor
from fsmm.extract.built_in.clips import ODD


def run(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["doctor", *arguments])
    return found.exit_code, found.output


def test_it_tries_decoders_and_the_encoders_that_are_named() -> None:
    code, text = run("--encoders", "logmel-mfcc")
    assert code == 0, text
    lines = text.splitlines()
    assert all(any(f"decoder, {odd.name} clip" in line for line in lines) for odd in ODD)
    assert any(line.startswith("ok    encoder logmel-mfcc: accuracy") for line in lines)
    assert lines[-1] == "All works."


def test_what_fails_has_a_line_with_its_remedy_and_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fsmm.extract.built_in.decoding.faults_of_decoding", lambda odd: ["it is upside down"]
    )
    monkeypatch.setattr("fsmm.extract.built_in.encoding.cosine_to_reference", lambda encoder, features: 0.5)
    code, text = run("--encoders", "logmel-mfcc", "--json")
    document = json.loads(text)
    assert code == 1
    assert not document["ok"]
    fails = [check for check in document["checks"] if check["state"] == "fails"]
    assert len(fails) == len(ODD) + 1
    assert all(check["remedy"] for check in fails)


def test_a_library_that_raises_is_a_failure_and_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ImportError("libsomething.so.1 cannot\nopen")

    monkeypatch.setattr(doctor, "_hdf5", broken)
    code, text = run("--encoders", "none")
    assert code == 1
    assert "fails HDF5: ImportError: libsomething.so.1 cannot open." in text


def test_a_full_disk_fails_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_DISK", 1e18)
    code, text = run("--encoders", "none")
    assert code == 1
    assert "Remedy: free some space" in text


def test_an_unknown_encoder_and_one_without_weights(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path))
    assert "Unknown encoder 'logmel'" in str(
        CliRunner().invoke(app, ["doctor", "--encoders", "logmel"]).exception
    )
    code, text = run("--encoders", "glove-50d")
    assert code == 1
    assert "fsmm encoders --fetch glove-50d" in text
    assert "note  weights: none yet" in text


LEAN = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("av", "cv2") else real(name, *rest)
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("av", "cv2", "ai_edge_litert", "tokenizers"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
sys.argv = ["fsmm", "doctor"]
from fsmm.cli import main
main()
"""


def test_it_works_where_nothing_that_reads_videos_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'pip install -c constraints.txt -e ".[extract]"' in done.stdout
    assert "decoder," not in done.stdout
