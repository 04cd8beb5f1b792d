"""The workers as seen from the main process: outcomes come out in the order of the jobs, slow ones apart.

Each worker has a thread that hands it a job and waits for the answer. A worker that dies takes down only the
clip at hand: the clip is recorded and the worker is replaced. Workers are plain child processes, not
``multiprocessing`` ones, which would run the caller's ``__main__`` again in each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from typing import cast

from ...errors import FsmmError
from ..request import TIMEOUT
from .encoding import is_stated, raised_elsewhere
from .wire import receive, send, widen
from .worker import ENCODING, Job, Outcome, Setup

_WINDOW = 64  # jobs that may run ahead of the one that is wanted next
_HELD_BYTES = 512 << 20  # bytes of prepared arrays that may wait for the encoders
# After this many crashes with no good outcome in between, the machine is at fault, not the clips.
_CRASHES_IN_A_ROW = 25
_STARTS = 3  # How often a worker is started that a signal ends before it is ready.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve(int(sys.argv[2]))"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class _Worker:
    """One child process, replaced when it dies."""

    def __init__(self, setup: Setup, timeout: float, closing: threading.Event) -> None:
        self.setup, self.timeout, self.closing = setup, timeout, closing
        self.process: subprocess.Popen[bytes] | None = None
        self.deadline = float("inf")
        self.expired = False
        self.stage = ""

    def run(self, job: Job) -> tuple[Outcome, bool]:
        """The outcome, and whether the process died on it. Raises FsmmError if a worker cannot start."""
        process = self.process or self._start()
        self.expired, self.deadline, self.stage = False, time.monotonic() + self.timeout, ""
        try:
            send(cast("FileIO", process.stdin), job)
            answer = receive(cast("FileIO", process.stdout))
            if isinstance(answer, str):  # It is ENCODING. The encoders have as long again.
                self.deadline, self.stage = time.monotonic() + self.timeout, ENCODING
                answer = receive(cast("FileIO", process.stdout))
            return answer, False
        except (EOFError, BrokenPipeError):
            status = process.wait()
            self.end()
            return self._obituary(status), True
        finally:
            self.deadline = float("inf")

    def _start(self) -> subprocess.Popen[bytes]:
        """A process that is ready; one that a signal ends before is replaced. Raises FsmmError if none can start."""
        starts = 0
        while True:
            starts += 1
            process = self._opened()
            try:
                send(cast("FileIO", process.stdin), self.setup)
                trouble = receive(cast("FileIO", process.stdout))
            except (EOFError, BrokenPipeError):
                status = process.wait()
                if status < 0 and starts < _STARTS and not self.closing.is_set():
                    self.end()
                    continue
                trouble = ("", f"it ended: {_cause(status)}")
            if not trouble:
                return process
            kind, reason = trouble
            if is_stated(kind):
                raise raised_elsewhere(kind, reason)
            raise FsmmError(f"A worker could not start ({reason}); check the installation.")

    def _opened(self) -> subprocess.Popen[bytes]:
        boot = _BOOT.format(module=f"{__package__}.worker")
        # In a session of its own it gets no Ctrl-C: that reaches the main process only, which ends its workers.
        process = subprocess.Popen(
            [sys.executable, "-c", boot, json.dumps(sys.path), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        )
        self.process = process
        widen(cast("FileIO", process.stdout))
        return process

    def _obituary(self, status: int) -> Outcome:
        if self.expired:
            step = "encoding" if self.stage == ENCODING else "decoding"
            return Outcome(stage="timeout", reason=f"{step} took longer than {self.timeout:g} s")
        part = "an encoder" if self.stage == ENCODING else "the decoder"
        return Outcome(stage="crash", reason=f"{part} crashed ({_cause(status)})")

    def check(self, now: float) -> None:
        """End the process if its clip is overdue."""
        if now > self.deadline and self.process is not None:
            self.expired = True
            self.process.kill()

    def end(self) -> None:
        """End the process, whatever it is doing, and close its pipes; the next job starts another."""
        self.kill()
        process, self.process = self.process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def kill(self) -> None:
        """End the process; the thread that waits for its answer finds out."""
        process = self.process
        if process is not None:
            process.kill()
            process.wait()


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


class Pool:
    """A context manager that does jobs in worker processes, ahead of need, within bounded memory.

    timeout: seconds a clip may take. stop: called several times a second; True ends :meth:`outcomes` early.
    idle: called several times a second while an outcome is waited for. patience: seconds that finished outcomes wait
    for a slow job before them.
    """

    def __init__(
        self,
        setup: Setup,
        jobs: Sequence[Job],
        workers: int,
        timeout: float = TIMEOUT,
        stop: Callable[[], bool] = lambda: False,
        idle: Callable[[], None] = lambda: None,
        patience: float = float("inf"),
    ) -> None:
        self.jobs, self.stop, self.idle, self.patience = jobs, stop, idle, patience
        self._changed = threading.Condition()
        self._next = self._taken = self._held = self._crashes = 0
        self._done: dict[int, Outcome] = {}
        self._fatal: FsmmError | None = None
        self._closing = threading.Event()
        count = max(1, min(workers, len(jobs)))
        self._workers = [_Worker(setup, timeout, self._closing) for _ in range(count)]
        self._threads = [threading.Thread(target=self._serve, args=(w,), daemon=True) for w in self._workers]
        self._threads.append(threading.Thread(target=self._watch, daemon=True))

    def __enter__(self) -> Pool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:
            thread.join(timeout=5)
        for worker in self._workers:  # A worker that was just starting ends too.
            worker.end()

    def outcomes(self) -> Iterator[tuple[Job, Outcome]]:
        """Every job with its outcome, in the order of the jobs.

        Where a job takes longer than ``patience``, the later ones that are done come before it. Raises FsmmError if the
        workers fail as a whole.
        """
        early: set[int] = set()
        for number in range(len(self.jobs)):
            wait_until = time.monotonic() + self.patience
            while number not in early:
                ready = self._await(number, wait_until)
                if ready is None:
                    return
                outcome = self._take(ready)
                if self.stop():
                    return
                early.add(ready)
                yield self.jobs[ready], outcome
            early.discard(number)

    def _await(self, number: int, wait_until: float) -> int | None:
        """A job with an outcome: ``number``, or after ``wait_until`` any; None where a stop is asked for."""
        while True:
            with self._changed:
                if number in self._done:
                    return number
                if self._fatal is not None:
                    raise self._fatal
                if self._done and time.monotonic() > wait_until:
                    return min(self._done)
                self._changed.wait(0.2)
            if self.stop():
                return None
            self.idle()

    def _take(self, number: int) -> Outcome:
        with self._changed:
            outcome = self._done.pop(number)
            self._taken += 1
            self._held -= outcome.nbytes
            self._changed.notify_all()
        return outcome

    def _serve(self, worker: _Worker) -> None:
        while (number := self._claim()) is not None:
            try:
                outcome, died = worker.run(self.jobs[number])
            except FsmmError as error:
                self._give_up(error)
                return
            except Exception as error:  # The answer cannot be read, or the job cannot be sent.
                self._give_up(FsmmError(f"A worker failed ({type(error).__name__}: {error})."))
                return
            self._deliver(number, outcome, died)

    def _claim(self) -> int | None:
        """The next job's number, as soon as its outcome has room; None after the last job."""
        with self._changed:
            # Jobs are claimed in order, so held outcomes never keep the job that is wanted next waiting.
            while not self._closing.is_set() and self._next < len(self.jobs):
                if self._next < self._taken + _WINDOW and self._held < _HELD_BYTES:
                    self._next += 1
                    return self._next - 1
                self._changed.wait()
            return None

    def _deliver(self, number: int, outcome: Outcome, died: bool) -> None:
        with self._changed:
            self._done[number] = outcome
            self._held += outcome.nbytes
            self._crashes = self._crashes + 1 if died else 0
            self._changed.notify_all()
        if self._crashes >= _CRASHES_IN_A_ROW and not self._closing.is_set():
            self._give_up(
                FsmmError(
                    f"The extraction stopped: {self._crashes} clips in a row ended a worker, the last with: "
                    f"{outcome.reason}; check memory, the decoder and the encoders, or lower --workers."
                )
            )

    def _give_up(self, error: FsmmError) -> None:
        with self._changed:
            if not self._closing.is_set():
                self._fatal = self._fatal or error
            self._changed.notify_all()

    def _watch(self) -> None:
        while not self._closing.wait(0.25):
            for worker in self._workers:
                worker.check(time.monotonic())
