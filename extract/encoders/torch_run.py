"""Running a torch network over uint8 pictures: device, loading and chunking, the same for every family."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import UsageError, WeightsError
from .base import chunks


def checked_device(name: str) -> torch.device:
    """The torch device of that name. Raises UsageError for one that this machine does not have."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError):
        raise UsageError(f"This machine has no torch device {name!r}; use --device cpu.") from None
    return device


def read_checkpoint(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Tensors of a local checkpoint (safetensors, or a torch file read with ``weights_only``); of its entry
    ``key`` if given.

    Raises WeightsError for a file that is neither, or would need more than tensors to read.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        state = content[key] if key is not None else content
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("it holds more than tensors")
        return dict(state)
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        raise unfit(path, error) from None
    except Exception as error:  # UnpicklingError and safetensors' own
        raise unfit(path, error) from None


def unfit(path: Path, error: Exception) -> WeightsError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return WeightsError(
        f"The weights in {str(path)!r} do not fit this encoder ({reason}); give its own checkpoint."
    )


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load all tensors, no more and no fewer. Raises WeightsError otherwise."""
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise unfit(path, error) from None


def run_in_chunks(
    forward: Callable[[Tensor], Tensor], items: np.ndarray, size: int, device: torch.device
) -> np.ndarray:
    """``forward`` over consecutive chunks of ``items`` [N, ...]: float32 [N, ...] on the CPU."""
    with torch.inference_mode():
        parts = [
            forward(torch.from_numpy(part).to(device)).float().cpu().numpy() for part in chunks(items, size)
        ]
    return np.concatenate(parts)


def normalised(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [..., S, S, 3] to float32 [..., 3, S, S], (x - mean) / std with mean and std on the 0..255
    scale.
    """
    pixels = frames.to(torch.float32)
    pixels = (pixels - torch.tensor(mean, device=frames.device)) / torch.tensor(std, device=frames.device)
    return pixels.movedim(-1, -3)  # a view: the convolutions see channels-last memory, which suits them
