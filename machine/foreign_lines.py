"""The terminal for one writer alone: what anything else prints meanwhile is handed over line by line.

Native libraries and child processes write to the descriptors of standard output and error themselves, past Python's
``sys.stderr``, so that the descriptors have to be exchanged and not the Python objects.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_STREAMS = (1, 2)  # the descriptors of standard output and standard error
_PATIENCE = 1.0  # seconds that are waited for the last lines of a child process that still runs


@contextmanager
def terminal_alone(show: Callable[[str], None]) -> Iterator[TextIO]:
    """The terminal behind standard error, to draw on; every line that anything else prints meanwhile goes to ``show``.

    Of a line that was drawn over and over by carriage returns the last form is handed over. ``show`` is called in a
    thread of its own. A standard error that is no terminal is given as it is, and nothing is exchanged.
    """
    if not _is_terminal(2):
        yield sys.stderr
        return
    _flush()
    saved = {stream: os.dup(stream) for stream in _STREAMS if _is_terminal(stream)}
    reading, writing = os.pipe()
    for stream in saved:
        os.dup2(writing, stream)
    os.close(writing)
    reader = threading.Thread(target=_hand_over, args=(reading, show), daemon=True)
    reader.start()
    try:
        with open(os.dup(saved[2]), "w", encoding=sys.stderr.encoding, errors="replace") as terminal:
            try:
                yield terminal
            finally:
                _flush()
                for stream, old in saved.items():
                    os.dup2(old, stream)
                reader.join(_PATIENCE)
    finally:
        for old in saved.values():
            os.close(old)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """What native libraries say on standard error meanwhile is dropped: notes on their own doings, in each process.

    Python's own writers are held back as well, so that only a call that raises its errors belongs inside.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # There is no standard error.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(nowhere)
        os.close(saved)


def _is_terminal(stream: int) -> bool:
    try:
        return os.isatty(stream)
    except OSError:
        return False


def _flush() -> None:
    """Write out what Python holds back for the streams, before their descriptors are exchanged."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _hand_over(reading: int, show: Callable[[str], None]) -> None:
    """Hand over each line of the pipe until its last writer has closed it."""
    rest = b""
    with open(reading, "rb", buffering=0) as pipe:
        while more := pipe.read(1 << 16):
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                _show(line, show)
    _show(rest, show)


def _show(line: bytes, show: Callable[[str], None]) -> None:
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
    if text.strip():
        show(text)
