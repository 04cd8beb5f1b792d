"""Tensors on disk are safetensors files with texts beside the tensors, whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import FsmmError
from .files import whole_or_absent


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write tensors, and texts about them, as one safetensors file; its folder is made where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The tensors are cloned because safetensors refuses tensors that share memory.
    owned = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with whole_or_absent(path) as temporary:
        save_file(owned, temporary, dict(about or {}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and texts of a safetensors file. Raises FsmmError where it is absent or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FsmmError(
            f"Checkpoint {str(path)!r} cannot be read ({error}); delete it to train anew."
        ) from None
