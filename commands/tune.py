"""The command ``fsmm tune``: hyper-parameters of a head, chosen by val classes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import UsageError
from ..runs.job import Job
from . import completion, console
from .evaluate import COMPLETE, GROUPS
from .grouped import GroupedCommand, examples
from .options import derived

if TYPE_CHECKING:
    from ..studies.tuning.search import Trial
    from ..studies.tuning.tune import Tuning

EXAMPLES = examples(
    [
        "fsmm tune protonet-lf --modalities frame,audio --k-shot 5",
        "fsmm tune relation --set train.steps=200 --search train.rate --search hidden=32,64,128 --trials 20",
        "fsmm tune eckpn --search sharpness=1:50:log --search all --folds 4 --class-splits s1,s2",
        "fsmm episode-eval --config FOLDER/config.json",
    ]
)
_SHOWN = 5  # The trials that are printed.
_TUNING = "Tuning"


def register(app: typer.Typer) -> None:
    app.command("tune", cls=GroupedCommand, epilog=EXAMPLES)(tune)


@derived(
    Job,
    flags={"settings": "--set"},
    follows={"train_seed": "seed"},
    groups=GROUPS,
    complete=COMPLETE,
    arguments=("method",),
    without=("retrain", "replay"),
)
def tune(
    job: Job,
    trials: Annotated[
        int, typer.Option(help="The settings that are tried.", rich_help_panel=_TUNING, show_default=True)
    ] = 30,
    search: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="KEY=VALUES",
            help="KEY=LOW:HIGH, KEY=A,B, or KEY for its own range; alone, or beside all; repeatable.",
            rich_help_panel=_TUNING,
        ),
    ] = None,
    folds: Annotated[
        Optional[str],
        typer.Option(
            help="Folds of base classes that play val in turn: a number, 0, or auto (few val classes).",
            rich_help_panel=_TUNING,
            autocompletion=completion.one_of(("auto", "0", "2", "3", "4", "5")),
        ),
    ] = None,
    class_splits: Annotated[
        Optional[str],
        typer.Option(
            help="Further class splits whose val classes judge, such as s1,s2.", rich_help_panel=_TUNING
        ),
    ] = None,
    val_episodes: Annotated[
        int,
        typer.Option(
            help="Episodes by which val classes, or a fold, judge.",
            rich_help_panel=_TUNING,
            show_default=True,
        ),
    ] = 400,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Choose settings of a method by val classes and folds of base classes; novel classes are not read.

    --set fixes a setting, --search says which are searched and where (else all that have a range of their own). Run
    again, it goes on where it was stopped; with more --trials it continues.
    """
    _ = job.spec.resolved  # An unknown name is refused before anything heavy is imported.
    from ..studies.tuning.tune import tune as carry_out

    with console.progress("trials") as shown:
        began = time.monotonic()

        def tell(trial: Trial, done: int, best: Trial | None) -> None:
            if console.verbosity() > console.Verbosity.QUIET:
                shown.say(f"{done:>5} of {trials}  {_line(trial)}")
            shown(done, trials, "" if best is None else f"best {100 * (best.value or 0):.2f} %")

        found = carry_out(
            job,
            trials=trials,
            search=search or (),
            folds=_folds(folds),
            class_splits=[name.strip() for name in (class_splits or "").split(",") if name.strip()],
            val_episodes=val_episodes,
            tell=tell,
        )
    if json:
        console.print_json(found.to_dict())
        return
    _show(found)
    console.note(f"{time.monotonic() - began:.0f} s in this call.")


def _folds(text: str | None) -> int | None:
    """The number of folds; None for auto. Raises UsageError for anything else."""
    if text in (None, "auto"):
        return None
    try:
        return int(str(text))
    except ValueError:
        raise UsageError(f"--folds is {text!r}; it is a number, or auto.") from None


def _line(trial: Trial) -> str:
    """A trial on one line."""
    settings = " ".join(f"{key}={value}" for key, value in trial.settings.items())
    return (
        f"failed    {settings}. {trial.reason}"
        if trial.reason
        else f"{100 * (trial.value or 0):6.2f} %  {settings}"
    )


def _show(found: Tuning) -> None:
    """Print the best trials, how certain the choice is, and what to do with it."""
    rows = [("default", *_cells(found.default_accuracy, None), _settings(found.default))]
    for trial in found.trials[:_SHOWN]:
        value = trial.value
        cells = ("failed", "") if value is None else _cells(value, value - found.default_accuracy)
        rows.append((f"trial {trial.number}", *cells, trial.reason or _settings(trial.settings)))
    failed = sum(bool(trial.reason) for trial in found.trials)
    more = f" {failed} of {len(found.trials)} trials failed." if failed else ""
    caption = f"Accuracy in % as the mean over {', '.join(found.parts)}.{more}"
    console.print_table(
        f"{found.method}: {len(found.trials)} trials",
        ("", "accuracy", "- default", "settings"),
        rows,
        caption,
    )
    for sentence in (*_certain(found), *found.notes):
        typer.echo(sentence)
    typer.echo(f"Winning settings: {found.line or 'the default'}")
    typer.echo(f"fsmm episode-eval --config {found.config}")


def _certain(found: Tuning) -> list[str]:
    """What is said of the certainty of the choice."""
    sure = found.certainty
    if not found.best:
        return ["No settings that were tried are better than the default, which is kept."]
    told = f"Best minus default: {100 * sure.difference:+.2f} points"
    if sure.ci95 is None or sure.p_corrected is None:
        sentences = [f"{told}; it has no interval over clips, since {sure.reason}."]
    else:
        verdict = "differs surely from the default" if sure.differs else "cannot be told from the default"
        sentences = [
            f"{told} ± {100 * sure.ci95:.2f} over clips of the judging classes; the best {verdict} "
            f"(p {sure.p_corrected:.2g} after correction for {len(found.trials)} trials)."
        ]
    if sure.held_out is not None and math.isfinite(sure.held_out):
        sentences.append(
            f"Where each part judges what the others picked, the gain is {100 * sure.held_out:+.2f} points; expect "
            "this rather than the difference above, which was picked as the greatest."
        )
    return sentences


def _cells(value: float, difference: float | None) -> tuple[str, str]:
    return f"{100 * value:.2f}", "" if difference is None else f"{100 * difference:+.2f}"


def _settings(settings: Any) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())
