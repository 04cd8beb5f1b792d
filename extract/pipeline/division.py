"""Which encoders run in the workers, beside the decoder, and which in the main process.

Without a GPU a worker that decodes and encodes its own clips hands back features alone, and no process is the bound of
all others. A GPU belongs to one process, which encodes the clips of all workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...machine.memory import free_memory
from ..contract import Encoder
from .encoding import load

ENCODE_FROM = 32
"""The clips from which on it pays that each worker loads the networks."""
_A_WORKER = 400 << 20  # bytes of a process that has imported torch and decodes
_COPIES = 3  # of a network's weights file, while it is read and used
_SHARE = 0.6  # of the free memory
_THREADS = 2  # While one waits for the GPU's results, the other stages the next batch.


class Division:
    """The encoders of a run, divided between its workers and this process.

    own: the numbers of the encoders that run in the workers. workers: how many of these there are.
    """

    def __init__(self, encoders: Sequence[Encoder], device: str) -> None:
        self.encoders, self.device = encoders, device
        self.own: frozenset[int] = frozenset()
        self.workers = 0
        self._seconds_of_workers = 0.0

    def settle(self, workers: int, clips: int) -> None:
        """Divide the encoders, for so many clips and at most so many workers."""
        self.workers = min(workers, clips)
        self.own = self._divided(clips)

    def _divided(self, clips: int) -> frozenset[int]:
        if self._has_gpu:
            return frozenset(i for i, encoder in enumerate(self.encoders) if not _may_use_gpu(encoder))
        if clips < ENCODE_FROM:
            return frozenset()
        room = free_memory()
        needed = self.workers * (_A_WORKER + _COPIES * sum(map(_bytes_of_weights, self.encoders)))
        is_too_much = room is not None and needed > _SHARE * room
        return frozenset() if is_too_much else frozenset(range(len(self.encoders)))

    def threads(self, number: int) -> int:
        """The threads that run an encoder in this process beside the one that gathers clips and writes."""
        encoder = self.encoders[number]
        if number in self.own or not self._has_gpu:
            return 0
        return _THREADS if hasattr(encoder, "on_gpu") else 1  # Others may not bear being run twice at once.

    def load(self) -> None:
        """Load the networks that several threads of this process are going to use. Raises WeightsError."""
        for number, encoder in enumerate(self.encoders):
            if self.threads(number):
                load(encoder)

    def count(self, seconds: Mapping[str, float], clock: dict[str, float]) -> None:
        """Add a worker's seconds by stage to a clock; what it encodes beside a GPU counts as preparing."""
        for stage, spent in seconds.items():
            name = "prepare" if stage == "encode" and not self._all_own else stage
            clock[name] = clock.get(name, 0.0) + spent
        self._seconds_of_workers += seconds.get("encode", 0.0)

    def busy(self, wall: float, clock: Mapping[str, float]) -> float:
        """The share of the time in which encoders ran: in the workers where all of them do, else in this process."""
        if self._all_own:
            return self._seconds_of_workers / (max(wall, 1e-9) * max(self.workers, 1))
        return clock.get("encode", 0.0) / max(wall, 1e-9)

    def seconds_here(self, clock: Mapping[str, float]) -> float:
        """The seconds for which encoders held up this process."""
        return 0.0 if self.own or self._has_gpu else clock.get("encode", 0.0)

    @property
    def _all_own(self) -> bool:
        return len(self.own) == len(self.encoders)

    @property
    def _has_gpu(self) -> bool:
        return not self.device.startswith("cpu")


def _may_use_gpu(encoder: Encoder) -> bool:
    """Whether an encoder says that it runs on the GPU, or does not say."""
    return bool(getattr(encoder, "on_gpu", True))


def _bytes_of_weights(encoder: Encoder) -> int:
    weights = getattr(getattr(encoder, "spec", None), "weights", None)
    try:
        return 0 if weights is None else int(weights.path.stat().st_size)
    except OSError:  # Loading it will say so.
        return 0
