"""The file of a trained head: its weights, and what they were trained on, by which it is found to fit or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import FsmmError
from ..heads.head import Head
from ..machine.files import parsed_json
from ..machine.tensors import load_tensors, save_tensors, tensors_digest

_IDENTITY, _WEIGHTS, _STOPPED = "identity", "weights", "stopped"  # The texts of the file.


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The place of a trained head in a run's folder."""

    path: Path
    """The file of the head."""
    identity: Mapping[str, Any]
    """All that the trained weights depend on, in plain JSON values by a word for each."""

    def load(self, head: Head) -> tuple[bool, str]:
        """Load the weights of the file if it is undamaged and has this identity.

        Returns whether they were loaded, and a sentence that says why a file that is there was not used.
        """
        if not self.path.is_file():
            return False, ""
        try:
            tensors, about = load_tensors(self.path)
        except FsmmError as error:
            return False, str(error)
        if differ := self._differences(about.get(_IDENTITY, "")):
            return False, f"The head in {str(self.path)!r} was trained with other {' and '.join(differ)}."
        if fault := unfitting(head.state_dict(), tensors):
            return False, f"The head in {str(self.path)!r} does not fit: {fault}."
        head.load_state_dict(tensors)
        return True, ""

    def stopped(self) -> str:
        """When and why the training of the file's head stopped. Raises FsmmError where the file cannot be read."""
        return load_tensors(self.path)[1].get(_STOPPED, "")

    def save(self, head: Head, stopped: str = "") -> None:
        """Write the weights, unless the file holds the same ones with the same texts.

        stopped: when and why the training stopped.
        """
        weights, identity = head.state_dict(), json.dumps(self.identity, sort_keys=True, default=str)
        about = {_IDENTITY: identity, _WEIGHTS: tensors_digest(weights), _STOPPED: stopped}
        if not self._holds(about):
            save_tensors(self.path, weights, about)

    def _holds(self, about: Mapping[str, str]) -> bool:
        try:
            return self.path.is_file() and load_tensors(self.path)[1] == about
        except FsmmError:
            return False

    def _differences(self, kept: str) -> list[str]:
        """The words for what the file's identity says otherwise; one word where it cannot be read."""
        wanted = json.loads(json.dumps(self.identity, default=str))
        try:
            found = parsed_json(kept)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            return ["settings"]
        return sorted(word for word in {**wanted, **found} if wanted.get(word) != found.get(word))


def unfitting(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """A clause that names the first tensor that is not the one wanted by name, shape and type, or is not finite.

    The empty text is returned where all fit. Values count as finite where the wanted tensor's own are.

    >>> import torch
    >>> unfitting({"scale": torch.ones(2)}, {"scale": torch.ones(3)})
    "'scale' has shape [3] and not [2]"
    """
    for name in sorted(wanted.keys() ^ found.keys()):
        return f"it has {'no' if name in wanted else 'a strange'} tensor {name!r}"
    for name, tensor in wanted.items():
        mine = found[name]
        if mine.shape != tensor.shape:
            return f"{name!r} has shape {list(mine.shape)} and not {list(tensor.shape)}"
        if mine.dtype != tensor.dtype:
            return f"{name!r} has type {mine.dtype} and not {tensor.dtype}"
        if tensor.isfinite().all() and not mine.isfinite().all():
            return f"{name!r} holds values that are not finite"
    return ""
