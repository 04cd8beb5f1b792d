"""What the decoder and the encoders agree on: what a clip must give, what comes back, what an encoder is.

This module imports nothing heavy, so that `fsmm encoders` lists without loading a backbone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from .clip_files import State

Position = Literal["centre", "random"]


@dataclass(frozen=True)
class FrameNeed:
    """The frames that an encoder wants from a clip, sampled as TSN does (Wang et al., ECCV 2016).

    The clip is cut into ``segments`` equal parts; from each, ``length`` frames ``stride`` apart are taken
    around its centre (or a random place, see :class:`Sampling`). A clip with fewer frames repeats its last one.

    segments: number of segments T; None takes the run's T (``Sampling.segments``).
    length: consecutive frames of a segment (1 for image encoders, 2 for flow pairs, 16 for 3D networks).
    stride: distance between those frames, in source frames.
    size: side of the square output in pixels.
    resize: "crop" (short side to ``size``, centre crop) or "squash" (both sides to ``size``).
    """

    segments: int | None = None
    length: int = 1
    stride: int = 1
    size: int = 224
    resize: str = "crop"


@dataclass(frozen=True)
class AudioNeed:
    """The clip's sound as mono float32 in [-1, 1] at ``rate`` Hz."""

    rate: int = 16_000


@dataclass(frozen=True)
class SeriesNeed:
    """A time series of the clip, such as that of a sensor, cut into the windows that the run's Sampling says.

    series: its name.
    """

    series: str = "sensor"


@dataclass(frozen=True)
class TextNeed:
    """The need of an encoder that embeds class words and reads no pixels."""


@dataclass(frozen=True)
class PairNeed:
    """The frames and the sound of a clip, for a network that reads both at once."""

    frames: FrameNeed = field(default_factory=FrameNeed)
    sound: AudioNeed = field(default_factory=AudioNeed)


Need = FrameNeed | AudioNeed | SeriesNeed | TextNeed | PairNeed


def single_needs(needs: Iterable[Need]) -> list[Need]:
    """The different needs, those of a pair each by itself.

    >>> single_needs([PairNeed(), AudioNeed()])
    [FrameNeed(segments=None, length=1, stride=1, size=224, resize='crop'), AudioNeed(rate=16000)]
    """
    found: dict[Need, None] = {}
    for need in needs:
        parts: tuple[Need, ...] = (need.frames, need.sound) if isinstance(need, PairNeed) else (need,)
        found |= dict.fromkeys(parts)
    return list(found)


@dataclass(frozen=True)
class Pair:
    """Frames and sound of one clip, as a PairNeed asks for them or as its encoder prepares them."""

    frames: np.ndarray
    sound: np.ndarray

    @property
    def nbytes(self) -> int:
        """The bytes of both arrays."""
        return int(self.frames.nbytes + self.sound.nbytes)


@dataclass(frozen=True)
class Sampling:
    """How frames are chosen, the same for every clip of a run; part of each shard's provenance.

    Random draws depend on the seed and the clip's id alone.
    """

    segments: int = 8
    """The equal parts that a clip is cut into; every part gives its frames."""
    position: Position = "centre"
    """Where a segment's frames are taken: at its centre, or at a random place in it."""
    seed: int = 0
    """The seed of random frame places."""
    max_seconds: float = 600.0
    """The seconds of sound that are read at most; a longer clip's frames are still spread over all of it."""
    window: float = 1.0
    """The seconds of a window of a time series, such as that of a sensor."""
    hop: float = 0.5
    """The seconds from one window of a time series to the next."""
    sound_hop: float | None = None
    """The seconds from one window of sound to the next (else what each encoder of sound usually has)."""


@dataclass(frozen=True)
class ClipFacts:
    """What decoding learned about the source file. NaN or 0 stands for unknown or absent."""

    duration: float = float("nan")  # seconds
    fps: float = float("nan")
    width: int = 0
    height: int = 0
    has_video: bool = False
    has_audio: bool = False
    sha256: str = ""  # of the source file's bytes, and of the part of it that the clip is, if it is a part


@dataclass
class Decoded:
    """One clip, decoded once for all encoders of a run.

    frames: per FrameNeed, uint8 [T, L, S, S, 3] RGB; a need that could not be met is missing.
    audio: per AudioNeed, float32 [samples]; missing where the clip has no sound.
    series: per SeriesNeed, windows float32 [T, W, C]; missing where the clip does not have the series.
    times: per FrameNeed or SeriesNeed, the second of the middle of each segment or window, float64 [T], from the
    clip's first frame or first step on; missing where the file tells no time.
    notes: faults that were survived ("audio stream is damaged after 1.2 s"), for the log.
    state: the state of the clip's files while they were read; None where nobody looked.
    """

    facts: ClipFacts
    frames: dict[FrameNeed, np.ndarray] = field(default_factory=dict)
    audio: dict[AudioNeed, np.ndarray] = field(default_factory=dict)
    series: dict[SeriesNeed, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    state: State | None = None
    times: dict[Need, np.ndarray] = field(default_factory=dict)


class Encoder(Protocol):
    """A named network (or classical descriptor) with its weights.

    The pipeline calls ``prepare`` in the workers (cheap, per clip, numpy only: classical flow or spectrograms belong
    there). Without a GPU each worker also calls ``encode``, clip by clip, with one thread and a network of its own; an
    encoder that uses a GPU is called in the main process, with batches of many clips, by one thread at a time, or by
    two if it says ``on_gpu = True``. With ``on_gpu = False`` it stays in the workers beside a GPU, too. A method
    ``load``, if there is one, is called before the first clip.

    name: the encoder's part of the stream's name, e.g. "efficientnet-lite0". modality: frame, flow, audio, word,
    object, sensor or a name of the data's own. dim: size D of a feature vector. need: the input that it must be given.
    dtype: the type that its features are stored in. batch_clips: the number of clips that suits one call of ``encode``.
    """

    name: str
    modality: str
    dim: int
    need: Need
    batch_clips: int

    def prepare(self, raw: Any) -> Any:
        """Turn the frames [T, L, S, S, 3], samples [n] or windows [T, W, C] of a clip into this encoder's input.

        An encoder of a PairNeed is given a Pair, and may return one; any other takes and returns an array.

        Raises DecodeError if the clip cannot be used by this encoder, for instance because its sound is too short.
        """
        ...

    def encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        """Turn B prepared inputs (for words: B strings) into B float32 arrays [T_i, D]."""
        ...

    def provenance(self) -> dict[str, str]:
        """Whatever changes the features when it changes, under weights, weights_sha256 and preprocessing."""
        ...


@runtime_checkable
class TellsTimes(Protocol):
    """An encoder that knows the times of its input's steps better than the clip does, as those that cut sound do."""

    def times(self, raw: np.ndarray, taken: np.ndarray | None) -> np.ndarray | None:
        """The seconds [m] of the middles of the steps of ``prepare(raw)``; None where they are not known.

        taken: those of the clip's segments or windows. An encoder that makes fewer steps of its input covers equal
        parts of it with each.
        """
        ...
