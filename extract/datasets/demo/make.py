"""The making of many demo clips: the missing ones are divided among processes, which report each finished clip.

A report is one byte. The processes are plain child processes, not ``multiprocessing`` ones, which would run the
caller's ``__main__`` again in each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from ....errors import FsmmError
from .plan import Clip, pictures
from .write import missing_clips, sweep, write_clip

_FRAMES_WORTH_A_PROCESS = 4_000  # about as many as two seconds, the start of a process, render
_STATED = 3  # exit code of a process whose last line of standard error is the sentence for the user
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve()"


def make_clips(
    clips: Sequence[Clip],
    folder: Path,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Make the clips that are not in ``folder`` yet, and return the number made.

    workers: processes; None for one a core, or fewer if little is to be done. The files do not depend on it.
    progress: called with the number of clips that have just become ready; first with the clips made before.
    Raises FsmmError if clips cannot be made; the finished ones stay, and the next call continues.
    """
    tell = progress or (lambda done: None)
    sweep(folder)
    missing = missing_clips(clips, folder)
    tell(len(clips) - len(missing))
    if not missing:
        return 0
    samples = pictures()
    jobs = [(clip, samples[clip.sample]) for clip in missing]
    workers = _useful_workers(missing) if workers is None else min(workers, len(missing))
    if workers > 1:
        _in_processes(jobs, folder, workers, tell)
    else:
        _in_this_process(jobs, folder, lambda: tell(1))
    return len(missing)


_Job = tuple[Clip, np.ndarray]


def _in_this_process(jobs: Sequence[_Job], folder: Path, finished: Callable[[], None]) -> None:
    for clip, picture in jobs:
        try:
            write_clip(clip, picture, folder)
        except (OSError, ValueError, av.FFmpegError) as error:
            raise FsmmError(
                f"The demo clips cannot be written to {str(folder)!r} ({error}); check its free space and permissions, "
                "or name another folder with --data."
            ) from None
        finished()


def _in_processes(jobs: Sequence[_Job], folder: Path, workers: int, tell: Callable[[int], None]) -> None:
    reading, writing = os.pipe()
    children: list[_Child] = []
    try:
        try:
            for i in range(workers):
                children.append(_Child(jobs[i::workers], folder, writing))  # noqa: PERF401 (children that have started must be ended)
        finally:
            os.close(writing)
        while done := os.read(reading, 4096):  # The loop ends when the last child has closed its end.
            tell(len(done))
        for child in children:
            child.check()
    finally:
        os.close(reading)
        for child in children:
            child.end()


class _Child:
    """A process that makes its share of the clips. Its jobs and its standard error lie in temporary files."""

    def __init__(self, jobs: Sequence[_Job], folder: Path, reports: int) -> None:
        order = {
            "folder": str(folder),
            "jobs": [{"clip": asdict(clip), "picture": picture.tolist()} for clip, picture in jobs],
        }
        with tempfile.TemporaryFile() as given:
            given.write(json.dumps(order).encode())
            given.seek(0)
            self.words = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT.format(module=__name__), json.dumps(sys.path)],
                stdin=given,
                stdout=reports,
                stderr=self.words,
            )

    def check(self) -> None:
        """Wait for the process to end. Raises FsmmError with its last line of standard error if it failed."""
        if code := self.process.wait():
            self.words.seek(0)
            lines = self.words.read().decode(errors="replace").strip().splitlines()
            if code == _STATED:
                raise FsmmError(lines[-1])
            why = lines[-1] if lines else f"status {code}"
            raise FsmmError(
                f"A process that makes demo clips ended early ({why}); run the same again to continue."
            )

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self.words.close()


def serve() -> None:
    """Run a child process, which reads jobs as JSON from standard input and writes one byte for each clip made."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # The exit deletes the unfinished file.
    order = json.load(sys.stdin)
    jobs = [(_clip(job["clip"]), np.array(job["picture"], np.uint8)) for job in order["jobs"]]
    try:
        _in_this_process(jobs, Path(order["folder"]), _report)
    except FsmmError as error:
        print(error, file=sys.stderr)
        sys.exit(_STATED)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)  # The parent was interrupted, or is gone: nobody reads a message.


def _report() -> None:
    os.write(1, b".")


def _clip(values: dict[str, Any]) -> Clip:
    return Clip(**{**values, "order": tuple(values["order"])})


def _useful_workers(clips: Sequence[Clip]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, sum(clip.frames for clip in clips) // _FRAMES_WORTH_A_PROCESS), 1)
