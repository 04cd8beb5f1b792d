"""Any Kinetics-400 classifier of pytorchvideo's hub gives what its classifier reads, averaged over space and time.

Fan et al., "PyTorchVideo: A Deep Learning Library for Video Understanding", ACM Multimedia 2021. The checkpoint comes
from the hub, or is a local file with the network's tensors, alone or under ``model_state``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .base import Spec
from .video3d import Variant, Video3d

# The frames of a window and the distance between them are those in the names of the published checkpoints.
INPUTS = {
    "c2d_r50": Variant(module="resnet", builder="c2d_r50", length=8, stride=8, size=256),
    "i3d_r50": Variant(module="resnet", builder="i3d_r50", length=8, stride=8, size=256),
    "slow_r50": Variant(module="resnet", builder="slow_r50", length=8, stride=8, size=256),
    "slowfast_r50": Variant("slowfast", "slowfast_r50", length=32, stride=2, size=256, slow=8),
    "slowfast_r101": Variant("slowfast", "slowfast_r101", length=32, stride=2, size=256, slow=8),
    "csn_r101": Variant(module="csn", builder="csn_r101", length=32, stride=2, size=256),
    "r2plus1d_r50": Variant(module="r2plus1d", builder="r2plus1d_r50", length=16, stride=4, size=256),
    "x3d_xs": Variant(module="x3d", builder="x3d_xs", length=4, stride=12, size=182),
    "x3d_s": Variant(module="x3d", builder="x3d_s", length=13, stride=6, size=182),
    "x3d_m": Variant(module="x3d", builder="x3d_m", length=16, stride=5, size=256),
    "mvit_base_16x4": Variant("vision_transformers", "mvit_base_16x4", length=16, stride=4, size=224),
    "mvit_base_32x3": Variant("vision_transformers", "mvit_base_32x3", length=32, stride=3, size=224),
}


class HubVideo(Video3d):
    """The encoder of four windows spread over the clip to the classifier's input [4, D].

    The network is loaded at once, since it says how wide that input is. Raises WeightsError if its checkpoint does
    not fit.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.preprocessing += ", the classifier's input"
        self.dim = int(self.network[2])

    def _variant(self) -> Variant:
        assert self.spec.hub is not None
        return INPUTS[self.spec.hub.tag]

    def _embedding(self, model: Any) -> tuple[Callable[[Any], Any], int]:
        classifier = (model.head if hasattr(model, "head") else model.blocks[-1]).proj
        kept = threading.local()  # On a GPU two threads run the network at once.

        def keep(_: Any, inputs: tuple[Any, ...]) -> None:
            kept.read = inputs[0]

        classifier.register_forward_pre_hook(keep)

        def embed(inputs: Any) -> Any:
            model(inputs)
            read = kept.read
            del kept.read
            return read.flatten(1, -2).mean(1) if read.ndim > 2 else read

        return embed, classifier.in_features
