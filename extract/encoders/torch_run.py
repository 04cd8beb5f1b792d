"""The running of a torch network over arrays of pictures, with chunking and normalisation for every family."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ...machine.device import pick_dtype
from ...machine.memory import is_want_of_memory
from .base import per_clip

Forward = Callable[[Tensor], Tensor]


def run_in_chunks(forward: Forward, items: np.ndarray, size: int, device: torch.device) -> np.ndarray:
    """The result of ``forward`` over consecutive chunks of ``items`` [N, ...], as float32 [N, ...] on the CPU.

    The last chunk is filled up with zeros. A network rounds differently in batches of other sizes, and an item's result
    must not depend on how many others happen to be encoded with it: on a CPU it is then the same to the bit. On a GPU,
    chunks that do not fit into its memory are halved.
    """
    if device.type != "cpu":
        return run_on_gpu(forward, [items], size, device, "float32")[0][0]
    with torch.inference_mode():
        parts = []
        for part in chunks(items, size):
            rest = np.zeros((size - len(part), *part.shape[1:]), part.dtype)
            whole = np.concatenate([part, rest]) if len(rest) else part
            parts.append(forward(torch.from_numpy(whole))[: len(part)].float().numpy())
    return np.concatenate(parts)


def run_on_cpu(forward: Forward, items: np.ndarray, size: int, precision: str) -> np.ndarray:
    """The result of ``forward`` over the items [N, ...] of one clip, as float32 [N, ...], ``size`` at a time.

    Nothing is filled up: how the items of a clip are divided depends on that clip alone, and so do its features.
    """
    with torch.inference_mode(), arithmetic("cpu", precision):
        parts = [forward(torch.from_numpy(part)).float().numpy() for part in chunks(items, size)]
    return np.concatenate(parts)


def run_on_gpu(
    forward: Forward, batch: Sequence[np.ndarray], size: int, device: torch.device, precision: str
) -> tuple[list[np.ndarray], int]:
    """The results of ``forward`` over the items [N_i, ...] of each clip, and the items of a pass that fitted.

    Passes of ``size`` items mix clips, and are halved where the GPU's memory does not suffice. Raises torch's error
    where one item does not fit.
    """
    while True:
        try:
            return per_clip(_passes(forward, batch, size, device, precision), batch), size
        except RuntimeError as error:
            if size == 1 or not is_want_of_memory(error):
                raise
        size = max(size // 2, 1)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _passes(
    forward: Forward, batch: Sequence[np.ndarray], size: int, device: torch.device, precision: str
) -> np.ndarray:
    """The rows of all items of a batch: copies run beside the computation, and the processor waits once, at the end.

    Items go into page-locked memory, from there to the device on a stream of copies, and results come back on the
    stream of computation; both streams belong to the calling thread, so that two threads overlap as well.
    """
    staged, count = _staged(batch, size, device)
    copying, computing = _streams(device)
    rows = []
    with torch.inference_mode(), arithmetic(device.type, precision):
        for start in range(0, len(staged), size):
            with _on(copying):
                items = staged[start : start + size].to(device, non_blocking=True)
            if computing is not None and copying is not None:
                computing.wait_stream(copying)
                items.record_stream(computing)
            with _on(computing):
                made = forward(items)[: count - start].float()
                back = torch.empty(made.shape, pin_memory=computing is not None)
                rows.append(back.copy_(made, non_blocking=computing is not None))
    if computing is not None:
        computing.synchronize()
    return np.concatenate([row.numpy() for row in rows])


def _staged(batch: Sequence[np.ndarray], size: int, device: torch.device) -> tuple[Tensor, int]:
    """The items of a batch, filled up with zeros to a multiple of ``size``, and how many they are."""
    count = sum(map(len, batch))
    shape = (-(-count // size) * size, *batch[0].shape[1:])
    kind = torch.from_numpy(batch[0][:0]).dtype
    staged = torch.empty(shape, dtype=kind, pin_memory=device.type == "cuda")
    np.concatenate(batch, out=staged[:count].numpy())
    staged[count:] = 0
    return staged, count


class _Streams(threading.local):
    """The CUDA streams of a thread, copying and computing, by the device's index."""

    def __init__(self) -> None:
        self.pairs: dict[int | None, tuple[torch.cuda.Stream, torch.cuda.Stream]] = {}


_STREAMS = _Streams()


def _streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream] | tuple[None, None]:
    """The streams of this thread for copies and for computation; none where the device has no streams."""
    if device.type != "cuda":
        return None, None
    if device.index not in _STREAMS.pairs:
        _STREAMS.pairs[device.index] = (torch.cuda.Stream(device), torch.cuda.Stream(device))
    return _STREAMS.pairs[device.index]


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
    """The block runs on a stream; on the usual one where there is none."""
    return nullcontext() if stream is None else torch.cuda.stream(stream)


def arithmetic(device: str, precision: str) -> torch.autocast:
    """The arithmetic of a block: float32, or another type by autocast."""
    dtype = pick_dtype(precision)
    reduced = dtype != torch.float32
    # Autocast's cache of converted weights is common to all threads and knows nothing of their streams.
    return torch.autocast(
        device, dtype=dtype if reduced else torch.bfloat16, enabled=reduced, cache_enabled=False
    )


def normalised(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The frames uint8 [..., S, S, 3] as (x - mean) / std, float32 [..., 3, S, S].

    mean and std are on the 0..255 scale.
    """
    centre, scale = _constants(mean, std, frames.device)
    pixels = (frames.to(torch.float32) - centre) / scale
    return pixels.movedim(-1, -3)  # a view in channels-last memory, which suits convolutions


@lru_cache(maxsize=64)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Both as tensors on a device, made once: to bring them there would hold up a GPU at every pass."""
    with torch.inference_mode(False):
        return torch.tensor(mean, device=device), torch.tensor(std, device=device)


def chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The consecutive views of at most ``size`` rows each."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
