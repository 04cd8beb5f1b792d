"""An extraction's request as one value; the command line is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .contract import Sampling
from .datasets.base import DatasetOptions

Precision = Literal["auto", "float32", "bfloat16"]
StoredType = Literal["float16", "float32"]
Engine = Literal["local", "ray"]
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
    precision: Precision = "auto"
    """The arithmetic of picture networks: float32, bfloat16, or auto: bfloat16 on a GPU, or as the stream was begun."""
    compiled: bool = False
    """Whether torch compiles picture networks on a GPU first, which takes a minute or so and pays for many clips."""
    workers: int | None = None
    """The number of worker processes (else one a core)."""
    options: DatasetOptions = field(default_factory=DatasetOptions)
    sampling: Sampling = field(default_factory=Sampling)
    name: str | None = None
    """The data set's name in the cache (else its own)."""
    into: str | None = None
    """The data set of the cache that these clips join, though it was made from other data."""
    retry_failed: bool = False
    """Whether clips that failed before are tried again."""
    timeout: float = TIMEOUT
    """The seconds that a clip may take to decode, and again to encode in its worker."""
    flush_seconds: float = FLUSH_SECONDS
    """The seconds that a finished clip waits for its shard at most, so that a kill costs no more than that."""
    dtype: StoredType = "float16"
    """How features are stored: as float16 or float32."""
    max_failures: str | None = None
    """The failures that end the job: a share of the clips such as 2%, or a number; 50 of all kinds are tried first."""
    shard: str | None = None
    """Only the shard I of N, given as I/N, in a small cache of its own that `fsmm cache merge` joins."""
    engine: Engine = "local"
    """Where clips are extracted: on this machine, or on the Ray cluster of RAY_ADDRESS (else one started here)."""
    shards: int | None = None
    """The number of shards of --engine ray (else one for 500 clips)."""
    thumbnails: bool = True
    """Whether a small picture of each clip is kept, which reports show."""
