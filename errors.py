"""The errors fsmm raises on purpose: one sentence that says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FsmmError(Exception):
    """A stated failure. The command line prints the sentence and exits with ``exit_code``."""

    exit_code = 1


class UsageError(FsmmError):
    """The request itself is wrong: an unknown name, a flag out of range."""

    exit_code = 2


class CacheError(FsmmError):
    """The cache cannot be read or written as asked."""


class DecodeError(FsmmError):
    """A clip could not be read; recorded in failures.jsonl, never fatal to an extraction."""


class WeightsError(FsmmError):
    """Weights are missing, could not be fetched, or fail their hash."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A UsageError for a name that is not among ``known``: suggests the nearest and lists them all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names) if names else "none"
    return UsageError(f"Unknown {kind} {name!r}.{hint} Known: {listed}.")
