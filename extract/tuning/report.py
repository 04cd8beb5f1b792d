"""What a tuning gives back: where the tuned encoder lies, its name, and how the loss went."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_POINTS = 20  # the points of the curve that a record keeps


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """A finished tuning."""

    folder: Path
    """The folder of the tuned encoder."""
    record: dict[str, Any]
    """What the folder's record says."""
    failed: dict[str, str]
    """Why clips could not be read, by clip id."""
    seconds: float
    """How long the call took."""
    tuning_seconds: float
    """How long its steps took."""
    was_there: bool
    """Whether the same tuning was finished before, so that nothing was done."""

    @property
    def reference(self) -> str:
        """The encoder as `fsmm extract --encoder frame=...` takes it."""
        return f"tuned:{self.folder}"

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "folder": str(self.folder),
            "reference": self.reference,
            **self.record,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "was_there": self.was_there,
        }

    def summary(self) -> str:
        """The report in a few lines."""
        record = self.record
        lines = [
            f"{record['name']}: {record['objective']} on {record['clips']} clips of {record['tuned_on']}"
        ]
        if self.failed:
            clip, reason = next(iter(self.failed.items()))
            count = "1 clip" if len(self.failed) == 1 else f"{len(self.failed)} clips"
            lines.append(f"  {count} could not be read, such as {clip!r} ({reason.rstrip('.')})")
        if curve := record["loss"]:
            lines.append(
                f"  loss {curve[0]:.3f} in the beginning, {curve[-1]:.3f} in the end, {record['steps']} steps"
            )
        if self.was_there:
            lines.append("  it was there already, and nothing was done")
        lines.append(
            f"  next: fsmm extract --encoder frame={self.reference} and the data set that is evaluated"
        )
        return "\n".join(lines)


def curve_of(losses: Sequence[float]) -> list[float]:
    """The mean losses of up to twenty parts of the steps, in order.

    >>> curve_of([4.0, 2.0, 1.0])
    [4.0, 2.0, 1.0]
    >>> len(curve_of([1.0] * 70))
    20
    """
    parts = min(_POINTS, len(losses))
    bounds = [len(losses) * i // parts for i in range(parts + 1)] if parts else []
    return [round(sum(losses[a:b]) / (b - a), 6) for a, b in itertools.pairwise(bounds)]
