"""Clips become features in this process, by encoders that stay loaded, for services that decide one clip at a time.

Nothing is stored. Decoding runs in as many threads as call; an encoder runs for one caller at a time, because not every
network may be run by several threads at once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from ..cache.clip_streams import ClipStreams, stacked
from ..cache.schema import OWN_CLIPS
from ..cache.shard import storable
from ..errors import DecodeError
from ..machine.device import pick_device
from ..machine.memory import keep_freed_memory
from .choose import build_encoders, need_extra
from .contract import Sampling
from .datasets.base import Source
from .own_clips import OwnClips, chosen_streams
from .passport import made, rows_of
from .pipeline.lane import provenance_of
from .pipeline.worker import FAILED, READY, Job, Setup, carry_out

_DTYPE = "float16"


class LiveReader:
    """Encoders that stay loaded. Raises as an extraction does where they cannot run here."""

    def __init__(self, streams: Sequence[str] | None = None, *, device: str = "auto") -> None:
        """``streams``: modalities or modality/encoder; None for frame, flow and audio."""
        need_extra()
        keep_freed_memory()
        self.names = chosen_streams(streams)
        self._encoders = tuple(build_encoders(list(self.names.values()), {}, str(pick_device(device))))
        self._setup = Setup(self._encoders, Sampling())
        self._origins = {e.modality: provenance_of(e, self._setup.sampling, _DTYPE) for e in self._encoders}
        self._turn = threading.Lock()
        self._passports = {
            e.modality: rows_of(made(OWN_CLIPS, e, self._origins[e.modality])) for e in self._encoders
        }

    def read(self, clips: OwnClips) -> ClipStreams:
        """The features of clips, in the order of their sources, as the cache would hold them."""
        failed, found = dict(clips.unreadable), []
        for name, source in clips.sources.items():
            try:
                found.append(self._features(source, name))
            except DecodeError as error:
                failed[name] = str(error)
                found.append({})
        return ClipStreams(
            clips=list(clips.sources),
            streams={m: stacked([x.get(m) for x in found], o.dim) for m, o in self._origins.items()},
            names=self.names,
            origins=self._origins,
            failed=failed,
            passports=self._passports,
        )

    def _features(self, source: Source, name: str) -> dict[str, np.ndarray | None]:
        """The features [T, D] of one clip by modality; None where it lacks one. Raises DecodeError."""
        outcome = carry_out(Job(name, source, tuple(range(len(self._encoders)))), self._setup)
        if outcome.stage:
            raise DecodeError(outcome.reason)
        found: dict[str, np.ndarray | None] = {}
        for number, part in outcome.parts.items():
            encoder = self._encoders[number]
            if part.state == FAILED:
                raise DecodeError(f"{encoder.name} cannot use it: {part.reason}")
            found[encoder.modality] = None
            if part.state == READY:
                with self._turn:
                    (x,) = encoder.encode([part.value])
                found[encoder.modality] = storable(name, x, self._origins[encoder.modality]).astype(
                    np.float32
                )
        return found
