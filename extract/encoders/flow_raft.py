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
from .base import BaseEncoder, Spec
from .flow import describe, pairs

_CHUNK = 8
_UPDATES = 12


class RaftHof(BaseEncoder):
    """The encoder of segments of three frames to the descriptor of their two fields of flow: [T, 306]."""

    preprocessing = (
        f"160 crop, 2 RAFT (small, {_UPDATES} updates) pairs a segment; "
        "hof 9, speed 7, mbh 8+8, mean 2 over 3x3"
    )
    batch_clips = 4
    on_gpu = True

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(length=3, stride=1, size=160)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """The frames uint8 [T, L, S, S, 3], unchanged. Raises DecodeError if a segment has no pair of frames."""
        return pairs(super().prepare(raw), self.name)

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return [describe(self._flows(frames), side=frames.shape[2]) for frames in batch]

    def _flows(self, frames: np.ndarray) -> np.ndarray:
        """The flow float32 [T, L - 1, S, S, 2] in pixels between neighbours of frames uint8 [T, L, S, S, 3]."""
        from .torch_run import run_in_chunks

        forward, device = self.network
        neighbours = np.stack([frames[:, :-1], frames[:, 1:]], 2)
        flat = neighbours.reshape(-1, *neighbours.shape[2:])
        found = run_in_chunks(forward, flat, _CHUNK, device)
        return found.reshape(*neighbours.shape[:2], *found.shape[1:])

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
