"""I3D over optical flow, the second stream of the two; its weights come from a file of the user's.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017.
"""

from __future__ import annotations

import numpy as np

from ..contract import FrameNeed
from .base import BaseEncoder, Spec
from .flow import pairs
from .flow_motion import flows
from .i3d import FRAMES, I3dRgb

_FASTEST = 20.0  # pixels a step, at which the published flow is cut


class I3dFlow(I3dRgb):
    """The encoder of 32 fields of flow, spread evenly over the whole clip, to [4, 1024].

    Each field lies between two neighbouring frames, cut at 20 pixels and rounded to 8 bits as the published flow is.
    The file is that of I3D on pictures, with two channels where that has three.
    """

    preprocessing = "32 pairs evenly, 224 crop, DIS (medium), 20 px to 8 bits, x/127.5-1"
    trial_need = FrameNeed(segments=16, length=2, stride=1, size=112)
    channels = 2

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(segments=FRAMES, length=2, stride=1, size=224)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [32, 2, S, S, 3] into fields uint8 [32, S, S, 2]. Raises DecodeError for another form."""
        flow = flows(pairs(BaseEncoder.prepare(self, raw), self.name)[:, :2])[:, 0]
        return np.round((np.clip(flow / _FASTEST, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
