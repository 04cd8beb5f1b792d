"""``fsmm cache show`` and ``fsmm cache rm``: what a data set holds, clip by clip, and what of it shall go."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..errors import UsageError, listed
from . import completion, console
from .cache import Cache, Dataset, Json, app, cache_root, size_text

if TYPE_CHECKING:
    from ..cache.upkeep.contents import Contents
    from ..cache.upkeep.remove import Removal

_CLIPS = 20  # The clips that are printed without --clips.


def register(parent: typer.Typer) -> None:
    """Add the commands to ``fsmm cache``."""
    app.command("show")(show_command)
    app.command("rm")(rm_command)


def show_command(
    cache: Cache = None,
    dataset: Dataset = None,
    label_set: Annotated[Optional[str], typer.Option(help="The label set [the default].")] = None,
    class_split: Annotated[
        Optional[str], typer.Option(help="Which class split, such as s0 or random:8:3 [default].")
    ] = None,
    clips: Annotated[bool, typer.Option("--clips", help="Print every clip, not the first ones.")] = False,
    json: Json = False,
) -> None:
    """Show classes by split, where the split comes from, and clips with labels and modalities."""
    from ..cache.upkeep.contents import contents

    found = contents(cache_root(cache), dataset, label_set, class_split)
    if json:
        console.print_json(found.to_json())
        return
    _print_classes(found)
    _print_clips(found, len(found.clips) if clips else _CLIPS)


def rm_command(
    cache: Cache = None,
    dataset: Dataset = None,
    stream: Annotated[
        Optional[list[str]],
        typer.Option(metavar="MODALITY/ENCODER", help="Remove this stream (modality/encoder); repeatable."),
    ] = None,
    clip: Annotated[
        Optional[list[str]], typer.Option(metavar="ID", help="Remove the clip of this id; repeatable.")
    ] = None,
    clips_file: Annotated[
        Optional[Path], typer.Option(help="Remove the clips that this text file names, one id a line.")
    ] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Remove all runs of the data set.")] = False,
    run: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME",
            help="Remove this run of `fsmm runs`; repeatable.",
            autocompletion=completion.held_runs,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove a data set, or with options its streams, clips or runs, after a question.

    Sources (videos, feature files) are never touched; extracting again brings all but runs back."""
    kinds = {
        "--stream": bool(stream),
        "--clip": bool(clip or clips_file),
        "--runs": runs,
        "--run": bool(run),
    }
    given = [name for name, is_given in kinds.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} cannot be combined; remove one kind after the other.")
    ids = [*(clip or []), *(_lines(clips_file) if clips_file else [])]
    removal = _planned(cache_root(cache), dataset, streams=stream, ids=ids, runs=runs, run_names=run)
    if not yes and not _confirmed(removal):
        console.note("Nothing was removed.")
        raise typer.Exit(1)
    freed = removal.carry_out()
    if json:
        console.print_json({"dataset": removal.folder.name, "removed": removal.what, "freed_bytes": freed})
    else:
        typer.echo(f"Removed {removal.what}: {size_text(freed)} freed.")


def _planned(
    cache: Path,
    dataset: str | None,
    *,
    streams: list[str] | None,
    ids: list[str],
    runs: bool,
    run_names: list[str] | None,
) -> Removal:
    """The removal that the options ask for."""
    from ..cache.upkeep.remove import plan_clips, plan_dataset, plan_runs, plan_streams
    from ..runs.listing import run_named, runs_of_cache

    if streams:
        return plan_streams(cache, dataset, streams)
    if ids:
        return plan_clips(cache, dataset, ids)
    if runs:
        return plan_runs(cache, dataset)
    if run_names:
        known = runs_of_cache(cache, dataset)
        return plan_runs(cache, dataset, [run_named(name, known) for name in run_names])
    if dataset is None:
        raise UsageError("Name the dataset to remove with --dataset.")
    return plan_dataset(cache, dataset)


def _confirmed(removal: Removal) -> bool:
    """Whether the person at the terminal agrees. Raises UsageError where there is nobody to ask."""
    question = f"Remove {removal.what} of {str(removal.folder)!r} ({size_text(removal.bytes)})?"
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Add --yes to do so; there is no terminal to ask at.")
    return typer.confirm(question, err=True)


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    from ..machine.files import refuse_special

    refuse_special(path, "list of clips")
    try:
        text = path.read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UsageError(f"The list of clips {str(path)!r} cannot be read ({error.strerror}).") from None
    if not (ids := [line for line in text.splitlines() if line.strip()]):
        raise UsageError(f"The list of clips {str(path)!r} is empty; give one clip id a line.")
    return ids


def _print_classes(found: Contents) -> None:
    """Print the classes of each part of the split, with the number of clips that have each modality."""
    modalities = list(found.classes[0].with_modality) if found.classes else []
    words = any(entry.word_streams for entry in found.classes)
    rows = [
        [
            entry.name,
            entry.split or "-",
            f"{entry.clips:,}",
            *(f"{entry.with_modality[modality]:,}" for modality in modalities),
            *([", ".join(entry.word_streams) or "none"] if words else []),
        ]
        for entry in found.classes
    ]
    others = [name for name in found.label_sets if name != found.label_set]
    title = f"{found.dataset}: {len(found.clips):,} clips, label set {found.label_set}"
    about = f"From {listed(found.origins)}. " if found.origins else ""
    about += f"Further label sets: {listed(others)}." if others else ""
    console.print_table(
        title, ["class", "split", "clips", *modalities, *(["words"] if words else [])], rows, about
    )
    if found.class_split:
        sizes = Counter(entry.split or "in no split" for entry in found.classes)
        counts = ", ".join(f"{count} {part}" for part, count in sizes.items())
        origin = found.split_origin or "where it comes from was not recorded"
        typer.echo(f"Class split {found.class_split}: {counts}; {origin}.")
    else:
        typer.echo("There is no class split; evaluations need --split all.")


def _print_clips(found: Contents, most: int) -> None:
    """Print the first clips, and how many clips have each combination of modalities."""
    rows = [
        [
            clip.id,
            ", ".join(clip.labels) or "no label",
            ", ".join(clip.splits) or "-",
            clip.clip_split or "-",
            clip.group or "-",
            f"{'+'.join(clip.modalities) or 'none'}{' (gone)' if clip.gone else ''}",
        ]
        for clip in found.clips[:most]
    ]
    with_what = ", ".join(f"{count:,} {name or 'none'}" for name, count in found.combinations.items())
    rest = len(found.clips) - len(rows)
    more = f"{rest:,} more clips: --clips shows them, --json gives all. " if rest else ""
    columns = ["clip", "labels", "split", "clip split", "group", "modalities"]
    console.print_table("Clips", columns, rows, f"{more}Modalities of the clips: {with_what or 'none'}.")
