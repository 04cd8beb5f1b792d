"""The descriptor of motion over RAFT's flow, which torchvision has with weights; made for a GPU.

Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import FrameNeed
from ..weights.torchvision_care import ensure_torchvision
from .base import Spec
from .flow import describe, pairs
from .torch_encoder import TorchEncoder

_UPDATES = 12


class RaftHof(TorchEncoder):
    """The encoder of segments of three frames to the descriptor of their two fields of flow: [T, 306]."""

    preprocessing = (
        f"160 crop, 2 RAFT (small, {_UPDATES} updates) pairs a segment; "
        "hof 9, speed 7, mbh 8+8, mean 2 over 3x3"
    )
    batch_clips = 4
    cpu_items = 8
    gpu_items = 64
    gpu_clips = 16

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(length=3, stride=1, size=160)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """The frames uint8 [T, L, S, S, 3], unchanged. Raises DecodeError if a segment has no pair of frames."""
        return pairs(super().prepare(raw), self.name)

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return [
            describe(flow, side=frames.shape[2])
            for frames, flow in zip(batch, self._flows(batch), strict=True)
        ]

    def _flows(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The flow float32 [T, L - 1, S, S, 2] in pixels between neighbours of each clip's frames [T, L, S, S, 3]."""
        forward, device = self.network
        pairs_of = [np.stack([frames[:, :-1], frames[:, 1:]], 2) for frames in batch]
        found = self._run(forward, [one.reshape(-1, *one.shape[2:]) for one in pairs_of], device)
        return [
            flow.reshape(*one.shape[:2], *flow.shape[1:]) for flow, one in zip(found, pairs_of, strict=True)
        ]

    def _load(self) -> Any:
        from ...machine.device import pick_device
        from ..weights.checkpoint import fill, read_checkpoint
        from .torch_run import normalised

        assert self.spec.weights is not None
        device = pick_device(self.spec.device)
        network = build_network()
        fill(network, read_checkpoint(self.spec.weights.path), self.spec.weights.path)
        network.eval().requires_grad_(False).to(device)

        def forward(neighbours: Any) -> Any:
            pictures = normalised(neighbours, (127.5,) * 3, (127.5,) * 3).contiguous()
            fields = network(pictures[:, 0], pictures[:, 1], num_flow_updates=_UPDATES)
            return fields[-1].movedim(1, -1)

        return forward, device


def build_network() -> Any:
    """RAFT's small network with random weights."""
    ensure_torchvision()
    return importlib.import_module("torchvision.models.optical_flow").raft_small(weights=None)
