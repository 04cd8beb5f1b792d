"""Any image tower of timm, MAE towers among them, gives its pooled features without the classifier.

Wightman, PyTorch Image Models. The checkpoint comes from the hub that timm knows, or is a local file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import WeightsError
from ..contract import FrameNeed
from ..weights.torchvision_care import ensure_torchvision
from .base import Spec
from .efficientnet import first_frames
from .torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from .tunable import Tunable

_NESTS = ("state_dict", "model")  # where training scripts keep a network's tensors in a checkpoint
_MAE_DECODER = ("decoder_", "mask_token")  # what an MAE checkpoint holds beside the tower


class TimmTower(TorchEncoder):
    """The encoder of frames to pooled features [T, D]; size, crop, mean and std are the model's own data configuration.

    The network is loaded at once, since it says what it reads. Raises WeightsError if its checkpoint does not fit.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        model, config, _ = self.network
        self.dim = int(getattr(model, "head_hidden_size", model.num_features))
        self._mean, self._std = (tuple(255.0 * x for x in config[key]) for key in ("mean", "std"))
        _, high, wide = config["input_size"]
        if high != wide or len(config["mean"]) != 3:
            raise WeightsError(f"Encoder {spec.name!r} reads no square colour frames; choose another model.")
        self._size = int(high)
        squash = config["crop_mode"] == "squash"
        whole = max(int(np.floor(self._size / config["crop_pct"])), self._size)
        self.need = FrameNeed(size=whole, resize="squash" if squash else "crop")
        self.preprocessing = (
            f"timm, rgb {'squashed to' if squash else 'short side'} {whole}, centre {self._size}, "
            f"mean {_listed(config['mean'])} std {_listed(config['std'])}, pooled"
        )

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Cut frames uint8 [T, 1, W, W, 3] to their centre [T, S, S, 3]. Raises DecodeError for another form."""
        frames = first_frames(super().prepare(raw))
        edge = round((frames.shape[1] - self._size) / 2)
        return np.ascontiguousarray(frames[:, edge : edge + self._size, edge : edge + self._size])

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        from .torch_run import normalised

        model, _, device = self.network

        def forward(frames: Any) -> Any:
            return model(normalised(frames, self._mean, self._std).contiguous())

        return self._run(forward, batch, device)

    def tunable(self) -> Tunable:
        """The tower as it can be tuned; its units are those of the model in their order."""
        from .frames_to_features import FramesToFeatures
        from .torch_run import normalised
        from .tunable import Tunable, units_of

        model, _, device = self.network
        forward = FramesToFeatures(
            module=model,
            enter=lambda frames: normalised(frames, self._mean, self._std).contiguous(),
            features=model,
        )
        return Tunable(forward=forward, units=units_of(model.children()), device=device)

    def _load(self) -> Any:
        from ...machine.device import pick_device

        assert self.spec.weights is not None
        assert self.spec.hub is not None
        device = pick_device(self.spec.device)
        model = load_tower(self.spec.hub.model, self.spec.weights.path)
        config = importlib.import_module("timm.data").resolve_model_data_config(model)
        return model.to(device), config, device


def load_tower(name: str, path: Path) -> Any:
    """The timm model without its classifier, with the weights of a local checkpoint, in evaluation mode.

    A classifier's tensors and an MAE decoder's are left out; any other tensor must fit. Raises WeightsError.
    """
    from ..weights.checkpoint import fill, read_checkpoint

    ensure_torchvision()
    model = importlib.import_module("timm").create_model(name, pretrained=False, num_classes=0)
    state = read_checkpoint(path, nests=_NESTS)
    heads = model.default_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    left_out = (*(f"{head}." for head in heads), *_MAE_DECODER)
    own = model.state_dict().keys()
    kept = {key: value for key, value in state.items() if key in own or not key.startswith(left_out)}
    fill(model, kept, path)
    return model.eval().requires_grad_(False)


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
