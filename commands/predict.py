"""The command ``fsmm predict``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import completion, console
from .cache import Cache, Json
from .fit import none_could_be_decided


def register(app: typer.Typer) -> None:
    app.command("predict")(predict)


def predict(
    model: Annotated[Path, typer.Argument(help="The folder of a model, made by `fsmm fit`.")],
    clips: Annotated[list[Path], typer.Argument(help="Videos, or folders with videos anywhere below them.")],
    out: Annotated[
        Optional[Path], typer.Option(help="A file of the labels: .csv, .json or .parquet [standard output].")
    ] = None,
    reject: Annotated[
        Optional[float],
        typer.Option(
            help="Say unknown so often that at most this share of the clips of known classes gets a wrong label."
        ),
    ] = None,
    cache: Cache = None,
    device: Annotated[
        str,
        typer.Option(help="auto, cpu or cuda.", autocompletion=completion.one_of(("auto", "cpu", "cuda"))),
    ] = "auto",
    workers: Annotated[Optional[int], typer.Option(help="Decoding processes [one a core].")] = None,
    json: Json = False,
) -> None:
    """Label videos by a model; what was decoded once is not decoded again."""
    from ..extract.own_clips import CachedReader, OwnClips
    from ..runs.estimator import FewShotClassifier
    from ..runs.few_examples.fit_model import decisions
    from ..runs.few_examples.label_files import check_kind, write_labels
    from ..runs.few_examples.model_streams import streams_of

    if out is not None:
        check_kind(out)
    held = FewShotClassifier.open(model)
    own = OwnClips.at(clips)
    if reject is not None:
        held.classifier_.check_level(reject)  # Before anything is decoded.
    reader = CachedReader(
        streams_of(held.classifier_.streams),
        cache=cache,
        device=device,
        workers=workers,
        quiet=console.verbosity() == console.Verbosity.QUIET,
    )
    rows = decisions(held, reader.read(own), reject)
    if not any(row["label"] for row in rows):
        raise none_could_be_decided(rows)
    if out is not None:
        write_labels(rows, out)
    if json:
        console.print_json(rows)
        return
    if out is None:
        for row in rows:
            console.print_row(_cells(row))
    _summarise(rows, out)


def _cells(row: dict[str, Any]) -> list[str]:
    sure = "" if row["probability"] is None else f"{row['probability']:.2f}"
    return [row["path"], row["label"] or "-", sure, row["note"]]


def _summarise(rows: list[dict[str, Any]], out: Path | None) -> None:
    counts = Counter(row["label"] for row in rows if row["label"])
    told = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    undecided = sum(row["label"] is None for row in rows)
    left = f"; {undecided} could not be decided, see their notes" if undecided else ""
    where = f" in {out}" if out is not None else ""
    console.note(f"{len(rows)} clips{where}: {told}{left}")
