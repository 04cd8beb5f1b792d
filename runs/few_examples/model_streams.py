"""The streams of a model: what its examples were encoded by, and whether new clips are encoded by the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ...cache.schema import Provenance, StreamName
from ...cache.table import Stream
from ...errors import FsmmError
from .examples import Examples

STREAM, ORIGIN, PASSPORT = "stream", "provenance", "passport"
"""The keys of a stream's entry in model.json; a passport is what its encoder made of clips that fsmm brings along."""
_SAME_COSINE = 0.9999


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


def check_passports(entries: Mapping[str, Mapping[str, Any]], passports: Mapping[str, Any]) -> None:
    """Raise FsmmError where an encoder gives other features of fsmm's built-in clips than where the model was made.

    passports: those of the encoders here, by modality; a stream without one on either side is not compared.
    """
    for modality, entry in entries.items():
        theirs, here = entry.get(PASSPORT) or {}, passports.get(modality) or {}
        for clip in theirs.keys() & here.keys():
            cosine = _cosine(np.mean(theirs[clip], 0), np.mean(here[clip], 0))
            if cosine < _SAME_COSINE:
                raise FsmmError(
                    f"Encoder {entry[STREAM]} gives other features here than where the model was made (cosine "
                    f"{cosine:.4f} on the built-in clip {clip!r}); `fsmm doctor` and `fsmm cache verify --passport` "
                    "say more."
                )


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of two vectors; 0 where their widths differ."""
    if one.shape != other.shape:
        return 0.0
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))


def with_all_modalities(streams: Mapping[str, Stream], widths: Mapping[str, int], clips: int) -> Examples:
    """The clips with every modality of ``widths``; one that no clip has is absent from all of them."""
    gone = torch.zeros(clips, dtype=torch.bool)
    return Examples(
        {
            name: streams.get(name) or Stream(torch.zeros(clips, 1, width), gone, gone.long())
            for name, width in widths.items()
        }
    )
