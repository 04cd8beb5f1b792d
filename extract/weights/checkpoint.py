"""The reading of local checkpoints without trust in them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import WeightsError


def read_checkpoint(path: Path, key: str | None = None, nests: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of a local checkpoint (safetensors, or a torch file read with ``weights_only``), or those of
    its entry ``key`` if that is given. nests: entries of which the first that is a dict is read, if there is any.

    Raises WeightsError for a file of another kind, or a file that holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        state = content[key] if key is not None else content
        state = next((state[nest] for nest in nests if isinstance(state.get(nest), dict)), state)
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
    except Exception as error:  # The file raises UnpicklingError or safetensors' own errors.
        raise unfit(path, error) from None


def unfit(path: Path, error: Exception) -> WeightsError:
    """The error that says why the weights in ``path`` cannot be used."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return WeightsError(
        f"The weights in {str(path)!r} do not fit this encoder ({reason}); give its own checkpoint."
    )


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load the tensors into the network. Raises WeightsError if any tensor is missing, extra or of another shape."""
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise unfit(path, error) from None
