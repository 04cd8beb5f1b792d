"""The base of encoders whose network torch runs: on a CPU clip by clip, on a GPU over the items of many clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    is_compiled: bool = False
    """Whether torch compiles the network before its first batch on a GPU."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._compiled: dict[object, Callable[[Any], Any]] = {}
        if not spec.device.startswith("cpu"):
            self.batch_clips = self.gpu_clips

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_compiled": {}}

    def _run(self, forward: Any, batch: Sequence[np.ndarray], device: Any) -> list[np.ndarray]:
        """What ``forward`` makes of the items [N_i, ...] of each clip, as float32 [N_i, ...].

        forward: takes a tensor of items on the device. Raises torch's error where one item does not fit into memory.
        """
        from .torch_run import run_on_cpu, run_on_gpu

        if device.type == "cpu":
            return [run_on_cpu(forward, clip, self.cpu_items, self.spec.precision) for clip in batch]
        run = self._compiled_form(forward) if self.is_compiled else forward
        found, self.gpu_items = run_on_gpu(run, batch, self.gpu_items, device, self.spec.precision)
        return found

    def _compiled_form(self, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A compiled ``forward``, made once for each piece of code: functions of it are made anew for each batch."""
        from .compiled import compiled

        key = getattr(forward, "__code__", forward)
        if key not in self._compiled:
            self._compiled[key] = compiled(forward, self.name)
        return self._compiled[key]

    def provenance(self) -> dict[str, str]:
        """The origin of the features, with the arithmetic where it is not float32."""
        known = super().provenance()
        return known if self.spec.precision == "float32" else {**known, "arithmetic": self.spec.precision}
