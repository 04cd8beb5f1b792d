"""What a worker does: it trains one head, or does one run, under the lock of that head or run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import FsmmError
from ...machine.files import parsed_json, write_json
from ...machine.locks import lock_of
from ...runs.banks import Banks
from ...runs.job import Job
from ...runs.run import Ready, Run, finish, load, ready, run
from ...runs.shared import SharedBanks
from ...runs.spec import RunSpec
from ...runs.train import Training
from ...runs.unfinished import no_half_run
from .store import HEADS, LOCKS, RUNS, is_stored

TRAINED = "trained.json"
"""The file that is written last into the folder of a trained head: the record of its training."""
BUSY, STORED = "busy", "stored"
"""The results of a task that another sweep is doing, and of one that another sweep has done meanwhile."""
_TOLD = ("accuracy", "ci95", "ci95_clips", "episodes", "eval_seconds", "train_seconds", "peak_memory_mb")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run that is to be done, or a head that is to be trained for runs."""

    key: str
    """The key of the run, or the name of the head."""
    job: Job
    """The run; for a head, one of the runs that use it."""
    trained_as: RunSpec
    """The specification under which the head is trained."""
    head: str | None = None
    """The name of the head that the run uses, or None where it needs none."""
    trains: bool = False
    """Whether the task is the training of a head."""
    seconds: float = 0.0
    """The time that it is expected to take."""


def preload(task: Task, shared: SharedBanks) -> None:
    """Load the banks that a task reads, so that processes that are forked afterwards share them."""
    spec = task.trained_as if task.trains else task.job.spec
    banks = Banks(spec, task.job.place, shared)
    if task.trains or spec.resolved.fits_base:
        _ = banks.base, banks.val
    if spec.protocol.generalised:
        _ = banks.seen, banks.val
    _ = banks.unlabelled


def do(task: Task, folder: Path, shared: SharedBanks) -> str | dict[str, Any]:
    """Do a task of the study in ``folder``; the result is BUSY, STORED, or the figures of the run that are told.

    Raises what the run raises.
    """
    with lock_of(folder / LOCKS / task.key) as is_ours:
        if not is_ours:
            return BUSY
        if task.trains:
            return _train(task, folder, shared)
        if is_stored(folder / RUNS / task.key):
            return STORED
        done = _run(task, folder, shared)
        return {key: done.metrics.get(key) for key in _TOLD}


def is_trained(folder: Path, head: str) -> bool:
    """Whether the study in ``folder`` holds a trained head; it is checked again when it is loaded."""
    return (folder / HEADS / head / TRAINED).is_file()


def _train(task: Task, folder: Path, shared: SharedBanks) -> str:
    """Train a head and write the record of its training."""
    place = folder / HEADS / task.key
    if is_trained(folder, task.key):
        return STORED
    made = _ready(task, place, shared)
    training = None if made.made.training is None else asdict(made.made.training)
    write_json(place / TRAINED, {"training": training, "stopped": made.made.stopped})
    return STORED


def _ready(task: Task, place: Path, shared: SharedBanks) -> Ready:
    """The head of a task, which is trained or loaded in the folder ``place``."""
    spec = replace(task.job, spec=task.trained_as, place=replace(task.job.place, out=place))
    return ready(*load(spec, shared=shared))


def _run(task: Task, folder: Path, shared: SharedBanks) -> Run:
    """Do a run and store it."""
    out = folder / RUNS / task.key
    job = replace(task.job, place=replace(task.job.place, out=out))
    if task.head is None:
        return run(job, shared=shared)
    place = folder / HEADS / task.head
    made = _ready(task, place, shared)
    trained = replace(made.made, training=_record(place) or made.made.training)
    job, banks = load(job, shared=shared)
    with no_half_run(out):
        return finish(Ready(job=job, banks=banks, made=trained))


def _record(place: Path) -> Training | None:
    """The record of the training of a head, as far as it can be read."""
    try:
        found = parsed_json((place / TRAINED).read_text("utf-8"))["training"]
        return None if found is None else Training(**found)
    except (OSError, ValueError, KeyError, TypeError, FsmmError):
        return None
