"""A sweep: a study file is planned, its cost is estimated, and the runs that the study's folder lacks are done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch

from ...cache.schema import dataset_folder, default_cache
from ...errors import CacheError, FsmmError, UsageError
from ...machine.cores import default_workers
from ...machine.device import pick_device
from ...machine.files import parsed_json, refuse_special
from ...machine.forked_jobs import ForkedJobs
from ...machine.ray_engine import RayJobs, ray, slots
from ...runs.job import Place
from ...runs.store import check_writable
from .about import about_study
from .data import DataFacts
from .execute import Ended, execute, trainings
from .expand import PlannedRun
from .identity import head_name, run_key
from .included import Part, chosen_blocks, expand_parts, left_out, parts_of
from .options import option_named, read_option, twice
from .presets import find_study
from .schedule import BUDGET, COSTS, Costs, Estimate, costs_of, estimate, keep_costs, with_costs
from .spec import StudyDocument
from .store import FORMAT, HEADS, LOCKS, ROWS, RUNS, STUDY, Row, Study, is_stored, read_study, write_study
from .work import Loader, Task
from .workers import LocalWorkers, RayWorkers, Workers

FOLDER = "studies"
"""The folder of a cache in which studies lie that are given no folder of their own."""
JOBS_PER_CORE = 4
"""The runs that are done at a time, at most, for each core of this machine: more would only take memory."""
Engine = Literal["local", "ray"]
"""Where runs are done: on this machine, or on the machines of a Ray cluster."""
# Called with a row when its run has ended: its figures, or why it failed.
Tell = Callable[[Row, Ended], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study that is ready to be swept."""

    folder: Path
    """The folder of the study."""
    about: Mapping[str, Any]
    """What study.json will hold."""
    rows: Sequence[Row]
    """The runs that the study asks for."""
    chosen: Sequence[Row]
    """Those of the blocks that are to be done now."""
    left_out: Mapping[str, str]
    """The optional blocks that are left out, each with the sentence that says what the cache lacks."""
    runs: Sequence[Task]
    """The chosen runs that are not stored, each once, with the seconds that they are expected to take."""
    heads: Sequence[Task]
    """The heads that have to be trained for them."""
    estimate: Estimate
    """The expected time and memory."""
    jobs: int
    """The number of tasks that are done at a time."""
    costs: Costs
    """What each kind of task costs; the study keeps what is measured."""
    forked: bool
    """Whether tasks have processes of their own."""
    engine: Engine
    """Where the runs are done."""
    loader: Loader
    """What was loaded for the estimate."""

    @property
    def done(self) -> int:
        """The number of chosen rows whose runs are stored."""
        lacking = {task.key for task in self.runs}
        return sum(row.key not in lacking for row in self.chosen)


def sweep(
    study: str | Path,
    cache: Path | str | None = None,
    dataset: str | None = None,
    *,
    out: Path | str | None = None,
    jobs: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    device: str = "auto",
    engine: Engine = "local",
    tell: Tell | None = None,
) -> Study:
    """Do the runs of a study that its folder lacks, and return the study as it then is.

    study: a study file, or the name of a preset. out: the study's folder (default: below ``studies`` in the cache).
    jobs: how many runs are done at a time (default: one for each core). overrides: options that win over the file's.
    engine: "ray" does the runs on the machines of the cluster that RAY_ADDRESS names, which read the cache at the same
    path. only: the names of the blocks, or of included studies, that are done now (default: all). tell: called when a
    run has ended. Raises UsageError, which names the line, for a study file that is not right.
    """
    plan = plan_study(
        study,
        cache,
        dataset,
        out=out,
        jobs=jobs,
        overrides=overrides or {},
        only=only,
        device=device,
        engine=engine,
        command="",
    )
    return carry_out(plan, tell)


def plan_study(
    study: str | Path,
    cache: Path | str | None = None,
    dataset: str | None = None,
    *,
    out: Path | str | None,
    jobs: int | None,
    overrides: Mapping[str, Any],
    device: str,
    engine: Engine = "local",
    command: str,
    only: Sequence[str] = (),
    measure: float = BUDGET,
) -> Plan:
    """The plan of a sweep; nothing is written. The parameters are those of ``sweep``; command: is noted in the study.

    measure: the seconds for which kinds of run are measured.

    Raises UsageError for a study file that is not right, CacheError where the data are not there or the folder cannot
    be written.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs is {jobs}; it must be at least 1.")
    if not 0 <= measure < math.inf:
        raise UsageError(f"--measure is {measure:g}; it must be a number of seconds, 0 or more.")
    if engine == "ray":
        ray()
    parts = parts_of(document := find_study(str(study)))
    root = default_cache() if cache is None else Path(cache).expanduser()
    folder = _folder_of(document, root, dataset) if out is None else Path(out).expanduser()
    _check_same(folder, parts)
    check_writable(folder)
    place, facts = Place(cache=root, dataset=dataset, device=device), _Facts(root)
    planned = expand_parts(parts, facts, place, read := _read(overrides))
    _check_asked(dataset, planned)
    without = left_out(parts, facts, place, read)
    blocks = chosen_blocks(only, planned, parts, without)
    with _one_thread():
        rows = [_row(run, facts) for run in planned]
        tasks = {row.key: _task(row, run) for row, run in zip(rows, planned) if row.block in blocks}
        lacking = [task for key, task in tasks.items() if not is_stored(folder / RUNS / key)]
        loader, forked = Loader(), pick_device(device).type == "cpu"
        cores = default_workers()
        pool = ForkedJobs(min(jobs or cores, JOBS_PER_CORE * cores), forked=forked)
        heads = trainings(lacking, folder)
        costs = costs_of([*lacking, *heads], folder, loader, pool=pool, seconds=measure)
        lacking, heads = with_costs(lacking, costs), with_costs(heads, costs)
    # Ray has threads of its own, beside which no process is forked.
    most = _ray_slots(jobs, device) if engine == "ray" and lacking else pool.most
    return Plan(
        folder=folder,
        about=about_study(parts, root, dataset, overrides=overrides, command=command),
        rows=rows,
        chosen=[row for row in rows if row.block in blocks],
        left_out=without,
        runs=lacking,
        heads=heads,
        estimate=estimate([*lacking, *heads], costs, jobs=most),
        jobs=most,
        costs=costs,
        forked=forked,
        engine=engine,
        loader=loader,
    )


def carry_out(plan: Plan, tell: Tell | None = None) -> Study:
    """Do what a plan has found to be missing. Raises OSError where the study's folder cannot be written."""
    write_study(plan.folder, {**plan.about, "started": _now(), "ended": None}, plan.rows)
    keep_costs(plan.folder, plan.costs)
    by_key: dict[str, list[Row]] = {}
    for row in plan.chosen:
        by_key.setdefault(row.key, []).append(row)

    def told(ended: Ended) -> None:
        if tell is not None:
            for row in by_key[ended.key]:
                tell(row, ended)

    started = _now()
    with _one_thread():
        if plan.runs:
            execute([*plan.runs, *plan.heads], plan.folder, _workers(plan), tell=told)
    write_study(plan.folder, {**plan.about, "started": started, "ended": _now()}, plan.rows)
    return read_study(plan.folder)


def _workers(plan: Plan) -> Workers:
    """The workers that do the runs of a plan."""
    if plan.engine == "ray":
        return RayWorkers(RayJobs(plan.jobs, gpus=_gpus(plan.runs[0].job.place.device)), plan.folder)
    return LocalWorkers(ForkedJobs(plan.jobs, forked=plan.forked), plan.folder, plan.loader)


def _gpus(device: str) -> float:
    """The GPUs that a run on another machine has to itself; ``auto`` computes on the CPU there."""
    return 0.0 if device in ("auto", "cpu") else 1.0


def _ray_slots(jobs: int | None, device: str) -> int:
    """How many runs the Ray cluster does at a time."""
    room = max(slots(gpus=_gpus(device)), 1)
    return min(jobs or room, room)


def _check_asked(dataset: str | None, planned: Sequence[PlannedRun]) -> None:
    """Raise UsageError where a data set is asked for and every run of the study names its own."""
    if dataset is not None and all(run.names_dataset for run in planned):
        raise UsageError(
            f"Every run of the study names its data set, so that --dataset {dataset} chooses nothing; use --set "
            f"dataset={dataset}, or --only for some blocks."
        )


class _Facts:
    """What is known of each data set of a cache."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str | None, DataFacts] = {}

    def __call__(self, dataset: str | None) -> DataFacts:
        if dataset not in self._known:
            self._known[dataset] = DataFacts(self._cache, dataset)
        return self._known[dataset]


def _row(run: PlannedRun, facts: _Facts) -> Row:
    """The row of a planned run."""
    known = facts(run.job.place.dataset)
    config = {**run.job.to_dict(), "dataset": known.dataset}
    return Row(
        key=run_key(run.job, run.trained_as, known),
        block=run.block,
        label=run.label,
        varies=run.varies,
        config=config,
        head=head_name(run.trained_as, known),
        trained_as=run.changed,
    )


def _task(row: Row, run: PlannedRun) -> Task:
    return Task(key=row.key, job=run.job, trained_as=run.trained_as, head=row.head)


def _read(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The options of --set. Raises UsageError for an unknown or repeated option, or a value that it cannot have."""
    found: dict[str, Any] = {}
    for key, value in overrides.items():
        name = option_named(key)
        if name in found:
            raise twice(name)
        found[name] = read_option(name, value)
    return found


def _folder_of(document: StudyDocument, cache: Path, dataset: str | None) -> Path:
    """The study's folder in the cache, named by the study and by the data set where it is one."""
    name = document.file.name
    with suppress(CacheError, UsageError):
        name = f"{name}-{dataset_folder(cache, dataset).name}"
    return cache / FOLDER / name


def _check_same(folder: Path, parts: Sequence[Part]) -> None:
    """Raise UsageError where a folder holds another study, and CacheError where it holds something else.

    A study goes on in the folder of one that it includes.
    """
    path = folder / STUDY
    if not folder.exists():
        return
    strange = folder.is_dir() and not path.exists() and {each.name for each in folder.iterdir()} - _OWN
    if not folder.is_dir() or strange:
        raise CacheError(
            f"{str(folder)!r} is no folder of a study; name an empty or a new folder with --out."
        )
    if not path.exists():
        return
    refuse_special(path, "file of a study")
    try:
        about = parsed_json(path.read_text("utf-8"))
        name, form = about.get("name"), about.get("format")
    except (OSError, ValueError, AttributeError, FsmmError):
        return  # A damaged file is written anew.
    if isinstance(form, int) and form > FORMAT:
        raise UsageError(
            f"The study {str(folder)!r} has format {form}, and this release writes {FORMAT}; name another folder "
            "with --out."
        )
    own, *included = [part.document.file.name for part in parts]
    if name not in (own, *included):
        raise UsageError(
            f"The folder {str(folder)!r} holds the study {name!r} and not {own!r}; name another with --out."
        )


# What a sweep writes before study.json, so that a folder with nothing else is of a study that could not begin.
_OWN = {RUNS, HEADS, LOCKS, ROWS, COSTS}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch computes with one thread in the block, so that workers can be forked while no thread of it runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
