"""The command ``fsmm episode-eval``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ..episodes.protocol import Protocol
from ..errors import FsmmError, UsageError
from ..runs.job import Job, Place
from ..runs.spec import RunSpec
from . import completion, console
from .completion import Completer
from .grouped import GroupedCommand, examples
from .options import derived
from .tables import show_run, show_seeds, show_sweep


def register(app: typer.Typer) -> None:
    app.command("episode-eval", cls=GroupedCommand, epilog=EXAMPLES)(episode_eval)


EXAMPLES = examples(
    [
        "fsmm episode-eval --method protonet --modalities frame,audio --k-shot 5",
        "fsmm episode-eval --method eckpn --set train.steps=200 --out runs/eckpn",
        "fsmm episode-eval --method protonet-lf --missing-sweep audio@query",
        "fsmm episode-eval --method relation --train-seeds 5",
        "fsmm episode-eval --method ridge-words --n-way 0 --k-shot 0 --generalised",
        "fsmm episode-eval --config runs/eckpn/config.json --episodes 1000",
    ]
)
_SEVERAL = "Several runs"
GROUPS: dict[type[Any] | str, str] = {
    RunSpec: "Method and features",
    Protocol: "Task",
    Place: "Place",
    Job: "Evaluation",
    **dict.fromkeys(
        ("support_modalities", "query_modalities", "missing", "noisy", "may_lose_all", "when_missing"),
        "What clips lack",
    ),
    **dict.fromkeys(
        ("train_modalities", "train_missing", "train_dataset", "train_seed", "retrain"), "Training"
    ),
}
COMPLETE: dict[str, Completer] = {
    "method": completion.methods,
    "dataset": completion.held_datasets,
    "train_dataset": completion.held_datasets,
    "streams": completion.held_streams,
    **dict.fromkeys(
        ("modalities", "train_modalities", "support_modalities", "query_modalities"),
        completion.held_modalities,
    ),
    "split": completion.one_of(("base", "val", "novel", "all")),
    "device": completion.one_of(("auto", "cpu", "cuda")),
    "words": completion.one_of(("auto", "none")),
}


def note_if_changed(config: Path) -> None:
    """Print a note where the configuration of a run, or of a tuning's best settings, was changed after it ended."""
    from ..machine.digests import changed_files
    from ..runs.layout import CONFIG

    try:
        changed = config.name == CONFIG and changed_files(config.expanduser().parent, [CONFIG])
    except FsmmError:  # Whoever reads the run is told; here the configuration alone counts.
        return
    if changed:
        console.note(f"The configuration {str(config)!r} is not as it was when its run or tuning ended.")


@derived(
    Job,
    flags={"settings": "--set"},
    follows={"train_seed": "seed"},
    without=("replay",),
    groups=GROUPS,
    complete=COMPLETE,
    on_file=note_if_changed,
)
def episode_eval(
    job: Job,
    missing_sweep: Annotated[
        Optional[str],
        typer.Option(
            help="audio@query: rates 0, 0.1 ... 1 of one modality, one run each.",
            rich_help_panel=_SEVERAL,
            autocompletion=completion.missing_modality,
        ),
    ] = None,
    train_seeds: Annotated[
        Optional[int],
        typer.Option(
            help="Train this many times, seed by seed, and print the spread.", rich_help_panel=_SEVERAL
        ),
    ] = None,
    fingerprint: Annotated[
        Optional[str],
        typer.Option(
            help="What the clips are expected to be; a note says where they differ.",
            rich_help_panel="Evaluation",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Evaluate a method on episodes; train it on base classes first where it learns."""
    _ = job.spec.resolved  # An unknown name is refused before anything heavy is imported.
    several = {
        "--missing-sweep": missing_sweep is not None,
        "--train-seeds": train_seeds is not None,
        "--order-certificate": job.order_certificate,
    }
    if sum(several.values()) > 1:
        named = " and ".join(name for name, asked in several.items() if asked)
        raise UsageError(f"{named} cannot be combined; run one after the other.")
    show: Callable[[Any], None] = show_run
    found: Any
    if train_seeds is not None:
        show, found = show_seeds, _spread(job, train_seeds)
    elif missing_sweep is not None:
        show, found = partial(show_sweep, missing_sweep), _sweep(job, missing_sweep)
    else:
        found = _run(job, fingerprint)
        if json:  # The table has a row for each note.
            _tell(found)
    (console.print_json if json else show)(found)


def _run(job: Job, fingerprint: str | None) -> dict[str, Any]:
    """The figures of one run."""
    from ..runs.run import run

    with console.phases() as progress:
        found = run(job, progress).metrics
    if fingerprint not in (None, found["fingerprint"]):
        console.note("The clips are not those of the fingerprint that was given, so the figures may differ.")
    return found


def _sweep(job: Job, what: str) -> list[dict[str, Any]]:
    """The figures of each missing rate."""
    from ..studies.missing_sweep import missing_sweep

    with console.phases() as progress:
        runs = missing_sweep(job, what, progress)
    _tell(runs[0].metrics)  # All rates share one training.
    return [run.metrics for run in runs]


def _spread(job: Job, seeds: int) -> dict[str, Any]:
    """The spread over training seeds."""
    from ..studies.seed_spread import seed_spread, spread_of

    with console.phases() as progress:
        runs = seed_spread(job, seeds, progress)
    for run in runs:
        _tell(run.metrics)
    return spread_of(runs)


def _tell(metrics: Mapping[str, Any]) -> None:
    """Print what the training of a run noted on standard error."""
    for sentence in (metrics["training"] or {}).get("notes", ()):
        console.note(sentence)
