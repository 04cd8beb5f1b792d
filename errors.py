"""The errors that fsmm raises on purpose: each is one sentence that states the fault and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FsmmError(Exception):
    """A stated failure. The command line prints the sentence and exits with ``exit_code``."""

    exit_code = 1


class UsageError(FsmmError):
    """The request itself is wrong: it has an unknown name or a value out of range, for example."""

    exit_code = 2


class CacheError(FsmmError):
    """The cache cannot be read or written as the request demands."""


class DecodeError(FsmmError):
    """A clip could not be read; the error is recorded in failures.jsonl and never ends an extraction."""


class WeightsError(FsmmError):
    """Weights are missing, could not be fetched, or do not have the expected hash."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The UsageError for a name that is not among ``known``; it suggests the nearest name and lists all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names) if names else "none"
    return UsageError(f"Unknown {kind} {name!r}.{hint} Known: {listed}.")
