"""Models of the library transformers from a folder: how one is loaded, and what of it is a clip's features.

Where a model puts a modality into a space that it shares with another, its vectors in that space are taken; else the
model's own pooled vector; else the mean over its last hidden states. Nothing of a folder is executed or unpickled.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import WeightsError
from ..weights.torchvision_care import ensure_torchvision
from .base import Spec

_JOINT = {
    "picture": ("get_image_features",),
    "video": ("get_video_features", "get_video_embeds", "get_vision_features"),
    "audio": ("get_audio_features", "get_audio_embeds"),
    "pair": ("get_audio_video_embeds",),
    "word": (
        "get_text_features",
        "get_text_audio_video_embeds",
        "get_text_audio_embeds",
        "get_text_video_embeds",
    ),
}
"""The methods of models that embed each kind of input, the first that a model has counts."""
_FRAMES = ("num_frames", "frames_per_clip")


@dataclass(frozen=True)
class HubModel:
    """A loaded model. random_pooler: whether its pooling layer was not in the folder, so that nothing may read it."""

    model: Any
    device: Any
    random_pooler: bool

    def embedding(self, kind: str) -> Callable[[Mapping[str, Any]], Any]:
        """What turns inputs of a ``kind`` (picture, video, audio, pair, word) into vectors [N, D]."""
        forward = self.entrance(kind)
        accepted = inspect.signature(forward).parameters

        def embed(inputs: Mapping[str, Any]) -> Any:
            known = {name: value.to(self.device) for name, value in inputs.items() if name in accepted}
            if not known:
                raise WeightsError(
                    f"A model of kind {self.model.config.model_type!r} reads no {kind}; ask for another modality of it."
                )
            return self._pooled(forward(**known))

        return embed

    def entrance(self, kind: str) -> Callable[..., Any]:
        """The method that reads inputs of that kind: into a joint space where there is one, else the encoder."""
        for name in _JOINT[kind]:
            if (method := getattr(self.model, name, None)) is not None:
                return method
        if kind == "pair":
            raise WeightsError(
                f"A model of kind {self.model.config.model_type!r} does not read pictures and sound at once; ask for "
                "frame or audio of it."
            )
        if getattr(self.model.config, "is_encoder_decoder", False):
            return self.model.get_encoder().forward
        return self.model.forward

    @property
    def frames(self) -> int:
        """The frames of a window that the model reads, 0 for a model of single pictures."""
        config = self.model.config
        for part in (config, getattr(config, "vision_config", None), getattr(config, "video_config", None)):
            for name in _FRAMES:
                if isinstance(found := getattr(part, name, None), int) and found > 1:
                    return found
        return _OF_VIDEO if any(hasattr(self.model, name) for name in _JOINT["video"]) else 0

    def _pooled(self, found: Any) -> Any:
        """The vectors [N, D] of what a model gave: a tensor, pooled or with steps, or an output of several parts."""
        if (both := getattr(found, "audio_video_embeds", None)) is not None:
            return both
        if not hasattr(found, "last_hidden_state"):
            return found if found.ndim == 2 else found.mean(1)
        pooled = getattr(found, "pooler_output", None)
        if pooled is not None and not self.random_pooler:
            return pooled if pooled.ndim == 2 else pooled.mean(1)
        return found.last_hidden_state.mean(1)


_OF_VIDEO = 16  # frames of a window of a model that names no number


def load_model(spec: Spec) -> HubModel:
    """The model in the folder of ``spec``, in evaluation mode on its device.

    Raises WeightsError where the folder holds no model that the library knows, or lacks a tensor of it.
    """
    from ...machine.device import pick_device

    assert spec.weights is not None
    folder = spec.weights.path
    device = pick_device(spec.device)
    model, told = from_folder("AutoModel", folder, output_loading_info=True, use_safetensors=True)
    missing = sorted(told["missing_keys"])
    if lacking := [key for key in missing if "pooler" not in key]:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise WeightsError(
            f"The model in {str(folder)!r} lacks tensor {lacking[0]!r}{more}, which would be random; give its own "
            "checkpoint."
        )
    return HubModel(model.eval().requires_grad_(False).to(device), device, random_pooler=bool(missing))


def width_of(name: str, try_out: Callable[[], Any]) -> int:
    """The width D of the vectors [N, D] of a first trial of encoder ``name``.

    Raises WeightsError where the model cannot be run on what its own processor makes.
    """
    import torch

    try:
        with torch.inference_mode():
            return int(try_out().shape[-1])
    except WeightsError:
        raise
    except Exception as error:  # Models of all kinds fail in all ways on inputs that are not theirs.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"The model of encoder {name!r} cannot be run on what its processor makes ({reason}): their files do not "
            "belong together, or the model is of a kind that fsmm does not know."
        ) from None


def imported(library: str) -> Any:
    """The library of that name, where torchvision, which it may use, works or is absent."""
    if find_spec("torchvision") is not None:
        ensure_torchvision()
    return importlib.import_module(library)


def from_folder(kind: str, folder: Path, **given: Any) -> Any:
    """An object of the library's class ``kind`` (AutoModel, AutoTokenizer ...) from the files of a folder.

    Raises WeightsError, naming the folder, for whatever the library fails with.
    """
    library = imported("transformers")
    try:
        return getattr(library, kind).from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **given
        )
    except (
        Exception
    ) as error:  # The library raises what its parts raise: OSError, ValueError, SafetensorError ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"The folder {str(folder)!r} cannot be read as {kind.removeprefix('Auto').lower()} of transformers "
            f"({reason}); save the whole model there by save_pretrained, with its processor."
        ) from None


def stored_json(folder: Path, *names: str) -> dict[str, Any]:
    """The first of these JSON files that a folder has. Raises WeightsError where it has none, or it cannot be read."""
    for name in names:
        if (folder / name).is_file():
            try:
                found = json.loads((folder / name).read_text(encoding="utf-8"))
                return dict(found)
            except (OSError, ValueError, TypeError) as error:
                raise WeightsError(f"{str(folder / name)!r} cannot be read ({error}).") from None
    raise WeightsError(
        f"The folder {str(folder)!r} has no {names[0]}; save the model's processor there by save_pretrained."
    )
