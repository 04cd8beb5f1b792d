"""What a study was made of: data, splits, streams with provenance, settings, versions, seeds; and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..._version import __version__
from ...cache.upkeep.info import info
from ...errors import FsmmError
from ...runs.choices import choices_text
from .data import ReportRun, StudyData
from .embedding import cache_of
from .marks import Mark, entries
from .parts import Section, Table, percent


def made_of_section(data: StudyData, cache: Path | None) -> Section:
    """The data sets, streams, settings, versions and seeds of a study, and the command of each run."""
    tables = [_data(data), _streams(data, cache), _runs(data)]
    notes = [f"This report was made by fsmm {__version__}; a run does not store the version that made it."]
    notes += [f"{key}: {_told(value)}" for key, value in data.about.items() if key in _ABOUT and value]
    return Section(name="made-of", title="What was run", tables=tables, notes=notes)


_ABOUT = ("description", "command", "versions", "cache")


def seeds_section(data: StudyData, marks: Mapping[str, Mark]) -> Section | None:
    """The mean and the spread of each head that was trained with several seeds; None where none was."""
    rows = []
    for task in data.tasks:
        for head in entries(task.runs):
            if len(head.runs) > 1:
                values = np.array([run.accuracy for run in head.runs])
                first = head.first
                cells = (first.method, "+".join(first.modalities), first.settings, task.title)
                spread = f"{100 * values.std(ddof=1):.2f}"
                width = marks[first.name].mean_ci95
                sure = "no value" if width is None else f"{100 * width:.2f}"
                rows.append((*cells, str(len(values)), percent(float(values.mean())), sure, spread))
    if not rows:
        return None
    columns = (
        *("method", "modalities", "settings", "task", "seeds"),
        *("mean accuracy in %", "± over clips and seeds", "sd over seeds in points"),
    )
    text = "A head with several training seeds is judged by their mean; no seed is picked. ± is the 95 % half width of "
    text += "the mean, in points, over other clips and other seeds."
    table = Table(title="Training seeds", columns=columns, rows=rows)
    return Section(name="seeds", title="Training seeds", text=text, tables=[table])


def failed_section(data: StudyData) -> Section | None:
    """The runs that failed, with the reasons, and those that are still to be made; None where there are none."""
    tables = []
    if data.failed:
        tables.append(Table(title="Failed, or not to be read", columns=("run", "reason"), rows=data.failed))
    if data.waiting:
        rows = [(name,) for name in data.waiting]
        tables.append(Table(title="Not run yet", columns=("run",), rows=rows))
    return Section(name="failed", title="What failed, and why", tables=tables) if tables else None


def _data(data: StudyData) -> Table:
    """The data set, classes and clips of each task."""
    rows = []
    for task in data.tasks:
        run = task.runs[0]
        protocol, metrics = run.protocol, run.metrics
        left = metrics.get("excluded_classes") or ()
        rows.append(
            (
                str(task.number),
                run.dataset,
                f"{protocol.split} of class split {protocol.class_split}",
                str(protocol.label_set or "default"),
                protocol.describe(),
                f"{metrics.get('classes', '')}",
                f"{metrics.get('clips', '')}",
                f"{len(left)}",
                str(protocol.seed),
                str(metrics.get("fingerprint", "")),
            )
        )
    columns = (
        *(
            "task",
            "data set",
            "classes from",
            "label set",
            "protocol",
            "classes",
            "clips",
            "classes left out",
        ),
        *("seed of episodes", "fingerprint of the clips"),
    )
    return Table(title="Data and protocols", columns=columns, rows=rows)


def _streams(data: StudyData, cache: Path | None) -> Table:
    """The streams of the runs, with what the cache says of their origin where it is at hand."""
    used: dict[tuple[str, str], ReportRun] = {}
    for run in data.runs:
        names = [*(run.metrics.get("streams") or {}).values(), *filter(None, [run.metrics.get("words")])]
        for name in names:
            used.setdefault((run.dataset, str(name)), run)
    known: dict[tuple[str, str], Any] = {}
    for dataset in sorted({dataset for dataset, _ in used}):
        place = next((p for r in data.runs if r.dataset == dataset and (p := cache_of(r, cache))), None)
        known |= _origins(place, dataset)
    rows = []
    for (dataset, name), _ in sorted(used.items()):
        about = known.get((dataset, name))
        told = ("the cache is not at hand", "", "", "", "") if about is None else _origin(about)
        rows.append((dataset, name, *told))
    columns = (
        "data set",
        "stream",
        "weights",
        "SHA-256 of weights",
        "preprocessing",
        "sampling",
        "made by fsmm",
    )
    return Table(title="Streams", columns=columns, rows=rows)


def _origins(cache: Path | None, dataset: str) -> dict[tuple[str, str], Any]:
    """What a cache says of the streams of a data set, by data set and stream; empty where it cannot be read."""
    if cache is None:
        return {}
    try:
        found = info(cache, dataset)
    except (FsmmError, OSError):
        return {}
    return {(dataset, stream.stream): stream for each in found.datasets for stream in each.streams}


def _origin(stream: Any) -> tuple[str, ...]:
    digest = stream.weights_sha256[:16]
    return (stream.weights or "none", digest, stream.preprocessing, stream.sampling, stream.fsmm_version)


def _runs(data: StudyData) -> Table:
    """The settings, seeds and command of each run."""
    rows = []
    for task in data.tasks:
        for run in task.runs:
            chosen = _told(run.metrics.get("chosen") or {})
            stopped = str(run.metrics.get("training_stopped") or "")
            notes = " ".join(str(note) for note in run.metrics.get("notes") or ())
            seed = str(run.config.get("train_seed", ""))
            told = "; ".join(filter(None, [chosen, stopped, notes]))
            made_on = choices_text(run.metrics.get("choices"))
            rows.append((run.name, str(task.number), run.settings, seed, told, made_on, run.command))
    columns = (
        *("run", "task", "settings that are not the default", "training seed"),
        *(
            "chosen on base classes, training, notes",
            "what choices were made on",
            "command that runs it again",
        ),
    )
    return Table(title="Runs", columns=columns, rows=rows)


def _told(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    texts = {key: f"{each:.3g}" if isinstance(each, float) else str(each) for key, each in value.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items())
