"""``fsmm extract``, ``fsmm encoders`` and ``fsmm datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ..errors import FsmmError, UsageError
from . import console


def register(app: typer.Typer) -> None:
    app.command("extract")(extract)
    app.command("encoders")(encoders)
    app.command("datasets")(datasets)


def extract(
    dataset: Annotated[str, typer.Option(help="A dataset of `fsmm datasets`.")],
    data: Annotated[Optional[Path], typer.Option(help="Its folder or file.")] = None,
    cache: Annotated[
        Optional[Path], typer.Option(help="Cache folder (else FSMM_CACHE, else the user's).")
    ] = None,
    streams: Annotated[
        Optional[str], typer.Option(help="Modalities, or modality/encoder [frame,flow,audio,word].")
    ] = None,
    encoder: Annotated[
        Optional[list[str]], typer.Option(help="frame=NAME of `fsmm encoders`; repeatable.")
    ] = None,
    weights: Annotated[
        Optional[list[str]], typer.Option(help="NAME=PATH: your own file for an encoder; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[Optional[int], typer.Option(help="Decoding processes [one a core].")] = None,
    small: Annotated[bool, typer.Option("--small", help="The dataset's smallest meaningful form.")] = False,
    limit: Annotated[Optional[int], typer.Option(help="The first N clips only.")] = None,
    segments: Annotated[int, typer.Option(help="Segments a clip is cut into.")] = 8,
    sampling: Annotated[
        str, typer.Option(help="Frames at each segment's centre, or random in it.")
    ] = "centre",
    seed: Annotated[int, typer.Option(help="Seed of random sampling and of drawing clips.")] = 0,
    clips: Annotated[Optional[int], typer.Option(help="Draw a benchmark of N labelled clips.")] = None,
    per_class: Annotated[Optional[int], typer.Option(help="Draw at most N clips a class.")] = None,
    label_set: Annotated[Optional[str], typer.Option(help="The default label set.")] = None,
    class_split: Annotated[
        Optional[str], typer.Option(help="Base, val and novel classes: a JSON file, or seed=N to draw them.")
    ] = None,
    split_sizes: Annotated[
        Optional[str], typer.Option(help="Base, val and novel classes of a drawn split: 16,4,12.")
    ] = None,
    unlabelled: Annotated[Optional[Path], typer.Option(help="A folder of further clips, no labels.")] = None,
    name: Annotated[Optional[str], typer.Option(help="The dataset's name in the cache.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again the clips that failed before.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds a clip may take to decode.")] = 300.0,
    dtype: Annotated[str, typer.Option(help="Features are stored as float16 or float32.")] = "float16",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no warnings.")] = False,
) -> None:
    """Turn a dataset's videos into cached features; run again, it does what is still missing."""
    from ..extract.contract import Sampling
    from ..extract.datasets.base import DatasetOptions
    from ..extract.run import extract as run_extract

    split_file, split_seed = _class_split(class_split)
    options = DatasetOptions(
        small=small,
        seed=seed,
        label_set=label_set,
        clips=clips,
        per_class=per_class,
        split_file=split_file,
        split_seed=split_seed,
        split_sizes=_sizes(split_sizes),
        unlabelled=unlabelled,
        limit=limit,
    )
    report = run_extract(
        dataset,
        data,
        cache,
        _names(streams),
        encoders=_encoders(encoder or []),
        weights={key: Path(path) for key, path in (_pair("--weights", text) for text in weights or [])},
        device=device,
        workers=workers,
        options=options,
        sampling=Sampling(segments=segments, position=sampling, seed=seed),
        dtype=dtype,
        name=name,
        retry_failed=retry_failed,
        timeout=timeout,
        quiet=quiet or console.verbosity() == console.Verbosity.QUIET,
    )
    print(report.to_json() if json else report.summary())
    if report.clips and not (report.done or report.skipped):
        raise FsmmError(f"None of the {report.clips} clips could be used; {report.failures_file} says why.")


def encoders(
    fetch: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Get this encoder's weights ahead of time.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the encoders, where their weights come from, and whether they can run here."""
    from ..extract import encoders as table

    if fetch is not None:
        path = table.fetch(fetch)
        told = str(path) if path is not None else None
        if json:
            console.print_json({"name": fetch, "path": told})
        else:
            print(told or f"{fetch} needs no weights.")
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
    """List what can be extracted, and what the cache holds."""
    from ..cache.schema import default_cache
    from ..extract.datasets import DATASETS

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
        for name, entry in DATASETS.items()
    ]
    if json:
        console.print_json({"known": known, "cache": str(folder), "held": held})
        return
    rows = [(row["name"], row["expects"], "yes" if row["in_cache"] else "") for row in known]
    console.print_table(
        "", ("dataset", "what --data holds", "in the cache"), [tuple(map(str, r)) for r in rows]
    )
    told = [(str(row["name"]), str(row["clips"]), ", ".join(row["streams"])) for row in held]
    title = f"In {folder}" if held else f"Nothing in {folder} yet"
    console.print_table(title, ("dataset", "clips", "streams"), told)


def _held(cache: Path) -> list[dict[str, Any]]:
    """Datasets of the cache. One whose catalog cannot be read has clips None."""
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


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UsageError(f"{option} is of the form KEY=VALUE, not {text!r}.")
    return key, value


def _encoders(texts: list[str]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for modality, encoder in (_pair("--encoder", text) for text in texts):
        named.setdefault(modality, []).append(encoder)
    return named


def _class_split(text: str | None) -> tuple[Path | None, int]:
    """(split file, split seed)."""
    if text is None:
        return None, 0
    key, equals, value = text.partition("=")
    if key != "seed" or not equals:
        return Path(text), 0
    try:
        return None, int(value)
    except ValueError:
        raise UsageError(f"--class-split seed=N takes a whole number, not {value!r}.") from None


def _sizes(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        base, val, novel = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--split-sizes takes three counts of classes (base, val, novel), such as 16,4,12; not {text!r}."
        ) from None
    return base, val, novel
