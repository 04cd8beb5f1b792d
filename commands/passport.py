"""``fsmm cache verify --passport``: whether this machine's encoders give the features that a cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from ..errors import FsmmError
from . import console

SAME, OTHER, UNTRIED = "same", "differs", "not tried"


def verify_passports(cache: Path, dataset: str | None, *, json: bool) -> None:
    """Make the passport of every stream again and print how it compares; exit code 1 where one differs.

    Raises UsageError where the packages that read videos are not installed, CacheError for a cache without data sets.
    """
    from ..extract.choose import need_extra

    need_extra()
    rows = list(_compared(cache, dataset))
    differ = [row for row in rows if row["state"] == OTHER]
    if json:
        console.print_json({"cache": str(cache), "ok": not differ, "streams": rows})
    else:
        columns = ["stream", "passport", "cosine", "largest difference", "says"]
        shown = [
            [
                f"{row['dataset']}/{row['stream']}",
                row["state"],
                "" if row["cosine"] is None else f"{row['cosine']:.6f}",
                "" if row["largest"] is None else f"{row['largest']:.2g}",
                row["says"],
            ]
            for row in rows
        ]
        console.print_table("", columns, shown, "The largest difference is in units of the largest feature.")
    if differ:
        raise typer.Exit(1)


def _compared(cache: Path, dataset: str | None) -> Iterator[dict[str, Any]]:
    """A row for each stream of the data sets."""
    from ..cache.schema import dataset_folders, list_streams

    for folder in dataset_folders(cache, dataset):
        for stream in list_streams(folder):
            with console.progress(f"{folder.name}/{stream}"):
                found = _of_stream(folder, stream)
            yield {"dataset": folder.name, "stream": str(stream), **found}


def _of_stream(folder: Path, stream: Any) -> dict[str, Any]:
    """The state of one stream's passport: the same, another, or the reason why it was not tried."""
    from ..cache.stream import stream_provenance
    from ..extract import encoders
    from ..extract.contract import Sampling
    from ..extract.encoders.sensor import SeriesEncoder
    from ..extract.encoders.sound_windows import SoundEncoder
    from ..extract.passport import compare, passport_path
    from ..extract.pipeline.lane import provenance_of

    untried: dict[str, Any] = {"state": UNTRIED, "cosine": None, "largest": None}
    held = stream_provenance(folder, stream)
    if not passport_path(folder, stream).is_file() or held is None:
        says = "The stream has no passport: it was imported, or begun before there were passports."
        return {**untried, "says": says}
    if stream.encoder not in encoders.encoders():
        return {**untried, "says": f"No encoder here is called {stream.encoder!r}."}
    if (state := encoders.state(stream.encoder)) != "ready":
        hint = f"`fsmm encoders --fetch {stream.encoder}` may get its weights"
        return {**untried, "says": f"The encoder is not ready here ({state}); {hint}."}
    try:
        encoder = encoders.build(stream.encoder)
        if isinstance(encoder, SeriesEncoder):
            encoder.fit_to_width(held.dim)
        if isinstance(encoder, SoundEncoder):
            encoder.fit_to_origin(held.extra)
        here = provenance_of(encoder, Sampling(), held.dtype, axis=held.axis)
        found = asdict(compare(folder, encoder, held, here))
    except FsmmError as error:
        return {**untried, "state": OTHER, "says": str(error)}
    return {
        "state": SAME if found["same"] else OTHER,
        "cosine": found["cosine"],
        "largest": found["largest"],
        "says": found["cause"],
    }
