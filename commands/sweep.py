"""The command ``fsmm sweep``: every run of a study file, or of a preset."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_args

import typer

from ..errors import UsageError, unknown
from ..machine.pace import clock_text
from ..runs.kinds import pairs_reader
from . import completion, console
from .cache import Cache, Dataset, Json
from .grouped import GroupedCommand, examples

if TYPE_CHECKING:
    from ..studies.grid.execute import Ended
    from ..studies.grid.store import Row, Study
    from ..studies.grid.sweep import Engine, Plan
    from ..studies.grid.work import Task

EXAMPLES = examples(
    [
        "fsmm sweep --list",
        "fsmm sweep quick",
        "fsmm sweep study.yaml --dry-run",
        "fsmm sweep table1 --dataset ave28 --set episodes=1000",
        "RAY_ADDRESS=10.0.0.1:6379 fsmm sweep study.yaml --engine ray",
    ]
)


def register(app: typer.Typer) -> None:
    app.command("sweep", cls=GroupedCommand, epilog=EXAMPLES)(sweep)


def sweep(
    study: Annotated[
        Optional[str],
        typer.Argument(
            help="A study file (YAML), or the name of a preset.", autocompletion=completion.presets
        ),
    ] = None,
    cache: Cache = None,
    dataset: Dataset = None,
    jobs: Annotated[
        Optional[int],
        typer.Option(
            help="How many runs are done at a time (default: one for each core; at most four for each)."
        ),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="The study's folder (else below studies/ in the cache).")
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Where runs compute: auto, cpu or cuda.",
            autocompletion=completion.one_of(("auto", "cpu", "cuda")),
        ),
    ] = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="Where runs are done: local, or ray (the cluster of RAY_ADDRESS, else one started here).",
            autocompletion=completion.one_of(("local", "ray")),
        ),
    ] = "local",
    settings: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            metavar="OPTION=VALUE",
            help="OPTION=VALUE that wins over the study's, such as episodes=300; repeatable.",
        ),
    ] = None,
    only: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="BLOCK",
            help="A block, or an included study, that is done now, the others later; repeatable [all].",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and their expected cost, and do none.")
    ] = False,
    measure: Annotated[
        float,
        typer.Option(help="The seconds for measuring what kinds of run cost, by which the time is told."),
    ] = 50.0,
    show_presets: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
    json: Json = False,
) -> None:
    """Do every run of a study that is not done yet; run again, it goes on where it was stopped.

    Runs that failed are recorded with the reason and tried again by the next sweep."""
    if show_presets:
        _list_presets(json=json)
        return
    if study is None:
        raise UsageError("Name a study file or a preset; `fsmm sweep --list` shows the presets.")
    from ..studies.grid.schedule import keep_costs
    from ..studies.grid.sweep import plan_study

    plan = plan_study(
        study,
        cache,
        dataset,
        out=out,
        jobs=jobs,
        overrides=pairs_reader(str)("--set", settings or []),
        only=only or (),
        device=device,
        engine=_engine(engine),
        command=shlex.join(["fsmm", *sys.argv[1:]]),
        measure=measure,
    )
    _show_cost(plan)
    if dry_run:
        keep_costs(plan.folder, plan.costs)
        _show_plan(plan, json=json)
        return
    found = _carry_out(plan)
    if json:
        console.print_json(_document(found))
    else:
        _show_study(found)
    if found.failures:
        raise typer.Exit(1)


def _engine(name: str) -> Engine:
    """The engine of that name. Raises UsageError for another."""
    from ..studies.grid.sweep import Engine

    known: tuple[Engine, ...] = get_args(Engine)
    for engine in known:
        if engine == name:
            return engine
    raise unknown("engine", name, known)


def _carry_out(plan: Plan) -> Study:
    """Do the runs of a plan; each is told as a line when it has ended."""
    from ..studies.grid.sweep import carry_out

    done, total = plan.done, len(plan.chosen)
    with console.progress("runs") as shown:
        shown(done, total)

        def tell(row: Row, ended: Ended) -> None:
            nonlocal done
            done += 1
            shown.say(f"{done:>5} of {total}  {_line(row, ended)}")
            shown(done, total)

        return carry_out(plan, tell if console.verbosity() > console.Verbosity.QUIET else None)


def _line(row: Row, ended: Ended) -> str:
    """A line of the table so far."""
    if ended.reason:
        return f"failed    {row.block}: {row.label}. {ended.reason}"
    if not ended.figures:
        return f"done elsewhere  {row.block}: {row.label}"
    return f"{100 * ended.figures['accuracy']:6.2f} %  {row.block}: {row.label}"


def _show_cost(plan: Plan) -> None:
    """Tell how many runs there are, how many are done, and what the others are expected to cost."""
    heads = f" and {len(plan.heads)} trained heads" if plan.heads else ""
    cost = (
        f"; {len(plan.runs):,} to do{heads}: about {clock_text(plan.estimate.seconds)} with {plan.jobs} at a time, "
        f"{plan.estimate.memory_mb:,.0f} MB{_guessed(plan.estimate.guessed)}"
        if plan.runs
        else ""
    )
    console.note(f"{plan.about['name']}: {len(plan.chosen):,} runs, {plan.done:,} done{cost}. {plan.folder}")
    for name, reason in plan.left_out.items():
        console.note(f"Block {name} is left out: {reason}")
    elsewhere = [row.config["train_dataset"] for row in plan.rows if "train_dataset" in row.varies]
    if elsewhere and not any(elsewhere):
        console.note(
            f"No other data set of {plan.about['cache']} has the streams of the tested one, so all heads learn from "
            "the data set that they are tested on."
        )


def _guessed(methods: int) -> str:
    """What an estimate says of methods that were not measured; nothing where there are none."""
    several = "s" if methods > 1 else ""
    return (
        f" ({methods} method{several} not measured in time: taken for the median of the others)"
        if methods
        else ""
    )


def _show_plan(plan: Plan, *, json: bool) -> None:
    """Print the runs of a plan, with the time that each is expected to take."""
    seconds = {task.key: task.seconds for task in plan.runs}
    if json:
        rows = [
            {"key": row.key, "block": row.block, "label": row.label, "done": row.key not in seconds}
            | {"seconds": seconds.get(row.key), "config": row.config, "head": row.head}
            for row in plan.chosen
        ]
        heads = {task.key: task.seconds for task in plan.heads}
        total = {"folder": str(plan.folder), "seconds": plan.estimate.seconds, "heads": heads}
        total["methods_not_measured"] = plan.estimate.guessed
        console.print_json({**total, "rows": rows})
        return
    cells = [
        (row.key, row.block, row.label, f"{seconds[row.key]:.1f} s" if row.key in seconds else "done")
        for row in plan.chosen
    ]
    console.print_table(str(plan.about["title"]), ("run", "block", "what varies", "expected"), cells)
    tasks = sorted([*plan.runs, *plan.heads], key=lambda task: task.seconds, reverse=True)[:_COSTLIEST]
    if len(plan.runs) > _COSTLIEST:
        told = [(task.key, _what(plan, task), clock_text(task.seconds)) for task in tasks]
        console.print_table("What takes the longest", ("run or head", "what it is", "expected"), told)


_COSTLIEST = 10  # The tasks of a plan that are named by their cost.


def _what(plan: Plan, task: Task) -> str:
    """The text by which a person knows a task: the row of a run, or the first row that a head is trained for."""
    if task.trains:
        row = next(row for row in plan.chosen if row.head == task.key)
        return f"the training for {row.block}: {row.label}"
    row = next(row for row in plan.chosen if row.key == task.key)
    return f"{row.block}: {row.label}"


def _show_study(found: Study) -> None:
    """Print a table for each block of a study, the block of what needs no training first."""
    from ..studies.grid.free_rows import FREE_BLOCK
    from ..studies.report.tables import LEGEND

    marks = _marks(found)
    blocks = dict.fromkeys(row.block for row in found.rows)
    for block in sorted(blocks, key=lambda name: name != FREE_BLOCK):
        rows = [row for row in found.rows if row.block == block]
        rows.sort(key=lambda row: not marks.get(row.key, {}).get("free"))
        cells = [(row.label, *_figures(found, row, marks.get(row.key))) for row in rows]
        columns = ("run", "accuracy", "± (clips)", "± (classes)", "marks", "episodes", "seconds")
        console.print_table(f"{found.about['title']}: {block}", columns, cells)
    failed = f", {len(found.failures)} failed (see failed.jsonl)" if found.failures else ""
    console.note(LEGEND)
    console.note(f"{len(found.done):,} runs are in {found.folder}{failed}.")


def _marks(found: Study) -> dict[str, dict[str, Any]]:
    """What is said of each run that is done beside the others of its task, by key; see ``fsmm report``."""
    from ..studies.report.data import of_sweep
    from ..studies.report.marks import marks_of

    marks = {}
    for task in of_sweep(found).tasks:
        made = marks_of(task)
        for run in task.runs:
            about = {"free": run.free, "transductive": run.transductive}
            marks[run.folder.name] = {**vars(made[run.name]), **about}
    return marks


def _figures(found: Study, row: Row, mark: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The cells of a run's figures, or of the reason why there are none; mark: None where the run is not done."""
    from ..studies.report.tables import mark_text

    if mark is None:
        failure = found.failures.get(row.key)
        return (f"failed: {failure.reason}" if failure else "not done", "", "", "", "", "")
    metrics = found.metrics(row)
    widths = [_points(metrics.get(key)) for key in ("ci95_clips", "ci95_classes")]
    spent = f"{metrics['eval_seconds'] + metrics['train_seconds']:.1f}"
    cells = (*widths, mark_text(dict(mark)), f"{metrics['episodes']:,}", spent)
    return (f"{100 * metrics['accuracy']:.2f} %", *cells)


def _points(width: float | None) -> str:
    return "-" if width is None else f"{100 * width:.2f}"


def _document(found: Study) -> Mapping[str, Any]:
    """The study as one JSON document."""
    marks = _marks(found)
    rows = [
        {"key": row.key, "block": row.block, "label": row.label, "varies": row.varies}
        | {"metrics": found.metrics(row) if row.key in marks else None, "mark": marks.get(row.key)}
        for row in found.rows
    ]
    failed = {key: failure.reason for key, failure in found.failures.items()}
    return {"name": found.name, "folder": str(found.folder), "rows": rows, "failed": failed}


def _list_presets(*, json: bool) -> None:
    """Print the names of the presets, with what each shows."""
    from ..studies.grid.presets import presets
    from ..studies.grid.spec import read_study_file

    found = {name: read_study_file(path).file for name, path in presets().items()}
    if json:
        console.print_json({name: file.description for name, file in found.items()})
        return
    console.print_table("", ("preset", "what it shows"), [(n, file.description) for n, file in found.items()])
