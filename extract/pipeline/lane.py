"""One stream on its way into the cache: prepared clips gather in a batch, the encoder runs, the rows are written."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.schema import Provenance
from ...cache.stream import StreamWriter
from ...errors import CacheError, DecodeError, FsmmError, UsageError, install_hint
from ..contract import AudioNeed, Encoder, FrameNeed, Sampling, SeriesNeed
from .worker import READY, Part

# After this many failures other than DecodeError, with no success in between, the encoder is at fault.
_FAILURES_IN_A_ROW = 20


class Clock:
    """A clock that adds up seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began


@dataclass
class _Waiting:
    key: str
    part: Part
    facts: Mapping[str, object]


class Lane:
    """A stream's encoder and writer; rows are written in the order in which they are added, whatever the batches.

    failed: called with (clip, stage, reason) for a row that could not be made. written: rows with features;
    absent: rows recorded as absent; failures: rows that could not be made; copied: rows that the cache held elsewhere.
    """

    def __init__(
        self,
        encoder: Encoder,
        writer: StreamWriter,
        clock: Clock,
        failed: Callable[[str, str, str], None],
    ) -> None:
        self.encoder, self.writer, self.clock, self.failed = encoder, writer, clock, failed
        self.written, self.absent, self.failures, self.copied = 0, 0, 0, 0
        self.seconds = 0.0
        self._waiting: list[_Waiting] = []
        self._ready = self._in_a_row = 0
        self._most = encoder.batch_clips  # It shrinks where a batch did not fit into the memory.

    def add(self, key: str, part: Part, facts: Mapping[str, object]) -> None:
        """Take one clip. Raises CacheError if the cache cannot be written, FsmmError if the encoder is unusable."""
        self._waiting.append(_Waiting(key, part, facts))
        self._ready += part.state == READY
        if self._ready >= self._most or (not self._ready and len(self._waiting) >= 64):
            self.drain()

    def copy(self, key: str, features: np.ndarray | None, facts: Mapping[str, object]) -> None:
        """Add a row that another clip of the same file has. Raises CacheError if the cache cannot be written."""
        with self.clock("write"):
            self.writer.add(key, features, facts)
        self.copied += 1

    def drain(self) -> None:
        """Encode and write the clips that wait."""
        waiting, self._waiting, self._ready = self._waiting, [], 0
        ready = [row for row in waiting if row.part.state == READY]
        began = time.perf_counter()
        with self.clock("encode"):
            features = dict(zip((row.key for row in ready), self._encode(ready)))
        self.seconds += time.perf_counter() - began
        with self.clock("write"):
            for row in waiting:
                self._write(row, features.get(row.key))
        self.writer.log = {"rows": self.written, "encode_seconds": round(self.seconds, 3)}

    def flush(self) -> None:
        """Make the rows that are written safe."""
        with self.clock("write"):
            self.writer.flush()

    def _encode(self, rows: list[_Waiting]) -> list[np.ndarray | None]:
        """The features of every row; None for a row that failed, which is then recorded."""
        if not rows:
            return []
        try:
            made: list[np.ndarray | None] = list(self.encoder.encode([row.part.value for row in rows]))
        except Exception as error:
            self._stop_if_hopeless(error)
            if len(rows) > 1:  # This finds the clip at fault; a batch too large for the memory fits in parts.
                half = len(rows) // 2
                if _is_want_of_memory(error):
                    self._most = min(self._most, half)
                return [*self._encode(rows[:half]), *self._encode(rows[half:])]
            self._fail(rows[0].key, error)
            return [None]
        self._in_a_row = 0
        return made

    def _stop_if_hopeless(self, error: Exception) -> None:
        if isinstance(error, FsmmError) and not isinstance(error, DecodeError):
            raise error
        if isinstance(error, ImportError):
            raise UsageError(
                f"Encoder {self.encoder.name!r} cannot run here ({error}): {install_hint('extract', 'encoders')}."
            ) from error

    def _fail(self, key: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, DecodeError) else f"{type(error).__name__}: {error}"
        self._in_a_row = 0 if isinstance(error, DecodeError) else self._in_a_row + 1
        if self._in_a_row >= _FAILURES_IN_A_ROW:
            raise FsmmError(
                f"Encoder {self.encoder.name!r} failed on {self._in_a_row} clips in a row, the last with: "
                f"{' '.join(reason.split())[:300]}; check its weights and --device."
            ) from error
        self._record(key, reason)

    def _record(self, key: str, reason: str) -> None:
        self.failures += 1
        self.failed(key, "encode", " ".join(reason.split())[:500])

    def _write(self, row: _Waiting, features: np.ndarray | None) -> None:
        if row.part.state == READY and features is None:
            return
        if features is not None and (trouble := _unstorable(features, self.writer.provenance)):
            self._record(row.key, trouble)
            return
        self.writer.add(row.key, features, row.facts)
        if features is None:
            self.absent += 1
        else:
            self.written += 1


def _is_want_of_memory(error: Exception) -> bool:
    """Whether an error says that memory, of the machine or of a GPU, did not suffice; torch's is a RuntimeError."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _unstorable(features: np.ndarray, provenance: Provenance) -> str:
    """The reason why the writer would refuse these features, or "".

    With this check, a CacheError from the writer means a fault of the cache, not of the clip.
    """
    from ...cache.shard import storable

    try:
        storable("this clip", features, provenance)
    except CacheError as error:
        return str(error)
    return ""


def provenance_of(encoder: Encoder, sampling: Sampling, dtype: str, axis: str = "clip") -> Provenance:
    """The record of all that made a stream's features: encoder, weights, preprocessing, sampling, size and dtype."""
    stated: dict[str, Any] = dict(encoder.provenance())
    return Provenance(
        encoder.name,
        encoder.modality,
        encoder.dim,
        axis=axis,
        dtype=dtype,
        weights=str(stated.pop("weights", "")),
        weights_sha256=str(stated.pop("weights_sha256", "")),
        preprocessing=str(stated.pop("preprocessing", "")),
        sampling=sampling_text(encoder, sampling),
        extra={name: str(value) for name, value in stated.items()},
    )


def sampling_text(encoder: Encoder, sampling: Sampling) -> str:
    """The part of the sampling that concerns this encoder: sound does not depend on segments, nor pictures on sound."""
    need = encoder.need
    if isinstance(need, FrameNeed):
        segments = sampling.segments if need.segments is None else need.segments
        position = (
            sampling.position
            if sampling.position == "centre"
            else f"{sampling.position}, seed {sampling.seed}"
        )
        return (
            f"{segments} segments of {need.length} frames, stride {need.stride}, {position}; "
            f"{need.size} px {need.resize}"
        )
    if isinstance(need, AudioNeed):
        return f"mono {need.rate} Hz, at most {sampling.max_seconds:g} s"
    if isinstance(need, SeriesNeed):
        return f"windows of {sampling.window:g} s, {sampling.hop:g} s apart"
    return ""
