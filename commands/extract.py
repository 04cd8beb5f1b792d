"""The commands ``fsmm extract``, ``fsmm encoders`` and ``fsmm datasets``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ..errors import FsmmError, UsageError
from ..extract.contract import Sampling
from ..extract.datasets.base import DatasetOptions
from ..extract.request import Request
from ..runs.kinds import read_whole
from . import completion, console
from .grouped import GroupedCommand, examples
from .options import derived


def register(app: typer.Typer) -> None:
    app.command("extract", cls=GroupedCommand, epilog=EXAMPLES)(extract)
    app.command("encoders")(encoders)
    app.command("datasets")(datasets)


EXAMPLES = examples(
    [
        "fsmm extract --dataset demo --small --streams frame,flow,audio,word",
        "fsmm extract --dataset folder --data my-videos",
        "fsmm extract --dataset csv --data clips.csv --class-split seed=1",
        "fsmm extract --dataset folder --data my-videos --encoder frame=i3d-rgb",
        "fsmm extract --dataset folder --data my-videos --shard 3/16",
        "fsmm extract --dataset folder --status",
    ]
)
_GROUPS: dict[type[Any] | str, str] = {
    Request: "Data and streams",
    DatasetOptions: "Clips and classes",
    Sampling: "Sampling",
    **dict.fromkeys(
        ("workers", "timeout", "flush_seconds", "retry_failed", "device", "precision", "compiled"), "Work"
    ),
    **dict.fromkeys(("max_failures", "shard", "engine", "shards"), "Many machines, many clips"),
}


@derived(
    Request,
    flags={"encoders": "--encoder", "position": "--sampling", "compiled": "--compile"},
    without=("split_file", "split_seed"),
    groups=_GROUPS,
    complete={
        "dataset": completion.sources,
        "streams": completion.made_streams,
        "encoders": completion.encoders_by_modality,
        "into": completion.held_datasets,
        "device": completion.one_of(("auto", "cpu", "cuda")),
    },
)
def extract(
    request: Request,
    class_split: Annotated[
        Optional[str],
        typer.Option(
            help="Base, val and novel classes: a JSON file, or seed=N to draw them.",
            rich_help_panel="Clips and classes",
        ),
    ] = None,
    status: Annotated[
        bool,
        typer.Option(
            "--status",
            help="Tell how far the shards are, from their files alone, and do nothing.",
            rich_help_panel="Many machines, many clips",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no warnings.")] = False,
) -> None:
    """Turn a data set's videos into cached features; a repeated run extracts what is still missing."""
    if status:
        _tell_status(request, json=json)
        return
    if class_split is not None:
        request = replace(request, options=with_split(request.options, class_split))
    from ..extract.run import carry_out

    report = carry_out(request, quiet=quiet or console.verbosity() == console.Verbosity.QUIET)
    print(report.to_json() if json else report.summary())
    if report.clips and not (report.done or report.skipped):
        raise FsmmError(f"None of the {report.clips} clips could be used; {report.failures_file} says why.")


def _tell_status(request: Request, *, json: bool) -> None:
    """Print the state of the jobs of a data set, or of all in the cache where it is not known under its own name."""
    from ..cache.schema import default_cache, list_datasets
    from ..extract.shards.status import job_statuses

    root = request.cache or default_cache()
    name = request.into or request.name
    if name is None and request.dataset in list_datasets(root):
        name = request.dataset
    found = job_statuses(root, name)
    if json:
        console.print_json([job.to_json() for job in found])
    else:
        print("\n".join(job.summary() for job in found))


def encoders(
    fetch: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Get this encoder's weights ahead of time.",
            autocompletion=completion.encoders,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the encoders, where their weights come from, and whether they can run here."""
    from ..extract import encoders as table

    if fetch is not None:
        path = table.fetch(fetch)
        where = str(path) if path is not None else None
        if json:
            console.print_json({"name": fetch, "path": where})
        else:
            print(where or f"{fetch} needs no weights.")
        return
    rows = table.rows()
    if json:
        console.print_json(rows)
        return
    columns = ("encoder", "modality", "dim", "weights from", "licence", "MB", "state")
    console.print_table("", columns, [_encoder_row(row) for row in rows], "* the usual one of its modality")


def datasets(
    cache: Annotated[
        Optional[Path], typer.Option(help="Cache folder (else FSMM_CACHE, else the user's).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the data sets that can be extracted, and those that the cache holds."""
    from ..cache.schema import default_cache
    from ..extract.datasets import datasets as known_datasets

    folder = cache or default_cache()
    held = _held(folder)
    in_cache = {row["name"] for row in held}
    known = [
        {
            "name": entry.name,
            "expects": entry.expects,
            "needs_data": entry.needs_data,
            "in_cache": name in in_cache,
        }
        for name, entry in known_datasets().items()
    ]
    if json:
        console.print_json({"known": known, "cache": str(folder), "held": held})
        return
    rows = [(row["name"], row["expects"], "yes" if row["in_cache"] else "") for row in known]
    console.print_table(
        "", ("dataset", "what --data holds", "in the cache"), [tuple(map(str, r)) for r in rows]
    )
    listed = [(str(row["name"]), str(row["clips"]), ", ".join(row["streams"])) for row in held]
    title = f"In {folder}" if held else f"Nothing in {folder} yet"
    console.print_table(title, ("dataset", "clips", "streams"), listed)


def _held(cache: Path) -> list[dict[str, Any]]:
    """The data sets of the cache; one whose catalog cannot be read has None for its number of clips."""
    from ..cache.catalog import Catalog
    from ..cache.schema import list_datasets, list_streams

    found = []
    for name in list_datasets(cache):
        try:
            clips: int | None = len(Catalog.read(cache / name))
        except FsmmError:
            clips = None
        found.append({"name": name, "clips": clips, "streams": [str(s) for s in list_streams(cache / name)]})
    return found


def _encoder_row(row: dict[str, Any]) -> list[str]:
    name = f"{row['name']} *" if row["default"] else str(row["name"])
    size = f"{row['size_mb']:g}" if row["size_mb"] else ""
    return [
        name,
        row["modality"],
        str(row["dim"] or "its file's"),
        row["source"],
        row["licence"],
        size,
        row["state"],
    ]


def with_split(options: DatasetOptions, text: str) -> DatasetOptions:
    """The options with the class split of the file ``text``, or with one that the seed of ``seed=N`` draws."""
    from ..cache.class_draw import is_drawn

    if is_drawn(text):
        raise UsageError(
            f"Class split {text!r} is drawn by what reads the cache, such as `fsmm episode-eval --class-split`; here, "
            "give a JSON file of class names, or seed=N."
        )
    key, equals, value = text.partition("=")
    if key != "seed" or not equals:
        return replace(options, split_file=Path(text))
    return replace(options, split_seed=read_whole("--class-split seed=N", value))
