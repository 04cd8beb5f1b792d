"""The failures that a job may have: some clips of every kind of file are tried first; a hopeless job is stopped."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...errors import FsmmError, UsageError
from ..datasets.base import Source
from .failures import NO_FAILURE, Failure, main_file

CANARY = 50
"""The number of clips that are tried first."""
_CHANCE = 0.001  # so rare must the canary's failures be in a job within its limit before they stop it
_REASONS = 8  # the reasons that are told
T = TypeVar("T")


class TooManyFailures(FsmmError):
    """More clips failed than the user allows; what was done before is in the cache."""


@dataclass(frozen=True)
class Limit:
    """The failures that are allowed, as a share of the clips or as a number of them.

    >>> Limit.parse("2%").of(1000), Limit.parse("7").of(1000)
    (20, 7)
    """

    text: str
    """The limit as it was given."""
    share: float | None
    """The share of all clips, or None for a number."""
    count: int = 0
    """The number of clips."""

    @classmethod
    def parse(cls, text: str) -> Limit:
        """The limit of a text such as ``2%`` or ``100``. Raises UsageError for any other."""
        number = text.strip().removesuffix("%")
        try:
            if text.strip().endswith("%"):
                share = float(number) / 100
                if 0 <= share <= 1:
                    return cls(text.strip(), share)
            elif int(number) >= 0:
                return cls(text.strip(), None, int(number))
        except ValueError:
            pass
        raise UsageError(f"--max-failures takes a share such as 2% or a number of clips, not {text!r}.")

    def of(self, clips: int) -> int:
        """The failures that are allowed among so many clips."""
        return self.count if self.share is None else math.floor(self.share * clips + 1e-9)


class Budget:
    """The failures of a job, against the limit that it has, if it has one.

    clips: the number of clips of the job. canary: how many of them are tried first; that they all fail is too much in
    any case.
    """

    def __init__(self, limit: Limit | None, clips: int, *, canary: int = 0) -> None:
        self.limit, self.clips, self.canary = limit, clips, canary
        self.tried = 0
        self._failed: dict[str, str] = {}
        self.reasons: Counter[str] = Counter()

    @property
    def failed(self) -> int:
        """The number of clips that failed, as a whole or in a stream."""
        return sum(self.reasons.values())

    def note(self, failures: Iterable[Failure]) -> None:
        """Count the clips of these lines of the log, each once."""
        for failure in failures:
            if failure.stage not in NO_FAILURE and failure.id not in self._failed:
                self._failed[failure.id] = reason = kind_of_failure(failure)
                self.reasons[reason] += 1

    def add(self, *, tried: int, reasons: Mapping[str, int]) -> None:
        """Count the clips that another process has tried."""
        self.tried += tried
        self.reasons.update(reasons)

    def verdict(self) -> str:
        """The sentence that ends the job, or "" as long as there is hope."""
        if self.canary and self.tried == self.canary and self._canary_is_lost():
            return self._sentence(f"{self.failed} of the {self.canary} clips that were tried first failed")
        if self.limit is not None and self.failed > self.limit.of(self.clips):
            allowed = (
                f"--max-failures {self.limit.text} allows {self.limit.of(self.clips):,} of {self.clips:,}"
            )
            return self._sentence(f"{self.failed:,} clips failed, and {allowed}")
        return ""

    def _canary_is_lost(self) -> bool:
        if self.failed == self.canary:
            return True
        if self.limit is None:
            return False
        rate = self.limit.of(self.clips) / max(self.clips, 1)
        return at_least(self.failed, self.canary, rate) < _CHANCE

    def _sentence(self, what: str) -> str:
        counted = "; ".join(f"{count:,} x {reason}" for reason, count in self.reasons.most_common(_REASONS))
        more = f"; {len(self.reasons) - _REASONS} further reasons" if len(self.reasons) > _REASONS else ""
        return (
            f"The job was stopped: {what} ({counted}{more}). Mend the cause, or allow more by --max-failures."
        )


def at_least(failed: int, tried: int, rate: float) -> float:
    """The probability of ``failed`` or more failures among ``tried`` clips that fail at this rate.

    >>> round(at_least(1, 2, 0.5), 3), at_least(0, 5, 0.0), at_least(1, 5, 0.0)
    (0.75, 1.0, 0.0)
    """
    fewer = sum(math.comb(tried, k) * rate**k * (1 - rate) ** (tried - k) for k in range(failed))
    return max(1.0 - fewer, 0.0)


def kind_of_failure(failure: Failure) -> str:
    """The reason of a failure without what differs from clip to clip: names in quotes, and numbers.

    >>> kind_of_failure(Failure("a", "decode", "'/x/a.mp4' has no frame after 12.5 s"))
    "decode: '...' has no frame after N s"
    """
    text = re.sub(r"'[^']*'", "'...'", failure.reason)
    text = re.sub(r"\d+(\.\d+)?", "N", text)
    return f"{failure.stage}: {text[:120]}"


def canary_first(
    items: Sequence[T], source: Callable[[T], Source], name: Callable[[T], str], *, count: int = CANARY
) -> list[T]:
    """The items with some of every kind of file at the front: the endings take turns, each in the order of a hash.

    The items after the first ``count`` keep their order.
    """
    kinds: dict[str, list[T]] = defaultdict(list)
    for item in items:
        kinds[_ending(source(item))].append(item)
    for group in kinds.values():
        group.sort(key=lambda item: hashlib.blake2b(_bytes(name(item)), digest_size=8).digest())
    chosen: list[T] = []
    turn = 0
    while len(chosen) < min(count, len(items)):
        for kind in sorted(kinds):
            if turn < len(kinds[kind]) and len(chosen) < count:
                chosen.append(kinds[kind][turn])
        turn += 1
    names = {name(item) for item in chosen}
    return [*chosen, *(item for item in items if name(item) not in names)]


def _ending(source: Source) -> str:
    """The kind of a clip's main file, by its name."""
    path = main_file(source)
    kind = "" if path is None else path.suffix.lower()
    return f"images {kind}" if source.images else kind


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
