"""The runs of a study as a report needs them: read once, named, put into groups of the same task."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import FsmmError, UsageError
from ...runs.layout import CONFIG, FILES
from ...runs.listing import changed_settings, described, find_runs
from ...runs.redraw import can_redraw
from ...runs.store import load_run
from ..grid.store import STUDY, Row, Study, read_study
from ..stored_head import StoredHead
from ..task_text import described_task

_SHOWN = (
    *("missing", "support_modalities", "query_modalities", "dirichlet", "query_classes", "n_query"),
    *("seed", "train_seed"),
)


@dataclass(frozen=True, kw_only=True)
class ReportRun(StoredHead):
    """One run of a study."""

    name: str
    """The name of the run within the study."""
    folder: Path
    """The folder of the run."""
    block: str = ""
    """The block of the study file that asks for the run; empty where there is none."""

    @property
    def method(self) -> str:
        """The method with its fusion, such as protonet (LF)."""
        return f"{self.base} ({self.fusion.upper()})" if self.fusion else self.base

    @property
    def family(self) -> str:
        """The family of the method."""
        return "unknown" if self.row is None else self.row.family

    @property
    def dataset(self) -> str:
        return str(self.config["dataset"])

    @property
    def shots(self) -> str:
        return _range(self.protocol.k_shot)

    @property
    def ways(self) -> str:
        return _range(self.protocol.n_way)

    @property
    def accuracy(self) -> float:
        return float(self.metrics["accuracy"])

    @property
    def clips(self) -> str:
        """A digest of the ids of the clips; empty for a run of an earlier release."""
        return str(self.config.get("clip_ids") or "")

    @property
    def settings(self) -> str:
        """What is set otherwise than by default and has no column of its own."""
        found = {k: v for k, v in changed_settings(self.config).items() if k not in _SHOWN}
        return " ".join(f"{key}={value}" for key, value in found.items())

    @property
    def withheld(self) -> str:
        """What the protocol withholds or does otherwise than usual, as a text."""
        return "; ".join(described_task(self.protocol).split("; ")[2:])

    @property
    def command(self) -> str:
        """The command that does the run again."""
        return shlex.join(["fsmm", "episode-eval", "--config", str(self.folder / CONFIG)])

    @property
    def can_pair(self) -> bool:
        """Whether the run holds the outcome of each query, by which it is compared over clips."""
        return can_redraw(self.arrays) and "right_bits" in self.arrays


@dataclass(frozen=True, kw_only=True)
class Task:
    """The runs of a study on the same episodes with the same things withheld."""

    title: str
    """What the task is, such as ave28 novel: 5-way 1-shot; 15 queries a class."""
    runs: Sequence[ReportRun]
    """The runs, free ones first and then by falling accuracy."""
    number: int
    """The task's number in the report, from 1 on."""


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """A study as it was read."""

    title: str
    """The study's headline, or its name where it has none."""
    folder: Path
    """The study's folder."""
    runs: Sequence[ReportRun]
    """The runs that can be read."""
    failed: Sequence[tuple[str, str]] = ()
    """The name and the reason of each run that failed or cannot be read."""
    waiting: Sequence[str] = ()
    """The runs that the study asks for and that have not been made."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the study says of itself; empty for a plain folder of runs."""
    asked: Sequence[tuple[Row, ReportRun]] = ()
    """The rows of the study file, in its order, with their runs; several rows may have one run."""

    @cached_property
    def tasks(self) -> list[Task]:
        """The runs by task, the task with the most runs first."""
        found: dict[str, list[ReportRun]] = {}
        for run in self.runs:
            found.setdefault(run.task, []).append(run)
        parts = [part for group in found.values() for part in _on_same_clips(group)]
        groups = sorted(parts, key=len, reverse=True)
        titles = _apart([_title(group[0]) for group in groups], [group[0] for group in groups])
        return [
            Task(
                title=title, runs=sorted(group, key=lambda run: (not run.free, -run.accuracy)), number=number
            )
            for number, (title, group) in enumerate(zip(titles, groups), 1)
        ]


def read(folder: Path) -> StudyData:
    """The study in a folder: that of a sweep, or any folder of runs.

    Raises UsageError where there is no such folder or it holds no run; FsmmError for a sweep's folder that cannot be
    read.
    """
    if not folder.is_dir():
        raise UsageError(
            f"There is no folder {str(folder)!r}; name the folder of a study, or one that holds runs."
        )
    data = of_sweep(read_study(folder)) if (folder / STUDY).is_file() else _of_folder(folder)
    if not data.runs and not data.failed:
        maker = "fsmm sweep" if data.about else "fsmm episode-eval"
        raise UsageError(f"The folder {str(folder)!r} holds no run yet; `{maker} --out` puts runs there.")
    return data


def _of_folder(folder: Path) -> StudyData:
    """The runs at and below a plain folder."""
    folders = find_runs(folder)
    named = ((run, run.relative_to(folder).as_posix() if run != folder else run.name) for run in folders)
    runs, failed = _loaded((run, name, "") for run, name in named)
    return StudyData(title=folder.resolve().name, folder=folder, runs=runs, failed=failed)


def of_sweep(study: Study) -> StudyData:
    """The runs that a sweep has made, those that failed, and those that are still to be made."""
    names = _row_names(study.rows)
    once: dict[str, Row] = {}
    for row in study.rows:
        once.setdefault(row.key, row)  # Two blocks may ask for one run.
    stored = {row.key for row in study.done}
    lost = {key: failure.reason for key, failure in study.failures.items() if key not in stored}
    there = [
        row
        for key, row in once.items()
        if key in stored or (key not in lost and _has_files(study.run_folder(row)))
    ]
    runs, failed = _loaded((study.run_folder(row), names[row.key], row.block) for row in there)
    failed += [(names[key], reason) for key, reason in lost.items()]
    tried = {*lost, *(row.key for row in there)}
    by_key = {run.folder.name: run for run in runs}
    return StudyData(
        title=str(study.about.get("title") or study.name),
        folder=study.folder,
        runs=runs,
        failed=failed,
        waiting=[names[key] for key in once if key not in tried],
        about=study.about,
        asked=[(row, by_key[row.key]) for row in study.rows if row.key in by_key],
    )


def _has_files(folder: Path) -> bool:
    """Whether a run was made in a folder, whatever became of its files since."""
    return all((folder / name).is_file() for name in FILES)


def _row_names(rows: Sequence[Row]) -> dict[str, str]:
    """The name of each run by its key: that of its first row, with the key where another run is called the same."""
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(row.key, f"{row.block}: {row.label}")
    counts = Counter(first.values())
    return {key: name if counts[name] == 1 else f"{name} ({key})" for key, name in first.items()}


def _loaded(
    asked: Iterable[tuple[Path, str, str]],
) -> tuple[list[ReportRun], list[tuple[str, str]]]:
    """The runs in folders with names and blocks, and the name and the reason of each that cannot be read."""
    runs, failed = [], []
    for folder, name, block in asked:
        try:
            config, metrics, arrays = load_run(folder)
        except FsmmError:
            failed.append((name, described(folder, name).fault or "The run cannot be read."))
            continue
        runs.append(
            ReportRun(name=name, folder=folder, config=config, metrics=metrics, arrays=arrays, block=block)
        )
    return runs, failed


def _on_same_clips(runs: Sequence[ReportRun]) -> list[list[ReportRun]]:
    """The runs of one task in groups; data sets of one name and size in several caches are different ones.

    Runs of earlier releases do not name their clips, and are taken for runs on the first ones.
    """
    first = next((run.clips for run in runs if run.clips), "")
    found: dict[str, list[ReportRun]] = {}
    for run in runs:
        found.setdefault(run.clips or first, []).append(run)
    return list(found.values())


def _apart(titles: Sequence[str], firsts: Sequence[ReportRun]) -> list[str]:
    """The titles of tasks, with seed and fingerprint where two tasks would be called the same."""
    return [
        f"{title}; seed {run.protocol.seed}, clips {run.metrics.get('fingerprint', '')} {run.clips}".rstrip()
        if titles.count(title) > 1
        else title
        for title, run in zip(titles, firsts)
    ]


def _title(run: ReportRun) -> str:
    """What the task of a run is."""
    protocol = run.protocol
    of = f" of {protocol.label_set}" if protocol.label_set else ""
    own = f", {protocol.clip_split} clips" if protocol.clip_split else ""
    return f"{run.dataset}, {protocol.split} classes{of}{own}: {described_task(protocol)}"


def _range(value: int | tuple[int, int]) -> str:
    return str(value) if isinstance(value, int) else "-".join(map(str, value))
