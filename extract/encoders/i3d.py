"""I3D over RGB frames (Kinetics-400) describes the action in a clip and keeps its order in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import WeightsError
from ..contract import FrameNeed
from .base import Spec
from .efficientnet import first_frames
from .torch_encoder import TorchEncoder

FRAMES = 32


class I3dRgb(TorchEncoder):
    """The encoder of 32 frames, spread evenly over the whole clip, to [4, 1024], pooled over space; each step
    covers an eighth of 32 frames.

    Even spreading, rather than a window of consecutive frames, gives a clip of 2 to 4 s 8 to 16 frames a second,
    near the network's training rate, and still covers the whole of a longer clip.
    """

    preprocessing = "32 frames evenly, rgb 224 crop, x/127.5-1"
    batch_clips = 2
    cpu_items = 1  # The activations of one clip alone fill a CPU's memory bandwidth.
    gpu_items = 8
    gpu_clips = 16
    # The last layers still see four places and two times, so that every weight takes part.
    trial_need = FrameNeed(segments=16, size=112)
    channels = 3

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(segments=FRAMES, size=224)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [32, 1, S, S, 3] into [32, S, S, 3]. Raises DecodeError for another form."""
        return first_frames(super().prepare(raw))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        forward, _, device = self.network
        return [steps[0] for steps in self._run(forward, [clip[None] for clip in batch], device)]

    def logits(self, prepared: np.ndarray) -> np.ndarray:
        """The Kinetics-400 logits [400] of one prepared clip, which show whether network and weights agree."""
        _, classify, device = self.network
        from .torch_run import run_in_chunks

        return run_in_chunks(classify, self.encode([prepared])[0][None], 1, device)[0]

    def _load(self) -> Any:
        from ...machine.device import pick_device
        from ..weights.checkpoint import fill, unfit
        from .i3d_net import I3DNet, from_flax
        from .torch_run import normalised

        assert self.spec.weights is not None
        path = self.spec.weights.path
        device = pick_device(self.spec.device)
        network = I3DNet(self.channels)
        try:
            state = from_flax(_arrays(self.spec.weights.path))
        except (KeyError, ValueError) as error:
            raise unfit(path, error) from None
        fill(network, state, path)
        network.eval().to(device)

        def forward(clips: Any) -> Any:
            scale = (127.5,) * self.channels
            return network(normalised(clips, scale, scale).transpose(1, 2))

        def classify(features: Any) -> Any:
            # The published network averages pairs of steps before the classifier, and their logits after it.
            pairs = (features[:, 1:] + features[:, :-1]) / 2 if features.shape[1] > 1 else features
            return network.classifier(pairs).mean(1)

        return forward, classify, device


def _arrays(path: Any) -> dict[str, np.ndarray]:
    """The arrays of the converted safetensors file, or of the published pickle.

    Raises WeightsError for any other file.
    """
    from ..weights.numpy_pickle import load_arrays

    if path.suffix != ".safetensors":
        return load_arrays(path)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{str(path)!r} is not a readable safetensors file ({error}); fetch it again."
        ) from None
