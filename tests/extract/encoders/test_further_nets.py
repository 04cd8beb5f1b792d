"""VGGish, RAFT's descriptor, TV-L1 and I3D over flow: random weights in a local file, against definitions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsmm.errors import DecodeError, UsageError, WeightsError
from fsmm.extract.contract import Sampling
from fsmm.extract.encoders import build, flow_motion, flow_raft, i3d_flow, vggish
from fsmm.extract.encoders.base import Spec
from fsmm.extract.encoders.flow import TvL1Hof, describe
from fsmm.extract.encoders.i3d_net import I3DNet


def slow_log_mel(samples: np.ndarray, frame: int) -> np.ndarray:
    """One frame of the published front end, filter by filter."""
    part = samples[frame * 160 : frame * 160 + 400]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    bins = np.abs(np.fft.rfft(part * window, 512))
    mels = 1127.0 * np.log(1.0 + np.arange(257) * 16_000 / 512 / 700.0)
    edges = np.linspace(1127.0 * np.log(1 + 125 / 700), 1127.0 * np.log(1 + 7_500 / 700), 66)
    found = np.zeros(64)
    for k in range(64):
        low, centre, high = edges[k : k + 3]
        for value, at in zip(bins[1:], mels[1:]):
            found[k] += value * max(0.0, min((at - low) / (centre - low), (high - at) / (high - centre)))
    return np.log(found + 0.01)


def test_vggish_reads_the_published_log_mel_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sound = (0.3 * np.sin(np.arange(40_000) * 0.2) + 0.01 * rng.normal(size=40_000)).astype(np.float32)
    encoder: Any = vggish.Vggish(Spec("vggish", "audio", 128))
    pictures = encoder.prepare(sound)
    assert pictures.shape == (3, 96, 64)
    for frame in (0, 50, 95):
        np.testing.assert_allclose(
            pictures[1, frame], slow_log_mel(sound[15_360:], frame), rtol=1e-3, atol=1e-3
        )
    assert encoder.times(sound, None)[0] == pytest.approx(15_600 / 32_000)
    assert "sound_hop" not in encoder.provenance()
    encoder.set_hop(0.48)
    assert np.array_equal(encoder.prepare(sound)[2], pictures[1])
    assert "windows 15600/7680" in encoder.provenance()["preprocessing"]
    assert encoder.provenance()["sound_hop"] == "0.48"
    again = vggish.Vggish(Spec("vggish", "audio", 128))
    again.fit_to_origin({"sound_hop": "0.48"})
    assert again.provenance() == encoder.provenance()
    with pytest.raises(UsageError, match="no number"):
        again.fit_to_origin({"sound_hop": "fast"})
    short = encoder.prepare(sound[:1_000])  # A sound shorter than a window is filled up with silence.
    assert short.shape == (1, 96, 64)
    np.testing.assert_allclose(short[0, 20:], np.log(0.01), rtol=1e-5)
    with pytest.raises(DecodeError, match="at least 800"):
        encoder.prepare(sound[:799])
    encoder.set_hop(2.0)  # A hop longer than a window leaves gaps, and no window lies beyond the sound.
    assert [len(encoder.prepare(np.zeros(count, np.float32))) for count in (32_000, 32_001, 80_000)] == [
        1,
        2,
        3,
    ]
    for hop in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="sound-hop"):
            encoder.set_hop(hop)


def test_vggish_is_its_layers_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vggish, "_CHANNELS", ((4,), (4,), (4, 4), (4, 4)))
    torch.manual_seed(0)
    state = vggish.build_network().state_dict()
    assert {key for key in state if key.startswith("features")} == {
        f"features.{i}.{kind}" for i in (0, 3, 6, 8, 11, 13) for kind in ("weight", "bias")
    }
    path = tmp_path / "vggish.pth"
    torch.save({**state, "pproc.pca_means": torch.zeros(128, 1)}, path)
    encoder = build("vggish", weights=path)
    raw = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32)
    found = encoder.encode([encoder.prepare(raw)])[0]
    x = torch.from_numpy(encoder.prepare(raw))[:, None]
    for i in (0, 3, 6, 8, 11, 13):
        x = torch.relu(F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1))
        x = F.max_pool2d(x, 2) if i in (0, 3, 8, 13) else x
    x = x.permute(0, 2, 3, 1).reshape(len(x), -1)
    for i in (0, 2, 4):
        x = torch.relu(x @ state[f"embeddings.{i}.weight"].T + state[f"embeddings.{i}.bias"])
    assert found.shape == (2, 128)
    np.testing.assert_allclose(found, x.numpy(), rtol=1e-3, atol=1e-5)
    with pytest.raises(WeightsError, match="--weights vggish=FILE"):
        build("vggish")


def moving(side: int, shift: int) -> np.ndarray:
    """One segment of three frames of a texture that moves right by ``shift`` pixels a frame."""
    rng = np.random.default_rng(0)
    rough = torch.from_numpy(rng.uniform(0, 255, (1, 3, side // 8, side // 8 + 4)).astype(np.float32))
    wide = F.interpolate(rough, size=(side, side + 32), mode="bicubic")[0].clamp(0, 255).byte()
    frames = [wide[:, :, 16 - k * shift : 16 - k * shift + side] for k in range(3)]
    return torch.stack(frames).permute(0, 2, 3, 1).numpy()[None]


def test_raft_feeds_neighbours_and_its_flow_is_described(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = flow_raft.build_network().eval()
    path = tmp_path / "raft.pth"
    torch.save(network.state_dict(), path)
    encoder: Any = build("raft-hof", weights=path)
    raw = moving(160, 2)
    found = encoder.encode([encoder.prepare(raw)])[0]
    pictures = torch.from_numpy(raw[0]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        fields = network(pictures[:2], pictures[1:], num_flow_updates=12)[-1]
    expected = describe(fields.permute(0, 2, 3, 1).numpy()[None], side=160)
    assert found.shape == (1, encoder.dim) == (1, 306)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)
    coarse: Any = build("raft-hof", weights=path, precision="bfloat16")
    rough = coarse.encode([coarse.prepare(raw)])[0]
    assert coarse.provenance()["arithmetic"] == "bfloat16"
    assert not np.array_equal(rough, found)
    assert float((rough * found).sum() / np.linalg.norm(rough) / np.linalg.norm(found)) > 0.98


def test_tv_l1_needs_the_contributed_modules_and_is_described_as_dis_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another instance of DIS stands for TV-L1 where OpenCV has none."""
    import cv2

    monkeypatch.setattr(flow_motion, "_local", SimpleNamespace())
    spec = Spec("tvl1-hof", "flow", 306)
    if not hasattr(cv2, "optflow"):
        with pytest.raises(UsageError, match="`pip install opencv-contrib-python-headless`"):
            build("tvl1-hof")
        with pytest.raises(UsageError, match="opencv-contrib-python-headless"):
            TvL1Hof(spec).prepare(moving(160, 3))
    stand_in = SimpleNamespace(DualTVL1OpticalFlow_create=lambda: cv2.DISOpticalFlow_create(2))
    monkeypatch.setattr(cv2, "optflow", stand_in, raising=False)
    encoder, usual = TvL1Hof(spec), build("dis-hof")
    raw = moving(160, 3)
    np.testing.assert_allclose(encoder.prepare(raw), usual.prepare(raw), atol=1e-6)
    assert "TV-L1" in encoder.provenance()["preprocessing"]


def test_i3d_over_flow_reads_fields_cut_at_twenty_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    monkeypatch.setattr(
        i3d_flow, "flows", lambda frames: np.full((*frames.shape[:1], 1, 8, 8, 2), 30.0, np.float32)
    )
    torch.manual_seed(0)
    network = I3DNet(2).eval()
    arrays: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv3d):
            unit = name.removeprefix("body.").replace(".", "/")
            arrays[f"params/{unit}/Conv_0/kernel"] = module.weight.permute(2, 3, 4, 1, 0).contiguous()
            arrays[f"params/{unit}/BatchNorm_0/bias"] = module.bias
            for kind, value in (("mean", 0.0), ("var", 1.0 - 1e-3)):
                arrays[f"batch_stats/{unit}/BatchNorm_0/{kind}"] = torch.full_like(module.bias, value)
    logits = network.classifier
    arrays["params/Logits/Conv3d_0c_1x1/Conv_0/kernel"] = logits.weight.T.reshape(
        1, 1, 1, 1024, 400
    ).contiguous()
    arrays["params/Logits/Conv3d_0c_1x1/Conv_0/bias"] = logits.bias
    save_file(arrays, tmp_path / "flow.safetensors")
    encoder: Any = build("i3d-flow", weights=tmp_path / "flow.safetensors")
    prepared = encoder.prepare(np.zeros((32, 2, 8, 8, 3), np.uint8))
    assert prepared.shape == (32, 8, 8, 2)
    assert (prepared == 255).all()
    found = encoder.encode([prepared])[0]
    with torch.no_grad():
        expected = network(torch.ones(1, 2, 32, 8, 8))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert found.shape == (4, 1024)


def test_the_hop_of_sound_is_an_option_of_extraction(tmp_path: Path) -> None:
    from extract_support import extracted, rows, videos

    data = videos(tmp_path / "data", 1)
    stream, sampling = "audio/logmel-mfcc", Sampling(sound_hop=0.01)
    usual = extracted(data, tmp_path / "usual", stream)
    dense = extracted(data, tmp_path / "dense", stream, sampling=sampling)
    few, many = (next(iter(rows(Path(r.folder), stream).values())) for r in (usual, dense))
    assert few is not None
    assert many is not None
    assert len(few) < len(many)
    with pytest.raises(UsageError, match="none that takes it"):
        extracted(data, tmp_path / "none", "flow/dis-hof", sampling=sampling)
