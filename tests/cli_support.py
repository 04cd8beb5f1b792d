"""The command line in the process of the tests: what a subprocess gives, without the seconds of its imports."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from unittest import mock

from fsmm.cli import main


def called(*words: object) -> subprocess.CompletedProcess[str]:
    """Call ``fsmm`` with these words: its exit code and what it wrote, as a pipe would have got it."""
    command = ["fsmm", *map(str, words)]
    out, said = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(said),
    ):
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
    return subprocess.CompletedProcess(command, code, out.getvalue(), said.getvalue())
