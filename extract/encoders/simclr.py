"""SimCLRv2's residual networks as frame encoders, from a local file: features, or a layer of the projection head.

The names of the networks are those of the published checkpoints: ``r50_1x_sk0``, ``r152_3x_sk1``. A file holds the
tensors of :class:`.simclr_net.SimClrNet`, or the variables of a published checkpoint under their own names, as
``tf.train.load_checkpoint`` gives them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError
from ..contract import FrameNeed
from .base import Spec
from .efficientnet import first_frames
from .torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .simclr_net import Form, SimClrNet

_NAME = re.compile(r"r(50|101|152|200)_([1-9])x_sk([01])")
_SIZE, _WHOLE = 224, 256  # The published evaluation takes the middle 0.875 of a picture.
_KINDS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def form_of(name: str) -> Form:
    """The form of the network of that name. Raises UsageError for any other name."""
    from .simclr_net import Form

    if not (found := _NAME.fullmatch(name)):
        raise UsageError(f"SimCLR network {name!r} is not known; name one such as r50_1x_sk0 or r152_3x_sk1.")
    return Form(depth=int(found[1]), width=int(found[2]), selective=found[3] == "1")


class SimClr(TorchEncoder):
    """The encoder of frames to the features [T, D] before the projection head, or to a layer (option 1, 2, 3) of it.

    The network is loaded at once, so that a file that does not fit is told before anything is decoded.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(size=_WHOLE)
        self.dim = int(self.network[2])
        layer = int(spec.option or 0)
        what = f"layer {layer} of the projection head" if layer else "features"
        self.preprocessing = f"rgb short side {_WHOLE}, centre {_SIZE}, x/255, {what}"

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Cut frames uint8 [T, 1, W, W, 3] to their centre [T, S, S, 3]. Raises DecodeError for another form."""
        frames = first_frames(super().prepare(raw))
        edge = (frames.shape[1] - _SIZE) // 2
        return np.ascontiguousarray(frames[:, edge : edge + _SIZE, edge : edge + _SIZE])

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        forward, device, _ = self.network
        return self._run(forward, batch, device)

    def _load(self) -> Any:
        from ...machine.device import pick_device
        from .simclr_net import LAYERS, PROJECTED
        from .torch_run import normalised

        assert self.spec.weights is not None
        assert self.spec.hub is not None
        device, layer = pick_device(self.spec.device), int(self.spec.option or 0)
        form = form_of(self.spec.hub.model)
        network = load_network(form, self.spec.weights.path).to(device)

        def forward(frames: Any) -> Any:
            pictures = normalised(frames, (0.0,) * 3, (255.0,) * 3).contiguous()
            return network(pictures, layer=layer)

        return forward, device, PROJECTED if layer == LAYERS else form.dim


def load_network(form: Form, path: Path) -> SimClrNet:
    """The network with the weights of a local file, in evaluation mode. Raises WeightsError where they do not fit."""
    from ..weights.checkpoint import fill, read_checkpoint, unfit
    from .simclr_net import SimClrNet

    network = SimClrNet(form)
    state = read_checkpoint(path, nests=("model", "state_dict"))
    if any(key.startswith("base_model/") for key in state):
        try:
            state = by_order(state, network)
        except (KeyError, ValueError) as error:
            raise unfit(path, error) from None
    fill(network, state, path)
    return network.eval().requires_grad_(False)


def by_order(variables: Mapping[str, Tensor], network: SimClrNet) -> dict[str, Tensor]:
    """The tensors of the network from a published checkpoint's variables, whose numbers say which layer they are of.

    Variables of training and of a classifier are left out. Raises ValueError where there are more or fewer layers,
    KeyError where one lacks a variable.
    """
    from torch import nn

    norms = (nn.BatchNorm2d, nn.BatchNorm1d)
    kinds: dict[str, tuple[type[nn.Module], ...]] = {
        "conv2d": (nn.Conv2d,),
        "dense": (nn.Linear,),
        "batch_normalization": norms,
    }
    state: dict[str, Tensor] = {}
    for kind, types in kinds.items():
        layers = [(name, module) for name, module in network.named_modules() if isinstance(module, types)]
        held = sorted({place for key in variables if (place := _place(key, kind)) is not None})
        if len(held) != len(layers):
            raise ValueError(f"it has {len(held)} layers {kind!r} where the network has {len(layers)}")
        for (name, module), (_, _, scope) in zip(layers, held):
            if isinstance(module, norms):
                state |= {f"{name}.{key}": value for key, value in _norm(variables, scope, module).items()}
            else:
                kernel = variables[f"{scope}/kernel"]
                state[f"{name}.weight"] = kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
    return state


def _norm(
    variables: Mapping[str, Tensor], scope: str, module: nn.BatchNorm2d | nn.BatchNorm1d
) -> dict[str, Tensor]:
    """The tensors of one normalisation; the last one of the head has no offset, which is then zero."""
    found = {
        ours: variables[f"{scope}/{theirs}"]
        for theirs, ours in _KINDS.items()
        if theirs != "beta" or f"{scope}/beta" in variables
    }
    zero = {
        "bias": module.bias.detach() * 0,
        "num_batches_tracked": variables[f"{scope}/gamma"].new_zeros(()).long(),
    }
    return {**zero, **found}


def _place(variable: str, kind: str) -> tuple[int, int, str] | None:
    """Where a variable's layer stands: after the network comes the head, layer by layer; None for another variable."""
    pattern = rf"((?:base_model|head_contrastive/nl_(\d+))/{kind}(?:_(\d+))?)/\w+"
    if not (found := re.fullmatch(pattern, variable)) or variable.endswith("/Momentum"):
        return None
    return (1 + int(found[2]) if found[2] else 0, int(found[3] or 0), found[1])
