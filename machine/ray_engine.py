"""Jobs on the machines of a Ray cluster; what is lost with a machine is done again by the others.

The cluster is the one that RAY_ADDRESS names, else one that is started on this machine and ends with this process. Ray
is imported when it is used; an installation without it does everything else.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any

from .._version import NUMERIC_VERSION, __version__
from ..errors import FsmmError, UsageError, install_hint
from .outcome import Outcome, attempt

ADDRESS = "RAY_ADDRESS"
"""The variable of the environment that names a running cluster."""
TRIES = 3
"""How often a job is begun at most; after so many losses, the job is taken for what ends its process."""
_STORE_BYTES = 256 << 20  # the object store of a cluster that is started here; results are small


def ray() -> Any:
    """The package of Ray. Raises UsageError, which names the extra, where it is not installed."""
    # What Ray has to say about lost machines would stand on standard output, among results.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UsageError(f"The engine 'ray' needs the package ray: {install_hint('ray')}.") from None


def connect() -> Any:
    """The package of Ray, connected to the cluster. Raises FsmmError where the cluster cannot be reached or started."""
    package = ray()
    if package.is_initialized():
        return package
    address = os.environ.get(ADDRESS)
    started: dict[str, Any] = (
        {} if address else {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    )
    try:
        package.init(
            address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            **started,
        )
    except Exception as error:  # Ray raises errors of many kinds here, some of them Python's own.
        where = f"at {ADDRESS}={address}" if address else "on this machine"
        raise FsmmError(
            f"Ray cannot be used {where} ({_one_line(error)[:300]}); start a cluster with `ray start --head` and set "
            f"{ADDRESS} to its address, or use --engine local."
        ) from error
    return package


def slots(*, cpus: float = 1.0, gpus: float = 0.0) -> int:
    """How many jobs with so many CPUs and GPUs the machines of the cluster can do at a time."""
    count = 0
    for node in connect().nodes():
        if node["Alive"]:
            held = node["Resources"]
            count += int(
                min(
                    held.get(name, 0.0) / needed
                    for name, needed in (("CPU", cpus), ("GPU", gpus))
                    if needed > 0
                )
            )
    return count


def cores_beside_gpus() -> tuple[int, int]:
    """The number of GPUs of the cluster, and the number of cores that each of them has beside it at least."""
    nodes = [node["Resources"] for node in connect().nodes() if node["Alive"]]
    with_gpu = [held for held in nodes if held.get("GPU", 0.0) >= 1]
    cores = min((int(held.get("CPU", 0.0) // held["GPU"]) for held in with_gpu), default=0)
    return sum(int(held["GPU"]) for held in with_gpu), max(cores, 1)


class RayJobs:
    """A context manager that runs at most ``most`` jobs at a time on the cluster, and ends those that run when left.

    It is used as ForkedJobs is; a job is a function that can be pickled, and so is its result. Each has so many CPUs
    and GPUs to itself. A job whose machine or process is lost is begun again, TRIES times in all. Raises UsageError
    where Ray is not installed, and FsmmError where no machine of the cluster has what a job needs.
    """

    def __init__(self, most: int | None = None, *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        self._ray = connect()
        available = slots(cpus=cpus, gpus=gpus)
        refuse_no_slot(available, cpus=cpus, gpus=gpus)
        self.most = min(most or available, available)
        # A lost job is begun again here, so that losses are counted; Ray itself would begin it again without a word.
        self._remote = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(answer)
        self._running: dict[Any, tuple[Hashable, Callable[[], Any]]] = {}
        self._losses: Counter[Hashable] = Counter()

    def __enter__(self) -> RayJobs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()

    @property
    def has_room(self) -> bool:
        """Whether another job may start."""
        return len(self._running) < self.most

    @property
    def is_idle(self) -> bool:
        """Whether no job runs."""
        return not self._running

    def start(self, job: Hashable, work: Callable[[], Any]) -> None:
        """Start a job; its result or error comes with ``wait`` under the name ``job``."""
        self._running[self._remote.remote(work, versions())] = (job, work)

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes of the jobs that have ended; it waits for the first one, so many seconds at most."""
        outcomes = []
        for reference in ended(self._ray, list(self._running), seconds):
            job, work = self._running.pop(reference)
            outcome = outcome_of(self._ray, reference, job)
            if outcome is not None:
                outcomes.append(outcome)
                continue
            self._losses[job] += 1
            if self._losses[job] < TRIES:
                self.start(job, work)
            else:
                outcomes.append(given_up(job))
        return outcomes


def ended(package: Any, references: list[Any], seconds: float) -> list[Any]:
    """The references of results that are there; it waits for the first one, so many seconds at most."""
    if not references:
        return []
    first, rest = package.wait(references, num_returns=1, timeout=seconds)
    more = package.wait(rest, num_returns=len(rest), timeout=0)[0] if first and rest else []
    return [*first, *more]


def outcome_of(package: Any, reference: Any, job: Hashable) -> Outcome | None:
    """The outcome of a job that has ended, or None where it was lost with its process or machine."""
    errors = package.exceptions
    try:
        value, kind, reason = package.get(reference)
    except errors.RayTaskError as error:  # The job could not be read there, for instance.
        return Outcome(job=job, kind=FsmmError.__name__, reason=_one_line(error.cause))
    except (
        errors.WorkerCrashedError,
        errors.NodeDiedError,
        errors.ObjectLostError,
        errors.RayActorError,
        errors.LocalRayletDiedError,
        errors.OutOfMemoryError,
    ):
        return None
    except errors.RayError as error:
        return Outcome(job=job, kind=type(error).__name__, reason=_one_line(error))
    return Outcome(job=job, value=value, kind=kind, reason=reason)


def given_up(job: Hashable) -> Outcome:
    """The outcome of a job that was lost TRIES times."""
    reason = f"Its worker process or machine was lost {TRIES} times, perhaps for want of memory."
    return Outcome(job=job, kind=FsmmError.__name__, reason=reason)


def refuse_no_slot(available: int, *, cpus: float, gpus: float) -> None:
    """Raise FsmmError where the cluster has no slot for a job that needs so many CPUs and GPUs."""
    if available < 1:
        needs = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        raise FsmmError(
            f"No machine of the Ray cluster has {needs}, which a job needs; add one, or change --device."
        )


def versions() -> tuple[str, str]:
    """The version of fsmm and of its arithmetic, in which all machines of a cluster must agree."""
    return __version__, str(NUMERIC_VERSION)


def answer(work: Callable[[], Any], expected: tuple[str, str]) -> tuple[Any, str, str]:
    """Do a job on a machine of the cluster: its result, the kind of its error and the sentence of that."""
    return attempt(lambda: checked(work, expected))


def checked(work: Callable[[], Any], expected: tuple[str, str]) -> Any:
    """The result of ``work``. Raises FsmmError where this machine has another version of fsmm.

    Numerical libraries use as many threads as the job has CPUs, which Ray sees to by OMP_NUM_THREADS.
    """
    if versions() != expected:
        raise FsmmError(
            f"Machine {os.uname().nodename} has fsmm {' / '.join(versions())} and the one that asks has "
            f"{' / '.join(expected)}; install the same on all."
        )
    return work()


def _one_line(error: object) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__
