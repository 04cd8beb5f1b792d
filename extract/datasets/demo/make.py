"""Making many demo clips: what is missing is divided among processes, which report one byte a finished clip.

They are plain child processes, not ``multiprocessing`` ones, which would run the caller's ``__main__`` again in each.
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

_FRAMES_WORTH_A_PROCESS = 4_000  # about what is rendered in the two seconds that a process needs to start
_STATED = 3  # exit code of a process whose last line of standard error is the sentence for the user
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve()"


def make_clips(
    clips: Sequence[Clip],
    folder: Path,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Make those of the clips that are not in ``folder`` yet; returns how many that were.

    workers: processes; None for one a core, fewer where there is little to do. The files do not depend on it.
    progress: called with how many clips have just become ready; first with those that were there before.
    Raises FsmmError where clips cannot be made; those that were finished stay, and the next call continues.
    """
    tell = progress or (lambda done: None)
    sweep(folder)
    missing = missing_clips(clips, folder)
    tell(len(clips) - len(missing))
    if not missing:
        return 0
    shown = pictures()
    jobs = [(clip, shown[clip.sample]) for clip in missing]
    workers = _useful_workers(missing) if workers is None else min(workers, len(missing))
    if workers > 1:
        _in_processes(jobs, folder, workers, tell)
    else:
        _here(jobs, folder, lambda: tell(1))
    return len(missing)


_Job = tuple[Clip, np.ndarray]


def _here(jobs: Sequence[_Job], folder: Path, finished: Callable[[], None]) -> None:
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
                children.append(_Child(jobs[i::workers], folder, writing))  # noqa: PERF401 (end those that started)
        finally:
            os.close(writing)
        while done := os.read(reading, 4096):  # ends when the last child has closed its end
            tell(len(done))
        for child in children:
            child.check()
    finally:
        os.close(reading)
        for child in children:
            child.end()


class _Child:
    """A process that makes its share of the clips. Its jobs and its last words lie in temporary files."""

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
        """Wait for its end. Raises FsmmError with its last words where that was not a good one."""
        if code := self.process.wait():
            self.words.seek(0)
            said = self.words.read().decode(errors="replace").strip().splitlines()
            if code == _STATED:
                raise FsmmError(said[-1])
            why = said[-1] if said else f"status {code}"
            raise FsmmError(
                f"A process that makes demo clips ended early ({why}); run the same again to continue."
            )

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self.words.close()


def serve() -> None:
    """The life of a child process: jobs as JSON from standard input; one byte to standard output for each clip made."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the unfinished file is deleted
    order = json.load(sys.stdin)
    jobs = [(_clip(job["clip"]), np.array(job["picture"], np.uint8)) for job in order["jobs"]]
    try:
        _here(jobs, Path(order["folder"]), _report)
    except FsmmError as error:
        print(error, file=sys.stderr)
        sys.exit(_STATED)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)  # the parent was interrupted, or is gone: nobody reads what would be said


def _report() -> None:
    os.write(1, b".")


def _clip(values: dict[str, Any]) -> Clip:
    return Clip(**{**values, "order": tuple(values["order"])})


def _useful_workers(clips: Sequence[Clip]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, sum(clip.frames for clip in clips) // _FRAMES_WORTH_A_PROCESS), 1)
