"""A stream that has no row yet gets its passport from the encoder that is about to fill it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from pathlib import Path

from ...cache.stream import StreamWriter
from ...errors import WeightsError
from ..contract import Encoder
from .lane import Lane


def write_passports(
    folder: Path, lanes: Sequence[Lane], *, elsewhere: Collection[int] = frozenset()
) -> list[str]:
    """Write the passports that are due, and return a sentence for each that could not be made.

    elsewhere: the numbers of the lanes whose clips other processes encode; this one keeps no network of theirs.
    """
    encoders = [copy(lane.encoder) if i in elsewhere else lane.encoder for i, lane in enumerate(lanes)]
    found = [write_passport_of(folder, encoder, lane.writer) for encoder, lane in zip(encoders, lanes)]
    return [sentence for sentence in found if sentence]


def write_passport_of(folder: Path, encoder: Encoder, writer: StreamWriter) -> str:
    """Write the passport of a stream without any row; the sentence for the user where it cannot be made, else "".

    A stream that has rows was begun elsewhere or before there were passports, so this machine cannot vouch for them.
    Raises WeightsError where the encoder's weights do not fit.
    """
    if not writer.is_new:
        return ""
    from ..passport import (
        write_passport,  # It decodes, which is an extra.
    )

    try:
        write_passport(folder, encoder, writer.provenance)
    except WeightsError:
        raise
    except (
        Exception
    ) as error:  # A network's library raises anything; the first clip then says what is wrong with it.
        reason = " ".join(str(error).split())[:200]
        return f"Stream {writer.stream} has no passport, so that nobody can compare it elsewhere ({reason})."
    return ""
