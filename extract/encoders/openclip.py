"""CLIP models by open_clip put frames and class words into one space; they are the full-strength default if
weights are available.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; Ilharco
et al., OpenCLIP. The weights are a local checkpoint (given, or in the weight cache) or come from the hub
that open_clip knows.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError, WeightsError
from ..contract import FrameNeed, TextNeed
from ..weights.table import WEIGHTS, Hub
from ..weights.torchvision_care import ensure_torchvision
from .base import BaseEncoder, Spec
from .efficientnet import first_frames
from .prompts import TEMPLATE, mean_of_templates
from .torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from .tunable import Tunable

_TEXT = "-text"
_CHUNK = 32
_TRANSFORM = ("mean", "std", "interpolation", "resize_mode")


class _OpenClip(BaseEncoder):
    """The base of both encoders, which finds the model's configuration and loads it from a local file."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        hub = spec.hub or WEIGHTS[spec.name.removesuffix(_TEXT)].hub
        assert hub is not None
        self.hub: Hub = hub
        if spec.hub is not None:
            self.dim = int(_open_clip().get_model_config(hub.model)["embed_dim"])

    def _load(self) -> Any:
        from ...machine.device import pick_device

        assert self.spec.weights is not None
        device = pick_device(self.spec.device)
        model = load_model(self.hub.model, self.hub.tag, self.spec.weights.path).to(device)
        return model, device


class OpenClipFrame(_OpenClip, TorchEncoder):
    """The encoder of frames to image embeddings [T, D] as the model gives them, not normalised.

    A model named by reference is loaded at once, since its own transform says what it reads.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.hub is None:
            self.need = FrameNeed(size=224)
            self.preprocessing = f"{self.hub.model}, rgb 224 crop, the model's own mean and std"
        else:
            self.need, self.preprocessing = transform_of(self.network[0], spec.name)
            if spec.option:
                self.dim = self.network[0].unprojected_dim
                self.preprocessing += ", before the final projection"

    def _load(self) -> Any:
        model, device = super()._load()
        if self.spec.option:
            model.unprojected_dim = leave_out_projection(model.visual, self.spec)
        return model, device

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [T, 1, S, S, 3] into [T, S, S, 3]. Raises DecodeError for another form."""
        return first_frames(super().prepare(raw))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        from .torch_run import normalised

        model, device = self.network
        mean, std = _colours(model)

        def forward(frames: Any) -> Any:
            return model.encode_image(normalised(frames, mean, std).contiguous())

        return self._run(forward, batch, device)

    def tunable(self) -> Tunable:
        """The image tower as it can be tuned; the text tower stays as it is and is part of the checkpoint."""
        from .frames_to_features import FramesToFeatures
        from .torch_run import normalised
        from .tunable import Tunable, units_of

        model, device = self.network
        mean, std = _colours(model)
        forward = FramesToFeatures(
            module=model,
            enter=lambda frames: normalised(frames, mean, std).contiguous(),
            features=model.encode_image,
        )
        return Tunable(forward=forward, units=units_of(model.visual.children()), device=device)


class OpenClipText(_OpenClip):
    """The encoder of class words, each put into prompt templates, to text embeddings [1, D] in the frames' space.

    With one template the embedding is the model's own; with several it is the mean of unit vectors, of unit length.
    """

    need = TextNeed()
    batch_clips = 64

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.templates = spec.templates or (TEMPLATE,)
        self.preprocessing = f"{self.hub.model}, {', '.join(map(repr, self.templates))}"

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        from .torch_run import run_in_chunks

        model, device = self.network
        prompts = [template.replace("{}", str(text)) for text in batch for template in self.templates]
        tokens = tokenizer_of(self.hub.model)(prompts).numpy()
        vectors = run_in_chunks(model.encode_text, tokens, _CHUNK, device)
        return mean_of_templates(vectors, len(self.templates))


def _colours(model: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of a model's frames by colour, from 0 to 255."""
    return (
        tuple(255.0 * x for x in model.visual.image_mean),
        tuple(255.0 * x for x in model.visual.image_std),
    )


def transform_of(model: Any, name: str) -> tuple[FrameNeed, str]:
    """The frames that a loaded model's own transform reads, and that transform in words.

    Raises WeightsError for a transform that fsmm cannot do: frames that are not square, or with bars.
    """
    own = model.visual.preprocess_cfg
    size = own["size"]
    sides = {size} if isinstance(size, int) else set(size)
    resize = {"shortest": "crop", "squash": "squash"}.get(own["resize_mode"])
    if len(sides) != 1 or resize is None:
        raise WeightsError(
            f"Encoder {name!r} reads frames of size {size} by {own['resize_mode']!r}; only square frames that are "
            "cropped or squashed can be made: choose another model."
        )
    side = int(sides.pop())
    mean, std = (" ".join(f"{value:g}" for value in own[key]) for key in ("mean", "std"))
    return FrameNeed(size=side, resize=resize), f"open_clip, rgb {side} {resize}, mean {mean} std {std}"


def leave_out_projection(visual: Any, spec: Spec) -> int:
    """Leave the last projection out of an image tower, and return the width of what it gives then.

    Raises UsageError where a tower has no projection of its own.
    """
    from torch import nn

    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        width = int(visual.proj.shape[0])
        visual.proj = None
        return width
    if hasattr(
        visual, "trunk"
    ):  # a tower of timm, whose projection is a head of open_clip's or its own classifier
        visual.head = nn.Identity()
        visual.trunk.reset_classifier(0)
        return int(visual.trunk.num_features)
    raise UsageError(f"The image tower of {spec.name!r} ends with no projection; leave out #{spec.option}.")


def tokenizer_of(model: str) -> Any:
    """The tokenizer of an open_clip model. Raises WeightsError if its files or its package are not at hand."""
    try:
        return _open_clip().get_tokenizer(model)
    except Exception as error:  # Tokenizers of other libraries fail in their own ways: no package, no hub.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"The tokenizer of open_clip model {model!r} cannot be loaded ({reason}); install transformers and run "
            "once where the hub can be reached, or choose a model with CLIP's own tokenizer."
        ) from None


def load_model(model: str, tag: str, path: Path) -> Any:
    """An open_clip ``model`` with the weights of a local checkpoint, in evaluation mode.

    tag: the name of the checkpoint's pretrained weights, which gives their picture normalisation; an unknown name
    stands for the model's own. Raises WeightsError if the checkpoint cannot be used.
    """
    clip = _open_clip()
    if path.suffix not in (".pt", ".pth", ".bin", ".safetensors"):
        raise WeightsError(
            f"open_clip reads checkpoints named .pt, .pth, .bin or .safetensors, not {path.name!r}."
        )
    known = clip.get_pretrained_cfg(model, tag) or {}
    try:
        network = clip.create_model(
            model,
            pretrained=str(path),
            require_pretrained=True,  # Without it a missing file would give random weights and a warning.
            force_quick_gelu=bool(known.get("quick_gelu", False)),
            force_preprocess_cfg={key: known[key] for key in _TRANSFORM if key in known},
            weights_only=True,
        )
    except Exception as error:  # open_clip raises what torch, safetensors or its own checks raise.
        from ..weights.checkpoint import unfit

        raise unfit(path, error) from None
    return network.eval().requires_grad_(False)


def _open_clip() -> Any:
    ensure_torchvision()
    return importlib.import_module("open_clip")
