"""Making the report of a study: one page that holds everything, and tables beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import FsmmError, UsageError, install_hint
from ...machine.files import write_bytes
from .data import StudyData, read
from .embedding import check_maps
from .marks import Mark, marks_of
from .parts import Section
from .published import write_published
from .tables import run_rows, task_rows, write_tables

PAGE = "report.html"
FOLDER = "report"
_NEEDED = ("jinja2", "plotly")


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that was written."""

    page: Path
    """The HTML file, which holds everything it shows."""
    tables: Sequence[Path]
    """The tables beside it."""
    runs: Sequence[dict[str, Any]]
    """The rows of the table of runs; fractions are in 0..1."""
    tasks: Sequence[dict[str, Any]]
    """The rows of the table of tasks: runs on the same episodes with the same things withheld."""
    sections: Sequence[str]
    """The names of the page's sections."""
    notes: Sequence[str] = field(default=())
    """Sentences on what was left out, and why."""


def report(
    folder: Path | str,
    out: Path | str | None = None,
    *,
    cache: Path | str | None = None,
    maps: Sequence[str] = ("pca",),
) -> Report:
    """Write the report of a study: the folder of a sweep, or any folder of runs.

    out: the folder of the page and the tables (else ``report`` in the study's folder). cache: the cache that the runs
    were made on, for the origin of streams and the map of features (else the one that each run names, where it is still
    there). maps: the kinds of maps of the features, of ``pca``, ``tsne`` and ``umap``.
    Raises UsageError where the folder is none or holds no run, FsmmError where packages that a report needs are not
    installed, or the page cannot be written.
    """
    check_installed()
    check_maps(maps)
    from .page import render

    if cache is not None and not Path(cache).is_dir():
        raise UsageError(f"There is no cache {str(cache)!r}; name a cache's folder, or leave --cache out.")
    data = read(Path(folder))
    marks = {name: mark for task in data.tasks for name, mark in marks_of(task).items()}
    place = Path(folder) / FOLDER if out is None else Path(out)
    runs, tasks = run_rows(data, marks), task_rows(data, marks)
    made = sections(data, None if cache is None else Path(cache), maps, marks)
    try:
        place.mkdir(parents=True, exist_ok=True)
        tables, notes = write_tables(place, runs, tasks)
        tables += write_published(place, data)
        notes = [*notes, *_unpaired(data, marks)]
        write_bytes(place / PAGE, render(data, runs, made, notes).encode())
    except OSError as error:
        raise FsmmError(
            f"The report cannot be written to {str(place)!r} ({error.strerror or error}); name a folder of yours with "
            "--out."
        ) from None
    names = ["runs", *(section.name for section in made)]
    notes += _failed(data)  # The page counts them in its head, and has a section of them.
    return Report(page=place / PAGE, tables=tables, runs=runs, tasks=tasks, sections=names, notes=notes)


def check_installed() -> None:
    """Raise FsmmError, which says what to install, where a package that a report needs is not there."""
    lacking = [name for name in _NEEDED if find_spec(name) is None]
    if lacking:
        raise FsmmError(f"A report needs {' and '.join(lacking)}; {install_hint('report')}.")


def sections(
    data: StudyData, cache: Path | None, maps: Sequence[str], marks: Mapping[str, Mark]
) -> list[Section]:
    """The sections of which the study has data, in the order of the page."""
    from . import bars, cost, curves, embedding, grids, made_of, matrices, order, overlap, published, stress

    found = [
        published.published_section(data),
        bars.bars_section(data),
        curves.shots_section(data),
        matrices.matrix_section(data, marks),
        curves.missing_section(data),
        stress.stress_section(data),
        grids.carried_section(data.tasks),
        grids.classes_section(data.tasks),
        grids.confusion_section(data.tasks),
        overlap.overlap_section(data),
        grids.reliability_section(data),
        order.order_section(data),
        cost.cost_section(data.tasks),
        made_of.seeds_section(data, marks),
        curves.learning_section(data),
        embedding.map_section(data, cache, maps),
        made_of.made_of_section(data, cache),
        made_of.failed_section(data),
    ]
    return [section for section in found if section is not None]


def _failed(data: StudyData) -> list[str]:
    """A sentence on the runs that failed or cannot be read, with the reason of the first, where there are any."""
    if not data.failed:
        return []
    (name, reason), count = data.failed[0], len(data.failed)
    runs = "1 run" if count == 1 else f"{count} runs"
    return [f"{runs} failed or cannot be read, and the page says why of each: {name}: {reason}"]


def _unpaired(data: StudyData, marks: dict[str, Mark]) -> list[str]:
    """A sentence on the runs of which cannot be said whether they are worse than the best, where there are any."""
    count = 0
    for task in data.tasks:
        led = {run.transductive for run in task.runs if marks[run.name].best}
        count += sum(run.transductive in led and marks[run.name].not_worse is None for run in task.runs)
    if not count:
        return []
    return [
        f"Of {count} run{'s' * (count != 1)} it cannot be said whether they are worse than the best, since they cannot "
        "be paired over clips; `fsmm compare` says why."
    ]
