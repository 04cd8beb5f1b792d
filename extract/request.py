"""An extraction's request as one value; the command line is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .contract import Sampling
from .datasets.base import DatasetOptions

StoredType = Literal["float16", "float32"]
TIMEOUT = 300.0  # seconds a clip
FLUSH_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """A data set, the streams that are wanted of it, and how they are made."""

    dataset: str
    """A data set of `fsmm datasets`."""
    data: Path | None = None
    """The data set's folder or file."""
    cache: Path | None = None
    """The cache folder (else FSMM_CACHE, else the user's)."""
    streams: tuple[str, ...] | None = None
    """The modalities, or modality/encoder, that are made (else frame,flow,audio,word)."""
    encoders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A modality and its encoder, such as frame=NAME of `fsmm encoders`; repeatable."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """An encoder and your own file of its weights, as NAME=PATH; repeatable."""
    device: str = "auto"
    """The device that encodes: auto, cpu or cuda."""
    workers: int | None = None
    """The number of decoding processes (else one a core)."""
    options: DatasetOptions = field(default_factory=DatasetOptions)
    sampling: Sampling = field(default_factory=Sampling)
    name: str | None = None
    """The data set's name in the cache (else its own)."""
    into: str | None = None
    """The data set of the cache that these clips join, though it was made from other data."""
    retry_failed: bool = False
    """Whether clips that failed before are tried again."""
    timeout: float = TIMEOUT
    """The seconds that a clip may take to decode."""
    flush_seconds: float = FLUSH_SECONDS
    """The seconds that a finished clip waits for its shard at most, so that a kill costs no more than that."""
    dtype: StoredType = "float16"
    """How features are stored: as float16 or float32."""
