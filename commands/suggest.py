"""The command ``fsmm suggest``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import UsageError
from . import console
from .cache import Cache, Json

if TYPE_CHECKING:
    from ..runs.few_examples.suggest import Strategy, Suggestion


def register(app: typer.Typer) -> None:
    app.command("suggest")(suggest_command)


def suggest_command(
    source: Annotated[
        Path, typer.Argument(help="A model, or CACHE/DATASET whose clips without a label are ranked.")
    ],
    clips: Annotated[
        Optional[list[Path]], typer.Argument(help="With a model: unlabelled videos, or folders with some.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many clips to suggest.")] = 20,
    out: Annotated[
        Optional[Path],
        typer.Option(help="A file to fill in: .csv, or .json for Label Studio [standard output]."),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(help="typical, doubt, or auto: typical clips until a model has five examples a class."),
    ] = "auto",
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Say which clips to label next: typical and different ones first, later those that a model is in doubt about."""
    from ..errors import unknown
    from ..runs.few_examples.label_tasks import check_kind, interface, write_tasks
    from ..runs.few_examples.model_folder import is_model

    if n < 1:
        raise UsageError(f"--n must be at least 1; it is {n}.")
    if strategy not in ("auto", "typical", "doubt"):
        raise unknown("strategy", strategy, ("auto", "typical", "doubt"))
    if out is not None:
        check_kind(out)
    if is_model(source):
        paths, found, names = _by_model(source, clips or [], cache, n=n, strategy=strategy)
    else:
        paths, found, names = _by_cache(source, clips or [], n=n, strategy=strategy)
    rows = [_row(paths[one.row], one) for one in found]
    if out is not None:
        write_tasks(rows, out)
        console.note(f"{len(rows)} clips to label are in {out}; `fsmm fit --support {out}` reads the labels.")
        if out.suffix.lower() == ".json" and names:
            console.note(f"Label Studio's labelling interface for them: {interface(names)}")
    if json:
        console.print_json(rows)
    elif out is None:
        for row in rows:
            console.print_row([row["path"], row["suggested"] or ""])


Found = tuple[Sequence[str], "list[Suggestion]", Sequence[str]]


def _by_model(source: Path, clips: list[Path], cache: Path | None, *, n: int, strategy: str) -> Found:
    """Suggestions among clips by their paths, without the examples of the model and clips that cannot be read."""
    from ..extract.own_clips import CachedReader, OwnClips
    from ..runs.estimator import FewShotClassifier
    from ..runs.few_examples.model_streams import streams_of
    from ..runs.few_examples.suggest import suggest

    if not clips:
        raise UsageError("Name the unlabelled videos, or folders with some, after the model.")
    held = FewShotClassifier.open(source)
    quiet = console.verbosity() == console.Verbosity.QUIET
    reader = CachedReader(streams_of(held.classifier_.streams), cache=cache, quiet=quiet)
    features = reader.read(OwnClips.at(clips))
    known = {*features.failed, *held.classifier_.clips}
    rows = [i for i, clip in enumerate(features.clips) if clip not in known]
    if not rows:
        raise UsageError("All of these clips are examples of the model, or cannot be read.")
    found = suggest(
        held.clips_of(features)[rows], n, classifier=held.classifier_, strategy=_strategy(strategy)
    )
    return [features.clips[i] for i in rows], found, [str(name) for name in held.classes_]


def _by_cache(source: Path, clips: list[Path], *, n: int, strategy: str) -> Found:
    """Suggestions among the clips of a data set that have no label; those with one count as covered."""
    from ..cache.bank import FeatureBank
    from ..cache.catalog import Catalog
    from ..errors import NoClips
    from ..runs.few_examples.examples import Examples
    from ..runs.few_examples.suggest import suggest

    if not (source / "catalog.h5").is_file():
        raise UsageError(f"{str(source)!r} is neither a model nor a data set of a cache (CACHE/DATASET).")
    if clips:
        raise UsageError("A data set brings its own clips; leave out the videos.")
    place: dict[str, Any] = {"dataset": source.name, "words": None}
    try:
        bank = FeatureBank.load(source.parent, unlabelled=True, **place)
    except NoClips:
        raise UsageError(
            f"Data set {source.name!r} has no clip with features and without a label, so that there is none to "
            "suggest."
        ) from None
    try:
        labelled: Examples | None = Examples.of_bank(FeatureBank.load(source.parent, None, "all", **place))
    except NoClips:
        labelled = None
    catalog = Catalog.read(source)
    found = suggest(Examples.of_bank(bank), n, labelled=labelled, strategy=_strategy(strategy))
    return [_place(catalog, int(row)) for row in bank.clip_row], found, []


def _place(catalog: Any, row: int) -> str:
    """The path of a clip of a catalog, or its id where no path is known."""
    sources, path = catalog.sources, catalog.path[row]
    folder = sources.origins[int(sources.origin[row])].folder
    if catalog.clip_id[row].startswith("/") or not path:
        return str(catalog.clip_id[row])
    return str(Path(folder) / path) + str(sources.part[row])


def _strategy(text: str) -> Strategy:
    found: Any = text
    checked: Strategy = found
    return checked


def _row(path: str, one: Suggestion) -> dict[str, Any]:
    best = max(one.probabilities, key=lambda name: one.probabilities[name], default=None)
    return {
        "path": path,
        "suggested": best,
        "probability": None if best is None else one.probabilities[best],
        "typical": one.typical,
        "doubt": one.doubt,
        "disagreement": one.disagreement,
    }
