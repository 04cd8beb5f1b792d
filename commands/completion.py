"""Values that the shell completes: names of methods, encoders, data sets, modalities and streams, and fixed choices.

`fsmm --install-completion` sets up the shell. Nothing heavy is imported: names come from tables and from folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

Completer = Callable[[typer.Context, str], list[str]]


def one_of(choices: Iterable[str]) -> Completer:
    """A completer of fixed choices."""
    known = tuple(choices)

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return _beginning_with(incomplete, known)

    return complete


def methods(ctx: typer.Context, incomplete: str) -> list[str]:
    """Methods; once the name of a method of one modality is complete, also its forms for several."""
    from ..heads.registry import FUSIONS
    from ..heads.registry import methods as known

    fused = [
        f"{name}-{fusion}"
        for name, method in known().items()
        if method.modalities == "one" and incomplete.startswith(f"{name}-")
        for fusion in FUSIONS
    ]
    return _beginning_with(incomplete, [*known(), *fused])


def presets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Studies that are shipped with the package; files are completed where none begins so."""
    folder = Path(__file__).parents[1] / "studies" / "grid" / "presets"
    names = [path.stem for path in folder.glob("*.yaml")]
    files = sorted(map(str, Path().glob(f"{incomplete}*.yaml"))) if incomplete else []
    return [*_beginning_with(incomplete, names), *files]


def encoders(ctx: typer.Context, incomplete: str) -> list[str]:
    """Encoders by name."""
    from ..extract.encoders import encoders as known

    return _beginning_with(incomplete, known())


def encoders_by_modality(ctx: typer.Context, incomplete: str) -> list[str]:
    """Encoders as ``modality=name``."""
    from ..extract.encoders import encoders as known

    return _beginning_with(incomplete, [f"{row.modality}={name}" for name, row in known().items()])


def sources(ctx: typer.Context, incomplete: str) -> list[str]:
    """Data sets that can be extracted."""
    from ..extract.datasets import datasets

    return _beginning_with(incomplete, datasets())


def held_datasets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Data sets of the cache that the line names."""
    from ..cache.schema import list_datasets

    return _beginning_with(incomplete, list_datasets(_cache(ctx)))


def made_streams(ctx: typer.Context, incomplete: str) -> list[str]:
    """A list, divided by commas, of modalities and streams that extraction can make."""
    from ..extract.encoders import encoders as known

    made = {name: row.modality for name, row in known().items()}
    return _last_of_list(incomplete, [*made.values(), *(f"{m}/{name}" for name, m in made.items())])


def held_modalities(ctx: typer.Context, incomplete: str) -> list[str]:
    """A list, divided by commas, of modalities that the data set of the line has in the cache."""
    return _last_of_list(incomplete, _held(ctx, streams=False))


def held_streams(ctx: typer.Context, incomplete: str) -> list[str]:
    """A list, divided by commas, of modalities and streams that the data set of the line has in the cache."""
    return _last_of_list(incomplete, [*_held(ctx, streams=False), *_held(ctx, streams=True)])


def held_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of runs of the data set that the line names, or of all data sets of its cache, with the data set's name."""
    from ..runs.listing import runs_of_cache

    return _beginning_with(incomplete, runs_of_cache(_cache(ctx), ctx.params.get("dataset")))


def missing_modality(ctx: typer.Context, incomplete: str) -> list[str]:
    """A modality of the data set with a side of the episode, such as ``audio@query``."""
    sides = ("query", "support", "both")
    return _beginning_with(incomplete, [f"{m}@{side}" for m in _held(ctx, streams=False) for side in sides])


def _held(ctx: typer.Context, *, streams: bool) -> list[str]:
    """The modalities, or the streams, of the data set that the line names, or of all data sets of its cache."""
    from ..cache.schema import list_datasets, list_streams

    cache, named = _cache(ctx), ctx.params.get("dataset")
    found = [s for name in [named] if name for s in list_streams(cache / name)]
    found = found or [s for name in list_datasets(cache) for s in list_streams(cache / name)]
    return list(dict.fromkeys(str(s) if streams else s.modality for s in found if s.modality != "word"))


def _cache(ctx: typer.Context) -> Path:
    """The cache that the line names, or the usual one."""
    from ..cache.schema import default_cache

    named = ctx.params.get("cache")
    return default_cache() if named is None else Path(named).expanduser()


def _beginning_with(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _last_of_list(incomplete: str, names: Iterable[str]) -> list[str]:
    """The list with its last name completed by each of the names that it does not have yet."""
    before, comma, last = incomplete.rpartition(",")
    have = before.split(",")
    return [f"{before}{comma}{name}" for name in _beginning_with(last, names) if name not in have]
