"""Checkpoints of random weights, for timing networks whose published weights are not at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def save_random(encoder: str, folder: Path) -> Path:
    """A checkpoint in ``folder`` for ``efficientnet-lite0``, ``efficientnet-lite2``, ``i3d-rgb`` or ``timm:MODEL``.

    The weights are drawn by a fixed seed, so that two machines with one version of torch get the same ones.
    """
    import torch

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{encoder.replace(':', '-')}-random.safetensors"
    if encoder.startswith("timm:"):
        _save(_timm(encoder.partition(":")[2]), path)
    elif encoder == "i3d-rgb":
        _save(_i3d(), path)
    else:
        path = path.with_suffix(".pth")
        torch.save(_efficientnet(encoder), path)
    return path


def _save(arrays: Mapping[str, Any], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _timm(model: str) -> dict[str, Any]:
    from fsmm.extract.weights.torchvision_care import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch

    with torch.device("meta"):  # Its own first weights would take as long again to draw.
        shapes = timm.create_model(model, pretrained=False, num_classes=0).state_dict()
    return {name: _drawn(name, tensor).numpy() for name, tensor in shapes.items()}


def _drawn(name: str, like: Any) -> Any:
    """A tensor as a transformer begins: norms and their kind do nothing, the rest is small."""
    import torch

    if like.ndim < 2 or not like.is_floating_point():
        return torch.full(like.shape, 1.0 if name.endswith("weight") else 0.0, dtype=like.dtype)
    return torch.randn(like.shape) * 0.02


def _efficientnet(variant: str) -> dict[str, Any]:
    """The tensors of the network, whose norms have seen noise, so that no layer fades or grows."""
    import torch

    from fsmm.extract.encoders.efficientnet_net import SCALES, EfficientNetLiteNet

    network = EfficientNetLiteNet(*SCALES[variant])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # It averages over what it has seen.
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 96, 96))
    return dict(network.state_dict())


def _i3d() -> dict[str, Any]:
    """The arrays of the published layout, in which a norm follows each convolution."""
    import torch

    from fsmm.extract.encoders.i3d_net import I3DNet

    arrays: dict[str, Any] = {}
    for name, tensor in I3DNet().state_dict().items():
        unit, _, kind = name.rpartition(".")
        if kind != "weight":
            continue
        if unit == "classifier":
            arrays["params/Logits/Conv_0/kernel"] = tensor.T.reshape(1, 1, 1, *tensor.T.shape).numpy()
            arrays["params/Logits/Conv_0/bias"] = np.zeros(len(tensor), np.float32)
            continue
        torch.nn.init.kaiming_normal_(tensor)
        place, count = unit.removeprefix("body.").replace(".", "/"), len(tensor)
        arrays[f"params/{place}/Conv_0/kernel"] = tensor.permute(2, 3, 4, 1, 0).numpy()
        arrays[f"params/{place}/BatchNorm_0/bias"] = np.zeros(count, np.float32)
        arrays[f"batch_stats/{place}/BatchNorm_0/mean"] = np.zeros(count, np.float32)
        arrays[f"batch_stats/{place}/BatchNorm_0/var"] = np.ones(count, np.float32)
    return arrays
