"""Jobs that each run in a forked process of its own, some at a time; what one does, or dies of, disturbs no other.

A forked process shares what its parent has loaded without a copy. Where processes cannot be forked, jobs run in this
one, one after another.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Hashable
from multiprocessing import connection
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from ..errors import FsmmError
from .local_engine import start_shielded
from .orphans import end_with_parent
from .outcome import Outcome, attempt


class ForkedJobs:
    """A context manager that runs at most ``most`` jobs at a time, and ends those that run when it is left.

    forked: whether jobs have processes of their own where the platform has them; a GPU cannot be used by processes that
    are forked after it was. Torch computes with one thread in a forked job, and Ctrl-C is for the parent alone.
    """

    def __init__(self, most: int, *, forked: bool = True) -> None:
        self._forked = forked and sys.platform == "linux"
        self.most = max(1, most) if self._forked else 1
        self._running: dict[Connection, tuple[Hashable, Any]] = {}
        self._ended: list[Outcome] = []

    def __enter__(self) -> ForkedJobs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self._running.values():
            process.kill()
        for end, (_, process) in self._running.items():
            process.join()
            end.close()
        self._running.clear()

    @property
    def has_room(self) -> bool:
        """Whether another job may start."""
        return len(self._running) + len(self._ended) < self.most

    @property
    def is_idle(self) -> bool:
        """Whether no job runs and none waits to be told."""
        return not self._running and not self._ended

    def start(self, job: Hashable, work: Callable[[], Any]) -> None:
        """Start a job; its result or error comes with ``wait`` under the name ``job``."""
        if not self._forked:
            self._ended.append(_outcome(job, attempt(work)))
            return
        context = multiprocessing.get_context("fork")
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(work, send, os.getpid()), daemon=True)
        start_shielded(process)
        send.close()
        self._running[receive] = (job, process)

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes of the jobs that have ended; it waits for the first one, so many seconds at most."""
        ended, self._ended = self._ended, []
        if ended or not self._running:
            return ended
        for end in connection.wait(list(self._running), seconds):
            if isinstance(end, Connection):
                job, process = self._running.pop(end)
                ended.append(_outcome(job, _received(end, process)))
        return ended


def _child(work: Callable[[], Any], send: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
    torch.set_num_threads(1)
    send.send(attempt(work))
    os._exit(0)  # The streams of the parent, which another thread of it may have held, are left alone.


def _received(end: Connection, process: Any) -> tuple[Any, str, str]:
    """What a job has sent, or the way in which its process died."""
    try:
        found: tuple[Any, str, str] = end.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with code {code}"
        return None, FsmmError.__name__, f"The worker process {how}, perhaps for want of memory."
    finally:
        end.close()
    process.join()
    return found


def _outcome(job: Hashable, found: tuple[Any, str, str]) -> Outcome:
    value, kind, reason = found
    return Outcome(job=job, value=value, kind=kind, reason=reason)
