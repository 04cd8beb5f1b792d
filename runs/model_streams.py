"""The streams of a model: what its examples were encoded by, and whether new clips are encoded by the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from ..cache.schema import Provenance, StreamName
from ..cache.table import Stream
from ..errors import FsmmError
from .examples import Examples

STREAM, ORIGIN, PASSPORT = "stream", "provenance", "passport"
"""The keys of a stream's entry in model.json; a passport is what its encoder made of clips that fsmm brings along."""
PassportCheck = Callable[[StreamName, Any], None]
"""Makes a stream's passport again and raises FsmmError where it comes out otherwise."""


def stream_entries(
    names: Mapping[str, StreamName], origins: Mapping[str, Provenance], passports: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The entry of each modality in a model; passports: those of the streams that have one, by modality."""
    return {
        modality: {
            STREAM: str(stream),
            ORIGIN: asdict(origins[modality]),
            PASSPORT: passports.get(modality),
        }
        for modality, stream in names.items()
    }


def streams_of(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of the streams of a model."""
    return [str(entry[STREAM]) for entry in entries.values()]


def check_origins(entries: Mapping[str, Mapping[str, Any]], origins: Mapping[str, Provenance]) -> None:
    """Raise FsmmError where features of new clips were made otherwise than those of the examples."""
    for modality, entry in entries.items():
        theirs = origins.get(modality)
        if theirs is not None and (differ := Provenance(**entry[ORIGIN]).differences(theirs)):
            raise FsmmError(
                f"The model's {modality} features were made otherwise than those of these clips: {'; '.join(differ)} "
                "(here = the model); use the same encoder, or fit the model anew."
            )


def check_passports(entries: Mapping[str, Mapping[str, Any]], check: PassportCheck) -> list[str]:
    """Check every stream that has a passport, and return the modalities that have none. Raises as ``check`` does."""
    for entry in entries.values():
        if entry.get(PASSPORT) is not None:
            check(StreamName.parse(entry[STREAM]), entry[PASSPORT])
    return [modality for modality, entry in entries.items() if entry.get(PASSPORT) is None]


def with_all_modalities(streams: Mapping[str, Stream], widths: Mapping[str, int], clips: int) -> Examples:
    """The clips with every modality of ``widths``; one that no clip has is absent from all of them."""
    gone = torch.zeros(clips, dtype=torch.bool)
    return Examples(
        {
            name: streams.get(name) or Stream(torch.zeros(clips, 1, width), gone, gone.long())
            for name, width in widths.items()
        }
    )
