"""A model that is a folder of files: its configuration, its tensors and its vocabulary, with one hash of them all."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...errors import WeightsError
from .archives import file_sha256
from .store import Located

_ENDINGS = (".safetensors", ".json", ".txt", ".model")


def own_folder(name: str, folder: Path) -> Located:
    """The model in a folder. Its hash covers names and contents of the files that a model is read from.

    Raises WeightsError where there is no such folder, or it holds no tensors as safetensors.
    """
    try:
        files = sorted(path for path in folder.rglob("*") if path.suffix in _ENDINGS and path.is_file())
        sums = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}" for path in files]
    except OSError as error:
        raise WeightsError(
            f"The folder {str(folder)!r} for encoder {name!r} cannot be read ({error.strerror})."
        ) from None
    if not any(path.suffix == ".safetensors" for path in files):
        raise WeightsError(
            f"{str(folder)!r} is no folder of a model for encoder {name!r}: it holds no *.safetensors; save the model "
            "there by save_pretrained."
        )
    return Located(folder, name, hashlib.sha256("\n".join(sums).encode()).hexdigest())
