"""An encoder runs over prepared clips: one clip's trouble stays that clip's, a batch without room is halved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DecodeError, FsmmError, UsageError, error_named, install_hint
from ...machine.memory import is_want_of_memory
from ..contract import Encoder


@dataclass(frozen=True)
class Fault:
    """Why an encoder gave no features of a clip."""

    reason: str
    """The reason in one line."""
    is_clips: bool
    """Whether the encoder says that it is the clip's fault."""

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """The fault that an error of ``encode`` tells of."""
        is_clips = isinstance(error, DecodeError)
        text = str(error) if is_clips else f"{type(error).__name__}: {error}"
        return cls(" ".join(text.split())[:500], is_clips)


Made = np.ndarray | Fault
"""What became of a clip: its features [T, D], or why there are none."""


def encode_each(encoder: Encoder, values: Sequence[Any]) -> tuple[list[Made], int]:
    """What became of each prepared clip, and how many of them one call may have.

    Where a call fails, its halves are tried, which finds the clip at fault; a batch too large for the memory fits in
    parts. Raises FsmmError where the encoder itself is unusable, such as UsageError for a package that is missing.
    """
    if not values:
        return [], 0
    try:
        return list(encoder.encode(values)), len(values)
    except Exception as error:
        _stop_if_unusable(encoder, error)
        if len(values) == 1:
            return [Fault.of(error)], 1
        is_narrow = is_want_of_memory(error)
    half = len(values) // 2
    first, fits = encode_each(encoder, values[:half])
    second, also_fits = encode_each(encoder, values[half:])
    return [*first, *second], min(fits, also_fits) if is_narrow else len(values)


def _stop_if_unusable(encoder: Encoder, error: Exception) -> None:
    if isinstance(error, FsmmError) and not isinstance(error, DecodeError):
        raise error
    if isinstance(error, ImportError):
        raise UsageError(
            f"Encoder {encoder.name!r} cannot run here ({error}): {install_hint('extract', 'encoders')}."
        ) from error


def load(encoder: Encoder) -> None:
    """Load an encoder's network ahead of the first clip, where the encoder can do so. Raises as ``encode_each``."""
    if (ahead := getattr(encoder, "load", None)) is None:
        return
    try:
        ahead()
    except Exception as error:
        _stop_if_unusable(encoder, error)
        raise


def is_stated(kind: str) -> bool:
    """Whether a name is that of a class of errors that fsmm raises on purpose."""
    return error_named(kind) is not None


def raised_elsewhere(kind: str, reason: str) -> FsmmError:
    """The error of another process as one of this, by the name of its class and its sentence.

    >>> raised_elsewhere("WeightsError", "They do not fit.")
    WeightsError('They do not fit.')
    """
    return (error_named(kind) or FsmmError)(reason)
