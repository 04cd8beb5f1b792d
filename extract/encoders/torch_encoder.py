"""The base of encoders whose network torch runs: on a CPU clip by clip, on a GPU over the items of many clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .base import BaseEncoder, Spec


class TorchEncoder(BaseEncoder):
    """An encoder whose ``_encode`` gives arrays of items (pictures, windows, clips) to ``_run``.

    On a CPU a clip is computed by itself, so that its features are the same to the bit whichever process makes them and
    whatever else it encodes. On a GPU the items of a batch go through the network together, filled up to ``gpu_items``.
    """

    on_gpu: ClassVar[bool] = True
    cpu_items: int = 16
    """The items of one pass on a CPU at most."""
    gpu_items: int = 256
    """The items of one pass on a GPU; they are halved where the memory does not suffice."""
    gpu_clips: int = 64
    """The clips of a batch on a GPU."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if not spec.device.startswith("cpu"):
            self.batch_clips = self.gpu_clips

    def _run(self, forward: Any, batch: Sequence[np.ndarray], device: Any) -> list[np.ndarray]:
        """What ``forward`` makes of the items [N_i, ...] of each clip, as float32 [N_i, ...].

        forward: takes a tensor of items on the device. Raises torch's error where one item does not fit into memory.
        """
        from .torch_run import run_on_cpu, run_on_gpu

        if device.type == "cpu":
            return [run_on_cpu(forward, clip, self.cpu_items, self.spec.precision) for clip in batch]
        found, self.gpu_items = run_on_gpu(forward, batch, self.gpu_items, device, self.spec.precision)
        return found

    def provenance(self) -> dict[str, str]:
        """The origin of the features, with the arithmetic where it is not float32."""
        known = super().provenance()
        return known if self.spec.precision == "float32" else {**known, "arithmetic": self.spec.precision}
