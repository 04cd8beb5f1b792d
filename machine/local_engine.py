"""Work is shared over cores by threads, or by forked processes where an item's operations are too small for threads.

Operations of a few hundred microseconds gain nothing from splitting over cores and lose much when a core is busy
elsewhere; workers that each take whole items do not wait for each other. Threads still wait for the interpreter's lock
between operations; a forked process does not, and it shares the features without a copy.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from ..errors import FsmmError
from .orphans import end_with_parent

Item = TypeVar("Item")
R = TypeVar("R")
Tick = Callable[[int], None]
# The seconds between two reports of progress.
_POLL = 0.1
# After so many seconds without progress of any process, the parent does their work itself.
_PATIENCE = 60.0


class _Stopped(Exception):
    """An error that ends a thread whose results are no longer needed."""


def share(
    work: Callable[[Sequence[Item], Tick], R],
    items: Sequence[Item],
    workers: int,
    *,
    forked: bool = False,
    progress: Tick | None = None,
) -> list[R]:
    """The results of ``work(part, tick)`` in worker order, where a part is every ``workers``-th of the items.

    work: calls tick(n) when n more units are done.
    forked: use forked processes where the platform has them, and threads otherwise; changes that work makes to its
        variables in a forked process are lost.
    progress: called in this thread with the number of units since its last call.
    Raises the error of a worker, and FsmmError where a process died.
    """
    workers = max(1, min(workers, len(items)))
    parts = [items[i::workers] for i in range(workers)]
    if workers == 1:
        return [work(parts[0], progress or (lambda n: None))]
    run = _in_processes if forked and sys.platform == "linux" else _in_threads
    return run(work, parts, progress)


def _in_threads(
    work: Callable[[Sequence[Item], Tick], R], parts: list[Sequence[Item]], progress: Tick | None
) -> list[R]:
    done, reported, stop = [0] * len(parts), 0, threading.Event()

    def one(number: int) -> R:
        def tick(n: int) -> None:
            if stop.is_set():
                raise _Stopped
            done[number] += n

        return work(parts[number], tick)

    with ThreadPoolExecutor(len(parts), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(one, i) for i in range(len(parts))]
        try:
            waiting = True
            while waiting:
                waiting = bool(wait(futures, _POLL, "FIRST_EXCEPTION").not_done)
                failed = any(f.done() and f.exception() for f in futures)
                if progress and sum(done) > reported:
                    progress(sum(done) - reported)
                    reported = sum(done)
                if failed:
                    break
        finally:
            stop.set()
        errors = [e for f in futures if f.done() and (e := f.exception()) and not isinstance(e, _Stopped)]
        if errors:
            raise errors[0]
        return [f.result() for f in futures]


def _in_processes(
    work: Callable[[Sequence[Item], Tick], R], parts: list[Sequence[Item]], progress: Tick | None
) -> list[R]:
    context = multiprocessing.get_context("fork")
    done = context.Array("q", len(parts))
    processes, ends = [], []
    try:
        for number, part in enumerate(parts):
            receive, send = context.Pipe(duplex=False)
            arguments = (work, part, done, number, send, os.getpid())
            process = context.Process(target=_child, args=arguments, daemon=True)
            start_shielded(process)
            send.close()
            processes.append(process)
            ends.append(receive)
        found = _collect(ends, done, progress)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [found[i] if i in found else work(part, lambda n: None) for i, part in enumerate(parts)]


def start_shielded(process: Any) -> None:
    """Start a process in which Ctrl-C does nothing from the first instant: the parent ends its children."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(
    work: Callable[[Sequence[Item], Tick], R],
    part: Sequence[Item],
    done: Any,
    number: int,
    send: Connection,
    parent: int,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
    torch.set_num_threads(1)

    def tick(n: int) -> None:
        done[number] += n

    try:
        send.send((True, work(part, tick)))
    except Exception as error:  # The parent raises the error, whatever its kind.
        send.send((False, error))


def _collect(ends: list[Connection], done: Any, progress: Tick | None) -> dict[int, Any]:
    """The results by worker, without those of workers that made no progress for too long.

    Progress is reported meanwhile. A forked process can wait for ever for a lock of a numerical library that a thread
    held when the process was forked. This is very rare, but a run must not wait for ever.
    """
    waiting, found = dict(enumerate(ends)), {}
    reported, moved, seen = 0, time.monotonic(), list(done)
    while waiting and time.monotonic() - moved < _PATIENCE:
        connection.wait(list(waiting.values()), _POLL)
        for number, end in list(waiting.items()):
            if end.poll():
                found[number] = _received(end)
                del waiting[number]
                moved = time.monotonic()
        if list(done) != seen:
            moved, seen = time.monotonic(), list(done)
        if progress and sum(seen) > reported:
            progress(sum(seen) - reported)
            reported = sum(seen)
    return found


def _received(end: Connection) -> Any:
    try:
        fine, value = end.recv()
    except EOFError:
        raise FsmmError(
            "A worker process died before it was done, perhaps for want of memory; set OMP_NUM_THREADS=1 to work in "
            "one process."
        ) from None
    if not fine:
        raise value
    return value
