"""The device that holds tensors and the precision in which they are stored."""

from __future__ import annotations

import torch

from ..errors import UsageError


def pick_device(device: str) -> torch.device:
    """The torch device of that name; ``auto`` is the GPU where torch finds one, else the CPU.

    Raises UsageError for a name that torch does not know and for a device that this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"Device {device!r} is not known; use auto, cpu or cuda.") from None
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError):
        raise UsageError(
            f"Device {device!r} was asked for, but torch does not see it on this machine; use --device cpu."
        ) from None
    return chosen


def pick_dtype(dtype: str) -> torch.dtype:
    """The torch type of that name, float32 or bfloat16. Raises UsageError for another name."""
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise UsageError(f"dtype {dtype!r} is not known; use float32 or bfloat16.")
    return types[dtype]
