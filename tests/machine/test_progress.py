"""Progress as a person sees it on a terminal, and as a log has it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fsmm.machine.pace import Pace
from fsmm.machine.progress import Lines, reporter, silence

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def seen_on_terminal(program: str, tmp_path: Path) -> tuple[list[str], str]:
    """The lines that a program leaves on a terminal's standard error and output, and all that it drew."""
    script = tmp_path / "program.py"
    script.write_text(program)
    ours, theirs = pty.openpty()
    drawn: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux reports the end of a terminal's last writer so.
                return
            if not part:
                return
            drawn.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    environment = {**os.environ, "COLUMNS": "150", "TERM": "xterm"}
    command, streams = [sys.executable, str(script)], dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    done = subprocess.run(command, check=False, timeout=60, env=environment, **streams)
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    assert done.returncode == 0, b"".join(drawn).decode()
    text = b"".join(drawn).decode()
    kept = [
        _CODES.sub("", line).rpartition("\r")[2].strip() for line in text.replace("\r\n", "\n").split("\n")
    ]
    return [line for line in kept if line], text


PROGRAM = """
import logging, os, subprocess, sys, time, warnings
handler = logging.StreamHandler()  # it keeps the standard error of the time before the bar
from fsmm.machine.progress import reporter
with reporter("evaluate") as shown:
    shown(0, 4)
    shown(1, 4)
    time.sleep(0.3)
    os.write(2, b"a native library\\n")
    subprocess.run([sys.executable, "-c", "import sys; print('a child process', file=sys.stderr)"])
    warnings.warn("a warning")
    logging.getLogger("x").addHandler(handler)
    logging.getLogger("x").error("a logger")
    print("a print")
    os.write(2, b"10 %\\r50 %\\r100 % of a foreign bar\\n")
    time.sleep(0.3)
    shown(4, 4)
print("the result")
"""
FOREIGN = (
    "a native library",
    "a child process",
    "a warning",
    "a logger",
    "a print",
    "100 % of a foreign bar",
)


def test_foreign_lines_stand_above_the_bar_and_the_bar_vanishes(tmp_path: Path) -> None:
    lines, drawn = seen_on_terminal(PROGRAM, tmp_path)
    assert "evaluate" in drawn
    assert "1/4" in drawn
    for text in FOREIGN:
        (line,) = [
            line for line in lines if text in line and "warn(" not in line
        ]  # a warning shows its source
        assert "━" not in line, line
        assert "1/4" not in line, line
    assert lines[-1] == "the result"


def test_without_a_terminal_there_are_plain_lines(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.replace('reporter("evaluate")', 'reporter("evaluate", every=0.1)'))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("evaluate: 4 of 4")]
    assert re.fullmatch(r"evaluate: 4 of 4, \d+(\.\d)?/s, 0:00:00 left", line)
    assert done.stdout == "a print\nthe result\n"


def test_the_pace_is_that_of_the_running_phase() -> None:
    now = 0.0
    pace = Pace(clock=lambda: now)
    assert pace.rate is None
    now = 100.0  # what came before the phase, such as loading, counts for nothing
    pace.report(500)
    assert pace.seconds_left(1000) is None
    now = 110.0
    pace.report(600)
    assert pace.rate == pytest.approx(10.0)
    assert pace.seconds_left(1000) == pytest.approx(40.0)
    pace.report(0)  # the next phase
    now = 112.0
    pace.report(4)
    assert pace.rate == pytest.approx(2.0)


def test_a_line_tells_done_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines, now = Lines("run 3 of 8: train", every=0.0), 0.0
    lines.pace = Pace(clock=lambda: now)
    lines(0, 4000, "")
    now = 10.0
    lines(1000, 4000, "loss 0.500")
    assert capsys.readouterr().err.splitlines() == [
        "run 3 of 8: train: 0 of 4,000, -:--:-- left",
        "run 3 of 8: train: 1,000 of 4,000, 100/s, 0:00:30 left, loss 0.500",
    ]


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with silence(), reporter("clips", every=0.0) as shown:
        shown(1, 2)
        shown.say("a sentence")
    with silence(wanted=False), reporter("clips", every=0.0) as shown:
        shown.say("another")
    assert capsys.readouterr().err == "another\n"
