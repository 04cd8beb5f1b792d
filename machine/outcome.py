"""How a job ended that ran elsewhere: in another process, or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one job."""

    job: Hashable
    """The name under which the job was started."""
    value: Any = None
    """What the job returned."""
    kind: str = ""
    """The name of the class of the error that ended the job; empty where none did."""
    reason: str = ""
    """The sentence of that error."""


def attempt(work: Callable[[], Any]) -> tuple[Any, str, str]:
    """The result of a job, the kind of its error and the sentence of that, whatever it is; "" without an error."""
    try:
        return work(), "", ""
    except Exception as error:
        return None, type(error).__name__, " ".join(str(error).split()) or "no reason given"
