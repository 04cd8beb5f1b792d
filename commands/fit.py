"""The command ``fsmm fit``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import FsmmError
from ..runs.few_examples.fit_request import FitRequest, FitSpec
from . import completion, console
from .grouped import GroupedCommand, examples
from .options import derived


def register(app: typer.Typer) -> None:
    app.command("fit", cls=GroupedCommand, epilog=EXAMPLES)(fit)


EXAMPLES = examples(
    [
        "fsmm fit --support my-examples --out my-model",
        "fsmm fit --support labels.csv --out my-model --method protonet --fusion lf --streams frame,audio",
        "fsmm fit --support my-examples --out my-model --base fsmm-demo/cache/demo",
        "fsmm fit --support more-examples --out my-model --add",
    ]
)
_GROUPS: dict[type[Any] | str, str] = {
    FitRequest: "Examples and model",
    FitSpec: "Head",
    **dict.fromkeys(("cache", "device", "workers", "streams"), "Features"),
}


@derived(
    FitRequest,
    flags={"settings": "--set"},
    groups=_GROUPS,
    complete={
        "method": completion.methods,
        "words": completion.encoders,
        "streams": completion.made_streams,
        "device": completion.one_of(("auto", "cpu", "cuda")),
    },
)
def fit(
    request: FitRequest,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a classifier for your own videos from a few examples of each class."""
    from ..extract.own_clips import CachedReader, OwnClips
    from ..runs.few_examples.fit_model import (
        calibrated_model,
        check_labels,
        check_request,
        extended_model,
        fitted_model,
    )
    from ..runs.few_examples.fit_summary import summary_lines
    from ..runs.few_examples.model_streams import streams_of

    check_request(request)
    held = _held(request)
    own = OwnClips.labelled(request.support)
    if held is None:
        check_labels(own.labels, request.support)
    reader = CachedReader(
        request.streams if held is None else streams_of(held.classifier_.streams),
        cache=request.cache,
        device=request.device,
        workers=request.workers,
        quiet=console.verbosity() == console.Verbosity.QUIET,
    )
    features = reader.read(own)
    for sentence in own.warnings:
        console.note(sentence)
    tell_failed(features.failed, "left out of the examples")
    with console.phases() as progress:
        if held is None:
            held = fitted_model(request, features, own.labels, progress)
        else:
            held = extended_model(held, features, own.labels)
    if request.calibration is not None:
        others = OwnClips.labelled(request.calibration)
        held = calibrated_model(held, reader.read(others), others.labels)
    held.save(request.out, replace=request.add or request.replace, unchanged=request.add)
    if json:
        console.print_json({"model": str(request.out), **held.report_, "failed": features.failed})
        return
    typer.echo(f"model {request.out}: {'; '.join(streams_of(held.classifier_.streams))}")
    for line in summary_lines(held.report_):
        typer.echo(f"  {line}")


def _held(request: FitRequest) -> Any:
    """The model that is extended, or None."""
    if not request.add:
        return None
    from ..runs.estimator import FewShotClassifier

    return FewShotClassifier.open(request.out)


def tell_failed(failed: dict[str, str] | Any, what: str) -> None:
    """Print which clips could not be read, the first few with their reason."""
    if not failed:
        return
    named = "; ".join(f"{path} ({reason})" for path, reason in list(failed.items())[:3])
    more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
    count = "1 clip" if len(failed) == 1 else f"{len(failed)} clips"
    console.note(
        f"{count} could not be read and {'is' if len(failed) == 1 else 'are'} {what}: {named}{more}."
    )


def none_could_be_decided(rows: list[dict[str, Any]]) -> FsmmError:
    """The error where no clip could be decided."""
    return FsmmError(
        f"None of the {len(rows)} clips could be decided; of the first, {rows[0]['note'].rstrip('.')}."
    )
