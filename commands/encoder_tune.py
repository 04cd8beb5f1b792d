"""The command ``fsmm encoder-tune``, and the same in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..extract.datasets.base import DatasetOptions
from ..extract.tuning.request import Clips, Objective, TuneRecipe, TuneRequest
from . import completion, console
from .extract import with_split
from .grouped import GroupedCommand, examples
from .options import derived

if TYPE_CHECKING:
    from ..extract.tuning.report import TuneReport


def register(app: typer.Typer) -> None:
    app.command("encoder-tune", cls=GroupedCommand, epilog=EXAMPLES)(encoder_tune_command)


EXAMPLES = examples(
    [
        "fsmm encoder-tune --encoder efficientnet-lite0 --from demo --small --objective simclr --out tuned/demo",
        "fsmm encoder-tune --encoder timm:vit_base_patch16_224.mae --from folder --data my-videos --objective joint",
        "fsmm encoder-tune --encoder tuned:tuned/demo --from demo --objective supervised --adapt lora",
        "fsmm extract --dataset demo --small --encoder frame=tuned:tuned/demo",
    ]
)
_GROUPS: dict[type[Any] | str, str] = {
    TuneRequest: "Encoder and clips",
    TuneRecipe: "Tuning",
    DatasetOptions: "Clips and classes",
    **dict.fromkeys(("method", "settings", "n_way", "k_shot", "n_query"), "Joint head"),
    **dict.fromkeys(("workers", "timeout", "device"), "Work"),
}


@derived(
    TuneRequest,
    flags={"dataset": "--from", "settings": "--set"},
    without=("split_file", "split_seed"),
    groups=_GROUPS,
    complete={
        "encoder": completion.encoders,
        "dataset": completion.sources,
        "method": completion.methods,
        "device": completion.one_of(("auto", "cpu", "cuda")),
    },
)
def encoder_tune_command(
    request: TuneRequest,
    class_split: Annotated[
        Optional[str],
        typer.Option(
            help="Base, val and novel classes: a JSON file, or seed=N to draw them.",
            rich_help_panel="Clips and classes",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tune an encoder on clips that no evaluation reads; the result is an encoder of its own."""
    if class_split is not None:
        request = replace(request, options=with_split(request.options, class_split))
    report = _tuned(request, quiet=console.verbosity() == console.Verbosity.QUIET)
    if json:
        console.print_json(report.to_json())
    else:
        print(report.summary())


def encoder_tune(
    encoder: str,
    dataset: str,
    objective: Objective,
    data: Path | str | None = None,
    out: Path | str | None = None,
    *,
    use: Clips = "auto",
    weights: Path | str | None = None,
    segments: int = 8,
    options: DatasetOptions | None = None,
    recipe: TuneRecipe | None = None,
    method: str = "common-space",
    settings: Mapping[str, str] | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    quiet: bool = False,
) -> TuneReport:
    """Tune an encoder on clips without a label or of base classes; clips of val and novel classes are never opened.

    The arguments are the options of ``fsmm encoder-tune``. The report's ``reference`` is the tuned encoder as
    ``fsmm.extract(encoders={"frame": ...})`` takes it. Raises UsageError, WeightsError and FsmmError as the command
    line states them; after Ctrl-C the same call goes on.
    """
    request = TuneRequest(
        encoder=encoder,
        dataset=dataset,
        objective=objective,
        data=None if data is None else Path(data),
        out=None if out is None else Path(out),
        use=use,
        weights=None if weights is None else Path(weights),
        segments=segments,
        options=options or DatasetOptions(),
        recipe=recipe or TuneRecipe(),
        method=method,
        settings=dict(settings or {}),
        seed=seed,
        device=device,
        workers=workers,
    )
    return _tuned(request, quiet=quiet)


def _tuned(request: TuneRequest, *, quiet: bool) -> TuneReport:
    from ..extract.choose import need_extra

    need_extra()
    from ..extract.tuning.run import tune_encoder
    from .joint_loss import losses_of

    return tune_encoder(request, losses_of(request.method, request.settings), quiet=quiet)
