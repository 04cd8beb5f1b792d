"""The running of a torch network over uint8 pictures, with chunking and normalisation for every family."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor


def run_in_chunks(
    forward: Callable[[Tensor], Tensor], items: np.ndarray, size: int, device: torch.device
) -> np.ndarray:
    """The result of ``forward`` over consecutive chunks of ``items`` [N, ...], as float32 [N, ...] on the CPU.

    The last chunk is filled up with zeros. A network rounds differently in batches of other sizes, and an item's result
    must not depend on how many others happen to be encoded with it: on a CPU it is then the same to the bit.
    """
    with torch.inference_mode():
        parts = []
        for part in chunks(items, size):
            rest = np.zeros((size - len(part), *part.shape[1:]), part.dtype)
            whole = np.concatenate([part, rest]) if len(rest) else part
            parts.append(forward(torch.from_numpy(whole).to(device))[: len(part)].float().cpu().numpy())
    return np.concatenate(parts)


def normalised(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The frames uint8 [..., S, S, 3] as (x - mean) / std, float32 [..., 3, S, S].

    mean and std are on the 0..255 scale.
    """
    pixels = frames.to(torch.float32)
    pixels = (pixels - torch.tensor(mean, device=frames.device)) / torch.tensor(std, device=frames.device)
    return pixels.movedim(-1, -3)  # a view in channels-last memory, which suits convolutions


def chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The consecutive views of at most ``size`` rows each."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
