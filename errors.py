"""The errors that fsmm raises on purpose: each is one sentence that states the fault and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class FsmmError(Exception):
    """A stated failure. The command line prints the sentence and exits with ``exit_code``."""

    exit_code = 1


class UsageError(FsmmError):
    """The request itself is wrong: it has an unknown name or a value out of range, for example."""

    exit_code = 2


class CacheError(FsmmError):
    """The cache cannot be read or written as the request demands."""


class NoClips(CacheError):
    """The cache can be read, and holds no clip of what was asked for."""


class DecodeError(FsmmError):
    """A clip could not be read; the error is recorded in failures.jsonl and never ends an extraction."""


class WeightsError(FsmmError):
    """Weights are missing, could not be fetched, or do not have the expected hash."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The UsageError for a name that is not among ``known``; it suggests the nearest name and lists them.

    >>> print(unknown("fruit", "aple", ["pear", "apple"]))
    Unknown fruit 'aple'. Did you mean 'apple'? Known: apple, pear.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, _comparable(name, names), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"Unknown {kind} {brief(name)}.{hint} Known: {listed(names)}.")


def install_hint(*extras: str) -> str:
    r"""The clause that says how packages of optional features are installed; fsmm is installed from its sources.

    >>> install_hint("extract")
    'run `pip install -c constraints.txt -e ".[extract]"` in the folder of fsmm\'s sources'
    """
    return f'run `pip install -c constraints.txt -e ".[{",".join(extras)}]"` in the folder of fsmm\'s sources'


def listed(names: Sequence[str]) -> str:
    """Names divided by commas; of very many or very long ones the first, and how many more there are.

    >>> listed(["a", "b"]), listed([])
    ('a, b', 'none')
    >>> listed([f"v{i}" for i in range(5000)])[-20:]
    'v98, v99, 4,900 more'
    """
    shown: list[str] = []
    for name in names[:_LISTED_NAMES]:
        shown.append(name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}...")
        if sum(map(len, shown)) > _LISTED_CHARACTERS:
            break
    rest = [f"{len(names) - len(shown):,} more"] if len(shown) < len(names) else []
    return ", ".join([*shown, *rest]) or "none"


def brief(value: object) -> str:
    """A value as Python writes it, cut where it is long.

    >>> brief("a" * 1000)[-6:]
    'aaa...'
    """
    text = repr(value)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[:_VALUE_CHARACTERS]}..."


def error_named(kind: str) -> type[FsmmError] | None:
    """The class of errors that fsmm raises on purpose and that has this name; None where there is none.

    >>> error_named("UsageError").__name__, error_named("ValueError")
    ('UsageError', None)
    """
    found = globals().get(kind)
    return found if isinstance(found, type) and issubclass(found, FsmmError) else None


_LISTED_NAMES, _LISTED_CHARACTERS, _NAME_CHARACTERS, _VALUE_CHARACTERS = 100, 1000, 100, 200
_COMPARED_NAMES = 5000


def _comparable(name: str, names: Sequence[str]) -> Sequence[str]:
    """The names that are compared with a name in search of the nearest; a comparison takes some microseconds."""
    if len(name) > _NAME_CHARACTERS:
        return []
    short = [other for other in names if len(other) <= _NAME_CHARACTERS]
    if len(short) > _COMPARED_NAMES:
        short = [other for other in short if other[:1].lower() == name[:1].lower()][:_COMPARED_NAMES]
    return short
