"""The workers of a sweep: forked processes of this machine, or the machines of a Ray cluster, which send runs back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ...errors import CacheError, FsmmError
from ...machine.files import whole_or_absent
from ...machine.forked_jobs import ForkedJobs
from ...machine.locks import lock_of
from ...machine.outcome import Outcome
from ...machine.ray_engine import RayJobs
from .data import DataFacts
from .identity import head_name, run_key
from .store import HEADS, LOCKS, RUNS, is_stored
from .work import BUSY, STORED, Loader, Task, do, is_trained


class Workers(Protocol):
    """What does the tasks of a sweep, some at a time; it is a context manager that ends what runs when it is left."""

    def __enter__(self) -> Workers: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def has_room(self) -> bool:
        """Whether another task may begin."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether no task runs and none waits to be told."""
        ...

    def begin(self, task: Task) -> None:
        """Begin a task; its outcome comes with ``wait`` under the task's key."""
        ...

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes of the tasks that have ended; it waits for the first one, so many seconds at most."""
        ...


class LocalWorkers:
    """Workers of this machine, which share the banks that are loaded before they are forked."""

    def __init__(self, pool: ForkedJobs, folder: Path, loader: Loader) -> None:
        self._pool, self._folder, self._loader = pool, folder, loader

    def __enter__(self) -> LocalWorkers:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    @property
    def has_room(self) -> bool:
        """Whether another task may begin."""
        return self._pool.has_room

    @property
    def is_idle(self) -> bool:
        """Whether no task runs and none waits to be told."""
        return self._pool.is_idle

    def begin(self, task: Task) -> None:
        """Load what a task reads, and begin it."""
        self._loader.load(task)
        self._pool.start(task.key, partial(do, task, self._folder, self._loader.shared))

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes of the tasks that have ended; it waits for the first one, so many seconds at most."""
        return self._pool.wait(seconds)


class RayWorkers:
    """Machines of a Ray cluster, which read the cache at its path and send the folders of runs and heads back.

    The study's folder is this machine's alone. A task is locked here while another machine does it, so that two sweeps
    into one folder do no harm, whichever engines they have.
    """

    def __init__(self, jobs: RayJobs, folder: Path) -> None:
        self._jobs, self._folder = jobs, folder
        self._locks: dict[str, tuple[ExitStack, Task]] = {}
        self._ended: list[Outcome] = []

    def __enter__(self) -> RayWorkers:
        self._jobs.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.__exit__(kind, error, trace)
        for lock, _ in self._locks.values():
            lock.close()
        self._locks.clear()

    @property
    def has_room(self) -> bool:
        """Whether another task may begin."""
        return self._jobs.has_room and not self._ended

    @property
    def is_idle(self) -> bool:
        """Whether no task runs and none waits to be told."""
        return self._jobs.is_idle and not self._ended

    def begin(self, task: Task) -> None:
        """Send a task to a machine, with the head that it uses."""
        lock = ExitStack()
        if not lock.enter_context(lock_of(self._folder / LOCKS / task.key)):
            lock.close()
            self._ended.append(Outcome(job=task.key, value=BUSY))
        elif _is_done(task, self._folder):
            lock.close()
            self._ended.append(Outcome(job=task.key, value=STORED))
        else:
            self._locks[task.key] = (lock, task)
            self._jobs.start(task.key, partial(do_elsewhere, _sent(task), _head_files(task, self._folder)))

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes of the tasks that have ended, whose folders are stored by then."""
        found, self._ended = self._ended, []
        for outcome in [] if found else self._jobs.wait(seconds):
            lock, task = self._locks.pop(str(outcome.job))
            try:
                found.append(_kept(outcome, task, self._folder))
            finally:
                lock.close()
        return found


@dataclass(frozen=True, kw_only=True)
class Made:
    """What another machine has made."""

    value: str | Mapping[str, Any]
    """The result of the task (see work.do)."""
    files: Mapping[str, bytes]
    """The files of the run's or the head's folder, by their path in it."""


def do_elsewhere(task: Task, head: Mapping[str, bytes]) -> Made:
    """Do a task on this machine, in a folder that is gone afterwards.

    head: the files of the trained head that the run uses. Raises FsmmError where this machine's cache holds other data
    than the one for which the task was planned, and what the run raises.
    """
    _refuse_other_data(task)
    with tempfile.TemporaryDirectory(prefix="fsmm-sweep-") as place:
        folder = Path(place)
        if task.head is not None and not task.trains:
            _write(folder / HEADS / task.head, head)
        value = do(task, folder, _loader().shared)
        return Made(value=value, files=_files(_folder_of(task, folder)))


@cache
def _loader() -> Loader:
    """What this process has read, which the tasks that it does share."""
    return Loader()


@cache
def _facts(root: Path, dataset: str | None) -> DataFacts:
    return DataFacts(root, dataset)


def _refuse_other_data(task: Task) -> None:
    """Raise CacheError where the features or labels that a task reads here are not those that it was planned for."""
    place = task.job.place
    assert place.cache is not None
    facts = _facts(Path(place.cache), place.dataset)
    name = head_name(task.trained_as, facts) if task.trains else run_key(task.job, task.trained_as, facts)
    if name != task.key:
        raise CacheError(
            f"The cache {str(place.cache)!r} holds other data on a machine of the cluster; let all machines read one "
            "cache, or copy it anew."
        )


def _is_done(task: Task, folder: Path) -> bool:
    return is_trained(folder, task.key) if task.trains else is_stored(folder / RUNS / task.key)


def _folder_of(task: Task, folder: Path) -> Path:
    """The folder that a task makes in a study's folder."""
    return folder / (HEADS if task.trains else RUNS) / task.key


def _sent(task: Task) -> Task:
    """The task with the cache's whole path, since other machines work in other folders."""
    place = task.job.place
    assert place.cache is not None
    return replace(task, job=replace(task.job, place=replace(place, cache=Path(place.cache).absolute())))


def _head_files(task: Task, folder: Path) -> Mapping[str, bytes]:
    """The files of the head that a run uses."""
    return {} if task.trains or task.head is None else _files(folder / HEADS / task.head)


def _kept(outcome: Outcome, task: Task, folder: Path) -> Outcome:
    """The outcome of a task whose folder is stored; where that fails, the failure."""
    if not isinstance(outcome.value, Made):
        return outcome
    try:
        place = _folder_of(task, folder)
        with whole_or_absent(place) as temporary:
            _write(temporary, outcome.value.files)
            shutil.rmtree(place, ignore_errors=True)  # what is there is damaged, or a half-trained head
    except OSError as error:
        reason = f"{str(place)!r} cannot be written ({error.strerror or error})."
        return Outcome(job=outcome.job, kind=FsmmError.__name__, reason=reason)
    return replace(outcome, value=outcome.value.value)


def _files(folder: Path) -> dict[str, bytes]:
    """The contents of the files below a folder, by path; those of hidden ones are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
