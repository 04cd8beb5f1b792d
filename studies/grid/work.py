"""What a worker does: it trains one head, or does one run, under the lock of that head or run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import FsmmError
from ...machine.checked import with_check, without_check
from ...machine.files import parsed_json, write_json
from ...machine.locks import lock_of
from ...runs.banks import Banks
from ...runs.digest import digest
from ...runs.filling import WITHOUT_BASE
from ...runs.job import Job
from ...runs.ready import built_head
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


class Loader:
    """Loads the banks that tasks read, so that processes that are forked afterwards share them."""

    def __init__(self) -> None:
        self.shared = SharedBanks()
        self._loaded: set[str] = set()

    def load(self, task: Task, *, trains: bool | None = None) -> None:
        """Load what a task reads, once; where that fails, the task fails by itself and says why.

        trains: whether the task reads what training reads; None for what the task is.
        """
        learns = task.trains if trains is None else trains
        spec = task.trained_as if learns else task.job.spec
        weighs = spec.fusion is not None or spec.settings.get("weights") == "base"
        fills = spec.when_missing not in WITHOUT_BASE and spec.protocol.withholds
        needs_base = learns or weighs or fills or spec.resolved.fits_base
        key = digest({"task": _reads(spec), "dataset": task.job.place.dataset, "base": needs_base})
        if key in self._loaded:
            return
        self._loaded.add(key)
        with suppress(FsmmError, OSError, ValueError):
            banks = Banks(spec, task.job.place, self.shared)
            _ = banks.unlabelled
            if needs_base or spec.protocol.generalised:
                _ = banks.base, banks.val


def _reads(spec: RunSpec) -> dict[str, Any]:
    """The fields of a specification on which depends what is read."""
    protocol, method = spec.protocol, spec.resolved
    return {
        "streams": [spec.streams, spec.modalities, spec.words, spec.dtype, spec.normalise],
        "clips": [protocol.label_set, protocol.split, protocol.class_split, protocol.clip_split],
        "base": spec.train_dataset,
        "more": [protocol.unlabelled > 0, protocol.generalised, protocol.seed if protocol.generalised else 0],
        "method": [spec.reads_time, method.words],
    }


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
    write_json(place / TRAINED, with_check({"training": training, "stopped": made.made.stopped}))
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
    if job.spec.settings != made.job.spec.settings:
        head = built_head(job.spec, banks)
        head.load_state_dict(trained.head.state_dict())
        trained = replace(trained, head=head)
    with no_half_run(out):
        return finish(Ready(job=job, banks=banks, made=trained))


def _record(place: Path) -> Training | None:
    """The record of the training of a head, as far as it can be read."""
    try:
        found = without_check(parsed_json((place / TRAINED).read_text("utf-8")))["training"]
        return None if found is None else Training(**found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FsmmError):
        return None
