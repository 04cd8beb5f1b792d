"""Tensors on disk are safetensors files with texts beside the tensors, whole or absent, that carry their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import FsmmError
from .files import write_bytes

_DIGEST = "sha256"  # The key of the digest among a file's texts.


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write tensors, and texts about them, as one safetensors file; its folder is made where it does not exist.

    Raises OSError where the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The tensors are cloned because safetensors refuses tensors that share memory.
    owned = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    texts = dict(about or {})
    # The library's own writing ends in errors of its own kinds where the disk is full.
    write_bytes(path, save(owned, {**texts, _DIGEST: tensors_digest(owned, texts)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and texts of a file that ``save_tensors`` wrote.

    Raises FsmmError where the file is absent or cannot be read, and where its digest is not that of its content.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            about = dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise FsmmError(f"Checkpoint {str(path)!r} cannot be read ({error}).") from None
    kept = about.pop(_DIGEST, None)
    if kept is None:
        raise FsmmError(f"Checkpoint {str(path)!r} carries no digest, so that damage could not be seen.")
    if kept != tensors_digest(tensors, about):
        raise FsmmError(f"Checkpoint {str(path)!r} is damaged: its digest is not that of its content.")
    return tensors, about


def tensors_digest(tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> str:
    """The SHA-256 of the names, types, shapes and values of tensors, and of texts about them, in hexadecimal."""
    names = sorted(tensors)
    shapes = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    digest = hashlib.sha256(json.dumps([shapes, dict(about or {})], sort_keys=True).encode())
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
