"""The report of an extraction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ...machine.json_text import json_text


@dataclass
class StreamReport:
    """One stream after a run.

    written, absent, failed: rows of this run; copied: rows that equal clips had; held: rows that earlier runs wrote.
    """

    name: str
    dim: int
    written: int = 0
    absent: int = 0
    failed: int = 0
    held: int = 0
    copied: int = 0


@dataclass
class ExtractReport:
    """An extraction in figures.

    folder: the dataset's folder in the cache. clips: the number of clips that the dataset lists. done, failed:
    clips of this run (a clip that fails in a single stream is done; that stream counts its failure). skipped:
    clips that lacked nothing, or nothing but rows that could be copied. changed: clips whose files changed, and which
    are made again. moved: clips that were recognised under a new name. gone: clips that the data set lists no more, and
    which take no part in evaluations. partial: clips that are done although their files are damaged. left_alone: clips
    that failed in an earlier run and were not tried again. missing: clips that are listed without a file. seconds:
    by stage; decode and prepare are summed over the workers, the other stages passed in the main process.
    encoder_busy: share of the time in which an encoder ran, the start of the workers and of the networks included.
    encoder_busy_once_begun: the same from the first batch to the last; None where the workers encode.
    """

    dataset: str
    folder: str
    device: str
    workers: int
    clips: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    partial: int = 0
    left_alone: int = 0
    missing: int = 0
    changed: int = 0
    moved: int = 0
    gone: int = 0
    clips_per_second: float = 0.0
    encoder_busy: float = 0.0
    encoder_busy_once_begun: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    streams: list[StreamReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failures_file: str = ""

    def to_json(self) -> str:
        """The report as one JSON document."""
        return json_text(asdict(self), indent=2)

    def summary(self) -> str:
        """The report as a few lines for people."""
        counts = [(self.done, "done"), (self.partial, "of them in part"), (self.skipped, "already there")]
        counts.append((self.failed, "failed"))
        counts += [(self.left_alone, "failed before"), (self.missing, "without a file")]
        counts += [(self.changed, "changed"), (self.moved, "moved"), (self.gone, "listed no more")]
        listed = ", ".join(f"{count} {what}" for count, what in counts if count or what == "done")
        lines = [f"{self.dataset}: {self.clips} clips: {listed}  ({self.folder})"]
        lines += [f"  {_stream(stream)}" for stream in self.streams]
        if self.done or self.failed:
            stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.seconds.items())
            lines.append(
                f"  {self.clips_per_second:.1f} clips a second on {self.device} with {self.workers} workers; "
                f"encoder busy {self.encoder_busy:.0%}; {stages}"
            )
        if self.failures_file:
            lines.append(f"  why clips failed or were read in part: {self.failures_file}")
        return "\n".join(lines)


def _stream(stream: StreamReport) -> str:
    counts = [
        (stream.written, "written"),
        (stream.absent, "absent"),
        (stream.failed, "failed"),
        (stream.copied, "copied"),
        (stream.held, "held"),
    ]
    listed = ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing to do"
    return f"{stream.name} [{stream.dim}]: {listed}"
