"""The base of all encoders: a cheap, picklable object whose network is loaded on the first ``encode`` only.

The workers hold copies of the encoders. Each loads the networks that it runs itself, and of the others neither the
network nor its library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import DecodeError, UsageError
from ..contract import FrameNeed, Need
from ..weights.store import Located
from ..weights.table import Hub

if TYPE_CHECKING:
    from .tunable import Tunable


@dataclass(frozen=True)
class Spec:
    """The values that an encoder is built from.

    dim: the width of a feature vector, 0 if the weights decide it. weights: None for a classical descriptor.
    precision: the arithmetic of a network that torch runs over pictures: float32, or bfloat16 by autocast.
    hub: the model, if it is named by reference and not by a row of the table. templates: the prompt templates of
    such a model's class words. option: what else the reference asks of the model, "" for the usual.
    """

    name: str
    modality: str
    dim: int
    weights: Located | None = None
    device: str = "cpu"
    precision: str = "float32"
    hub: Hub | None = None
    templates: tuple[str, ...] = ()
    option: str = ""


class BaseEncoder(ABC):
    """An implementation of :class:`fsmm.extract.contract.Encoder` but for the network itself.

    A subclass sets ``need``, ``preprocessing`` (whatever else changes the features; part of the provenance)
    and ``_encode``; a subclass with a network also gives ``_load``.
    """

    need: Need
    preprocessing: str
    batch_clips: int = 8
    on_gpu: ClassVar[bool] = False
    """Whether the network runs on the device of the Spec; all else runs on the processor."""
    trial_need: FrameNeed | None = None
    """Cheaper frames that take the same way through the network, for trials; None where there are none."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.name = spec.name
        self.modality = spec.modality
        self.dim = spec.dim
        self._loaded: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    @property
    def network(self) -> Any:
        """The loaded network. Raises WeightsError if its file does not fit."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def load(self) -> None:
        """Load the network, if there is one, ahead of the first clip. Raises WeightsError if its file does not fit."""
        if type(self)._load is not BaseEncoder._load:
            _ = self.network

    def _load(self) -> Any:
        raise UsageError(f"Encoder {self.name!r} is a classical descriptor: it has no network.")

    def tunable(self) -> Tunable:
        """The network as `fsmm encoder-tune` tunes it. Raises UsageError for an encoder that has none."""
        raise UsageError(
            f"Encoder {self.name!r} cannot be tuned: it has no torch network of frames that is made for that; choose "
            "efficientnet-lite0 or -lite2, x3d-s, slowfast-r50, or a model of open_clip, timm or pytorchvideo."
        )

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """The frames uint8 [T, L, S, S, 3], unchanged. Raises DecodeError for an array of another form."""
        frames = np.ascontiguousarray(raw)
        if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
            raise DecodeError(
                f"Encoder {self.name!r} needs frames uint8 [T, L, S, S, 3]; it was given {raw.dtype} "
                f"{list(raw.shape)}."
            )
        return frames

    def encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        """Turn B prepared inputs into B arrays float32 [T_i, D]; a clip's features depend on that clip alone.

        Raises DecodeError, and returns no features, if a feature is not finite.
        """
        if not batch:
            return []
        features = [np.ascontiguousarray(array, np.float32) for array in self._encode(batch)]
        if not all(np.isfinite(array).all() for array in features):
            raise DecodeError(
                f"Encoder {self.name!r} gave a feature that is not finite; check its weights and the clip."
            )
        return features

    @abstractmethod
    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]: ...

    def provenance(self) -> dict[str, str]:
        """The origin of the features: weights (name in the table), weights_sha256 and preprocessing."""
        weights = self.spec.weights
        return {
            "weights": weights.name if weights else "",
            "weights_sha256": weights.sha256 if weights else "",
            "preprocessing": self.preprocessing,
        }


def per_clip(rows: np.ndarray, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Cut features [sum of T_i, D] back into one array [T_i, D] a clip."""
    ends = np.cumsum([len(clip) for clip in batch])
    return np.split(rows, ends[:-1])


def check_sound(samples: np.ndarray, shortest: int, name: str) -> np.ndarray:
    """The mono float32 samples [n]. Raises DecodeError if they are fewer than ``shortest`` or not all finite."""
    sound = np.ascontiguousarray(samples, np.float32).reshape(-1)
    if len(sound) < shortest:
        raise DecodeError(f"The sound has {len(sound)} samples; encoder {name!r} needs at least {shortest}.")
    if not np.isfinite(sound).all():
        raise DecodeError(f"The sound holds samples that are not finite; encoder {name!r} cannot use it.")
    return sound
