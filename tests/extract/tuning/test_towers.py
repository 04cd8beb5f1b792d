"""Every family of encoders: tuning sees the features that extraction gives, and the saved network gives them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from tuning_support import NET, TOWER, tiny_file

from fsmm.errors import UsageError
from fsmm.extract import encoders
from fsmm.extract.encoders.efficientnet_net import SCALES, EfficientNetLiteNet
from fsmm.extract.encoders.references import Reference
from fsmm.extract.encoders.tunable import last_units
from fsmm.extract.encoders.tuned import tunable_of
from fsmm.extract.encoders.video3d import build_model
from fsmm.extract.encoders.video_hub import INPUTS
from fsmm.extract.tuning.low_rank import add_adapters, merge_adapters
from fsmm.extract.weights.torchvision_care import ensure_torchvision
from fsmm.machine.tensors import save_tensors

CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def clip_text(folder: Path) -> str:
    ensure_torchvision()
    import open_clip

    (folder / "fsmm-tuned-clip.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder)
    save_tensors(folder / "clip.safetensors", open_clip.create_model("fsmm-tuned-clip").state_dict())
    return f"openclip:fsmm-tuned-clip@{folder / 'clip.safetensors'}"


def video_text(folder: Path) -> str:
    network = build_model(INPUTS["x3d_xs"])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):  # It begins with zeros where a residual branch ends.
            nn.init.uniform_(module.weight, 0.9, 1.1)
    save_tensors(folder / "video.safetensors", network.state_dict())
    return f"pytorchvideo:x3d_xs@{folder / 'video.safetensors'}"


def lite_text(folder: Path) -> str:
    network = EfficientNetLiteNet(*SCALES["efficientnet-lite0"])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.weight, 0.9, 1.1)
    save_tensors(folder / "lite.safetensors", network.state_dict())
    return f"efficientnet-lite0@{folder / 'lite.safetensors'}"


TEXTS = {
    "openclip": clip_text,
    "pytorchvideo": video_text,
    "efficientnet": lite_text,
    TOWER: lambda folder: f"timm:{TOWER}@{tiny_file(TOWER, folder)}",
    NET: lambda folder: f"timm:{NET}@{tiny_file(NET, folder)}",
}


def built(text: str) -> Any:
    name, _, file = text.partition("@")
    return Reference.parse("frame", text).build() if ":" in name else encoders.build(name, weights=Path(file))


@pytest.mark.parametrize("family", TEXTS)
def test_tuning_sees_what_extraction_gives_and_the_file_gives_it_again(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = TEXTS[family](tmp_path)
    encoder = built(text)
    need = encoder.need
    raw = np.random.default_rng(0).integers(0, 256, (2, need.length, need.size, need.size, 3), np.uint8)
    clip = encoder.prepare(raw)
    tower = tunable_of(encoder)
    (given,) = encoder.encode([clip])
    with torch.no_grad():
        np.testing.assert_allclose(tower.embed(torch.from_numpy(clip)).numpy(), given, rtol=1e-3, atol=1e-4)
    adapters = add_adapters(last_units(tower.units, 3), 4)
    for up in adapters[1::2]:
        nn.init.normal_(up, std=0.02)
    changed = tower.embed(torch.from_numpy(clip))
    assert changed.requires_grad
    assert not np.allclose(changed.detach().numpy(), given, rtol=1e-3, atol=1e-4)
    merge_adapters(tower.module)
    save_tensors(tmp_path / "saved.safetensors", tower.module.state_dict())
    again = built(f"{text.partition('@')[0]}@{tmp_path / 'saved.safetensors'}")
    (said,) = again.encode([clip])
    np.testing.assert_allclose(said, changed.detach().numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(said, encoder.encode([clip])[0])


@pytest.mark.parametrize("family", TEXTS)
def test_the_last_unit_has_gradients_and_the_first_ones_have_none(family: str, tmp_path: Path) -> None:
    if family in ("pytorchvideo", "efficientnet"):
        pytest.skip("the larger networks are tried above")
    encoder = built(TEXTS[family](tmp_path))
    tower = tunable_of(encoder)
    tower.module.requires_grad_(False)
    last = last_units(tower.units, 1)
    weights = [weight for unit in last for weight in unit.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    side = encoder.need.size
    tower.embed(torch.randint(0, 256, (2, side, side, 3)).float()).square().sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in weights if weight.ndim > 1)
    assert last[-1] is tower.units[-1]
    assert len(last) < len(tower.units)


def test_an_encoder_without_a_torch_network_says_what_can_be_tuned() -> None:
    from fsmm.extract.encoders.base import Spec
    from fsmm.extract.encoders.flow import DisHof

    with pytest.raises(UsageError, match="cannot be tuned: it has no torch network"):
        tunable_of(DisHof(Spec("dis-hof", "flow", 306)))
