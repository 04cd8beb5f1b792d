"""Ctrl-C while the command line itself is being imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from fsmm.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["typer", "fsmm.cli", "fsmm.commands.sweep"])
def test_ctrl_c_while_modules_are_imported_is_quiet(name: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(name=name), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
