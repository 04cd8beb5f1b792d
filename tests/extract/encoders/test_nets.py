"""The torch networks with random weights: padding and convolution against slow loops, loading, batching,
devices.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fsmm.errors import DecodeError, UsageError, WeightsError
from fsmm.extract.contract import Encoder, FrameNeed
from fsmm.extract.encoders import build
from fsmm.extract.encoders.efficientnet_net import (
    SCALES,
    EfficientNetLiteNet,
    SameConv2d,
    fold_norms,
    rename,
    same_padding,
)
from fsmm.extract.encoders.i3d_net import I3DNet, Mixed, Pool, Unit, from_flax
from fsmm.extract.weights.checkpoint import read_checkpoint


def slow_window(
    x: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...], place: tuple[int, ...]
) -> np.ndarray:
    """The part of x [C, ...] that output ``place`` sees, NaN outside x: straight from the definition of SAME.

    Output i of an axis is centred so that all outputs together overhang evenly, the odd entry at the end.
    """
    index = []
    for size, k, s, i in zip(x.shape[1:], kernel, stride, place):
        overhang = max((math.ceil(size / s) - 1) * s + k - size, 0)
        index.append([i * s - overhang // 2 + j for j in range(k)])
    shape = (x.shape[0], *kernel)
    result = np.full(shape, np.nan)
    for offsets in np.ndindex(*kernel):
        at = tuple(rows[o] for rows, o in zip(index, offsets))
        if all(0 <= a < n for a, n in zip(at, x.shape[1:])):
            result[(slice(None), *offsets)] = x[(slice(None), *at)]
    return result


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 2), (9, 5, 1), (5, 1, 2), (6, 2, 2)]
)
def test_same_convolution_2d_equals_the_definition(size: int, kernel: int, stride: int) -> None:
    torch.manual_seed(size)
    conv = SameConv2d(2, 3, kernel, stride, bias=False).double()
    x = torch.randn(1, 2, size, size + 1, dtype=torch.float64)
    y = conv(x)[0].detach().numpy()
    assert y.shape == (3, math.ceil(size / stride), math.ceil((size + 1) / stride))
    weight = conv.weight.detach().numpy()
    for place in np.ndindex(*y.shape[1:]):
        seen = np.nan_to_num(slow_window(x[0].numpy(), (kernel, kernel), (stride, stride), place))
        np.testing.assert_allclose(
            y[(slice(None), *place)], np.einsum("ocij,cij->o", weight, seen), atol=1e-12
        )


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [((4, 5, 6), 7, 2), ((3, 4, 5), 3, 1), ((3, 3, 3), 1, 1)]
)
def test_i3d_unit_equals_the_definition(size: tuple[int, int, int], kernel: int, stride: int) -> None:
    torch.manual_seed(1)
    unit = Unit(2, 3, kernel, stride).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    with torch.no_grad():
        y = unit(x)[0].numpy()
    assert y.shape[1:] == tuple(math.ceil(n / stride) for n in size)
    weight, bias = unit.weight.detach().numpy(), unit.bias
    assert bias is not None
    for place in np.ndindex(*y.shape[1:]):
        seen = np.nan_to_num(slow_window(x[0].numpy(), (kernel,) * 3, (stride,) * 3, place))
        expected = np.einsum("octij,ctij->o", weight, seen) + bias.detach().numpy()
        np.testing.assert_allclose(y[(slice(None), *place)], np.maximum(expected, 0), atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (1, 1, 1)), ((2, 2, 2), (2, 2, 2))],
)
def test_i3d_pool_equals_the_definition(kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).normal(-5, 1, (2, 5, 6, 7))  # all negative: padding with zeros would win
    y = Pool(kernel, stride)(torch.from_numpy(x)[None])[0].numpy()
    for place in np.ndindex(*y.shape[1:]):
        seen = slow_window(x, kernel, stride, place).reshape(2, -1)
        np.testing.assert_array_equal(y[(slice(None), *place)], np.nanmax(seen, 1))


def test_same_padding_keeps_ceil_of_size_over_stride() -> None:
    for size in range(1, 20):
        for kernel in range(1, 8):
            for stride in range(1, 4):
                before, after = same_padding(size, kernel, stride)
                assert 0 <= after - before <= 1
                assert (size + before + after - kernel) // stride + 1 == math.ceil(
                    size / stride
                ) or kernel < stride


def checkpoint_name(ours: str) -> str:
    """The published file's name for one of this network's tensors, worked out the other way round."""
    parts = ours.split(".")
    if parts[0] == "blocks":
        layer = {
            "expand": ("_expand_conv", "_bn0"),
            "depthwise": ("_depthwise_conv", "_bn1"),
            "project": ("_project_conv", "_bn2"),
        }
        return f"_blocks.{parts[1]}.{layer[parts[2]][parts[3] == 'norm']}.{parts[4]}"
    layer = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1"), "classifier": ("_fc", "_fc")}
    return f"{layer[parts[0]][parts[1] == 'norm']}.{parts[-1]}"


def randomised(network: nn.Module) -> nn.Module:
    """Random normalisation statistics too, so that forgetting one shows."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.bias.data.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
    return network.eval()


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A random EfficientNet-Lite0 and its checkpoint under the published names."""
    torch.manual_seed(0)
    network = randomised(EfficientNetLiteNet(*SCALES["efficientnet-lite0"]))
    path = tmp_path_factory.mktemp("lite0") / "random.pth"
    torch.save({checkpoint_name(key): value for key, value in network.state_dict().items()}, path)
    return network, path


def pictures(clips: int, frames: int, size: int, length: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (frames + i, length, size, size, 3), np.uint8) for i in range(clips)]


def assert_batch_invariant(encoder: Encoder, raws: list[np.ndarray], tolerance: float) -> list[np.ndarray]:
    """A clip's features are the same alone, in a batch, in another order, and a second time."""
    prepared = [encoder.prepare(raw) for raw in raws]
    together = encoder.encode(prepared)
    backwards = encoder.encode(prepared[::-1])[::-1]
    for raw, one, again, item in zip(raws, together, backwards, prepared):
        assert one.dtype == np.float32
        assert one.shape[1] == encoder.dim
        alone = encoder.encode([item])[0]
        scale = max(float(np.abs(alone).max()), 1e-12)
        assert np.abs(one - alone).max() / scale <= tolerance, raw.shape
        assert np.abs(again - alone).max() / scale <= tolerance
        np.testing.assert_array_equal(encoder.encode([item])[0], alone)
    return together


def test_published_counts_of_parameters() -> None:
    for name, millions in (("efficientnet-lite0", 4.65), ("efficientnet-lite2", 6.09)):
        count = sum(p.numel() for p in EfficientNetLiteNet(*SCALES[name]).parameters()) / 1e6
        assert abs(count - millions) < 0.01


def test_folding_the_norms_keeps_the_function() -> None:
    torch.manual_seed(2)
    network = randomised(EfficientNetLiteNet()).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before = network(x)
        fold_norms(network)
        torch.testing.assert_close(network(x), before, rtol=1e-9, atol=1e-9)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_lite0_loads_published_names_and_normalises_as_documented(lite0: tuple[nn.Module, Path]) -> None:
    network, path = lite0
    assert {rename(checkpoint_name(key)) for key in network.state_dict()} == set(network.state_dict())
    encoder = build("efficientnet-lite0", weights=path)
    raws = pictures(2, 2, 224)
    features = assert_batch_invariant(encoder, raws, 1e-5)
    with torch.no_grad():
        expected = network((torch.from_numpy(raws[1][:, 0]).permute(0, 3, 1, 2).float() - 127) / 128)
    np.testing.assert_allclose(features[1], expected.numpy(), rtol=1e-3, atol=1e-4)
    assert encoder.provenance()["weights_sha256"]
    with pytest.raises(DecodeError, match="one frame a segment"):
        encoder.prepare(np.zeros((2, 3, 224, 224, 3), np.uint8))
    with pytest.raises(DecodeError, match="needs frames uint8"):
        encoder.prepare(np.zeros((2, 1, 224, 224, 3), np.float32))


def test_flow_pictures_go_through_the_same_network(lite0: tuple[nn.Module, Path]) -> None:
    encoder = build("flow-rgb-efficientnet-lite0", weights=lite0[1])
    assert_batch_invariant(encoder, pictures(2, 2, 224, length=2), 1e-5)
    still = np.repeat(pictures(1, 2, 224)[0], 2, axis=1)
    assert (encoder.prepare(still) == 255).all()  # rest is white
    with pytest.raises(DecodeError, match="two or more frames"):
        encoder.prepare(still[:, :1])


def test_a_built_encoder_travels_to_a_worker_without_its_network(lite0: tuple[nn.Module, Path]) -> None:
    encoder = build("efficientnet-lite0", weights=lite0[1])
    raw = pictures(1, 1, 224)[0]
    features = encoder.encode([encoder.prepare(raw)])[0]
    content = pickle.dumps(encoder)
    assert len(content) < 10_000
    copy = pickle.loads(content)
    np.testing.assert_array_equal(copy.encode([copy.prepare(raw)])[0], features)


def test_non_finite_features_never_leave(lite0: tuple[nn.Module, Path], tmp_path: Path) -> None:
    state = {checkpoint_name(key): value.clone() for key, value in lite0[0].state_dict().items()}
    state["_conv_head.weight"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    encoder = build("efficientnet-lite0", weights=tmp_path / "nan.pth")
    with pytest.raises(DecodeError, match="not finite"):
        encoder.encode([encoder.prepare(pictures(1, 1, 224)[0])])


def test_checkpoints_that_do_not_fit_are_one_sentence(lite0: tuple[nn.Module, Path], tmp_path: Path) -> None:
    state = {checkpoint_name(key): value for key, value in lite0[0].state_dict().items()}
    cases = {
        "cut.pth": {k: v for k, v in state.items() if k != "_fc.bias"},
        "extra.pth": {**state, "x": torch.ones(1)},
    }
    for name, content in cases.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.safetensors").write_text("not safetensors")
    (tmp_path / "bytes.pth").write_bytes(lite0[1].read_bytes()[:5000])
    for path in sorted(tmp_path.iterdir()):
        encoder = build("efficientnet-lite0", weights=path)
        with pytest.raises(WeightsError, match="do not fit this encoder") as caught:
            encoder.encode([encoder.prepare(pictures(1, 1, 224)[0])])
        assert "\n" not in str(caught.value)


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this must not run",)


def test_a_torch_file_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model_state": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "trap.pth", "model_state")
    assert capsys.readouterr().out == ""


def test_an_absent_device_is_one_sentence(lite0: tuple[nn.Module, Path]) -> None:
    for device in ("cuda:77", "no-such-device"):
        encoder = build("efficientnet-lite0", weights=lite0[1], device=device)
        with pytest.raises(UsageError, match=r"does not see it|is not known"):
            encoder.encode([encoder.prepare(pictures(1, 1, 224)[0])])


def flax_arrays(network: I3DNet) -> dict[str, np.ndarray]:
    """Random arrays in the published layout for every unit of the network."""
    rng = np.random.default_rng(0)
    arrays = {
        "params/Logits/Conv3d_0c_1x1/Conv_0/kernel": rng.normal(size=(1, 1, 1, 1024, 400)).astype(np.float32),
        "params/Logits/Conv3d_0c_1x1/Conv_0/bias": rng.normal(size=400).astype(np.float32),
    }
    for name, module in network.body.named_modules():
        if isinstance(module, Unit):
            unit, (out, inputs, *kernel) = name.replace(".", "/"), module.weight.shape
            scale = 1 / math.sqrt(inputs * math.prod(kernel))
            arrays[f"params/{unit}/Conv_0/kernel"] = rng.normal(0, scale, (*kernel, inputs, out)).astype(
                np.float32
            )
            arrays[f"params/{unit}/BatchNorm_0/bias"] = rng.normal(0, 0.1, out).astype(np.float32)
            arrays[f"batch_stats/{unit}/BatchNorm_0/mean"] = rng.normal(0, 0.1, (1, 1, 1, 1, out)).astype(
                np.float32
            )
            arrays[f"batch_stats/{unit}/BatchNorm_0/var"] = rng.uniform(0.5, 2, (1, 1, 1, 1, out)).astype(
                np.float32
            )
    return arrays


@pytest.fixture(scope="module")
def i3d_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.numpy import save_file

    path = tmp_path_factory.mktemp("i3d") / "random.safetensors"
    save_file(flax_arrays(I3DNet()), path)
    return path


def test_a_flax_unit_becomes_convolution_norm_and_relu() -> None:
    network = I3DNet()
    arrays = flax_arrays(network)
    network.load_state_dict(from_flax(arrays))
    unit = "Mixed_4b/Branch_1/Conv3d_0b_3x3"
    mixed = network.body["Mixed_4b"]
    assert isinstance(mixed, Mixed)
    ours = mixed.Branch_1["Conv3d_0b_3x3"]
    x = torch.randn(1, ours.weight.shape[1], 3, 4, 4)
    kernel = torch.from_numpy(arrays[f"params/{unit}/Conv_0/kernel"]).permute(4, 3, 0, 1, 2)
    y = nn.functional.conv3d(x, kernel, padding=1)
    norm = [
        torch.from_numpy(arrays[f"batch_stats/{unit}/BatchNorm_0/{k}"]).reshape(-1) for k in ("mean", "var")
    ]
    y = nn.functional.batch_norm(
        y, *norm, bias=torch.from_numpy(arrays[f"params/{unit}/BatchNorm_0/bias"]), eps=1e-3
    )
    with torch.no_grad():
        torch.testing.assert_close(ours(x), y.relu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("frames", "steps"), [(32, 4), (16, 2), (17, 3), (1, 1)])
def test_i3d_keeps_an_eighth_of_the_steps(i3d_file: Path, frames: int, steps: int) -> None:
    encoder = build("i3d-rgb", weights=i3d_file)
    assert isinstance(encoder.need, FrameNeed)
    assert (encoder.need.segments, encoder.need.length) == (32, 1)
    raw = np.random.default_rng(frames).integers(0, 256, (frames, 1, 32, 32, 3), np.uint8)
    assert encoder.encode([encoder.prepare(raw)])[0].shape == (steps, 1024)


def test_i3d_is_the_same_in_any_batch_and_reads_order(i3d_file: Path) -> None:
    encoder = build("i3d-rgb", weights=i3d_file)
    clips = pictures(2, 16, 48)
    features = assert_batch_invariant(encoder, clips, 1e-5)
    reverse = encoder.encode([encoder.prepare(clips[0][::-1])])[0]
    assert np.abs(reverse - features[0]).max() > 1e-3


def test_i3d_refuses_other_weights(tmp_path: Path, lite0: tuple[nn.Module, Path]) -> None:
    (tmp_path / "text.safetensors").write_text("no")
    for path in (tmp_path / "text.safetensors", lite0[1]):
        encoder = build("i3d-rgb", weights=path)
        with pytest.raises(WeightsError):
            encoder.encode([encoder.prepare(pictures(1, 8, 32)[0])])
