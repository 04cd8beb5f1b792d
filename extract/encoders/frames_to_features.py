"""A network's way from frames to features in its two parts, which extraction runs as one and tuning one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FramesToFeatures:
    """A function of frames, uint8 or float from 0 to 255, that knows the network that it runs."""

    module: Any
    """The network, whose tensors are a whole checkpoint."""
    enter: Callable[[Any], Any]
    """What turns frames [N, ..., S, S, 3] into the network's input."""
    features: Callable[[Any], Any]
    """What turns that input into features [N, D]."""

    def __call__(self, frames: Any) -> Any:
        return self.features(self.enter(frames))
