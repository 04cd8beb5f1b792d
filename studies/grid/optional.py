"""Blocks of a study that are left out where the cache does not hold what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...errors import CacheError, UsageError
from ...runs.job import Place
from .data import DataFacts
from .options import EACH
from .spec import Block, StudyDocument


def lacking(
    document: StudyDocument,
    block: Block,
    *,
    facts_of: Callable[[str | None], DataFacts],
    place: Place,
    overrides: Mapping[str, Any],
) -> str:
    """The sentence that says what an optional block reads and the cache lacks; "" for any other block.

    That is a data set or a stream. The parameters are those of ``expand``.
    """
    if not block.optional:
        return ""
    for dataset in _values("dataset", document, block, overrides):
        if dataset == EACH:
            continue
        for streams in _values("streams", document, block, overrides):
            try:
                facts_of(dataset or place.dataset).streams(streams)
            except (CacheError, UsageError) as error:
                return str(error)
    return ""


def _values(key: str, document: StudyDocument, block: Block, overrides: Mapping[str, Any]) -> Iterator[Any]:
    """The values that an option has in a block; None where nothing sets it."""
    if key in overrides:
        yield overrides[key]
        return
    found = [table[key] for table in (*block.variants, *block.include) if key in table]
    found += block.grid.get(key, [])
    common = {**document.file.fixed, **block.fixed}
    yield from found if found and key not in common else [*found, common.get(key)]
