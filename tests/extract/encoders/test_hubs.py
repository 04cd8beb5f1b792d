"""The full-strength encoders with random weights saved to a local checkpoint and loaded by the code real
ones go through.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsmm.errors import DecodeError, WeightsError
from fsmm.extract.encoders import build, video3d
from fsmm.extract.encoders.base import Spec
from fsmm.extract.encoders.openclip import OpenClipFrame, OpenClipText, load_model
from fsmm.extract.encoders.video3d import VARIANTS, build_model
from fsmm.extract.weights import table as weights_table
from fsmm.extract.weights.store import Located
from fsmm.extract.weights.table import Hub, Weights
from fsmm.extract.weights.torchvision_care import ensure_torchvision

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 32, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP model that open_clip knows from now on, and a checkpoint of random weights for it."""
    ensure_torchvision()
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "fsmm-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model("fsmm-tiny")
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "tiny.safetensors"
    )
    torch.save({"state_dict": model.state_dict()}, folder / "tiny.pt")
    return folder / "tiny.safetensors"


@pytest.fixture
def tiny(clip_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    entry = Weights("m.safetensors", "open_clip", "none", 1, hub=Hub("open_clip", "fsmm-tiny", "random"))
    monkeypatch.setitem(weights_table.WEIGHTS, "openclip-tiny", entry)
    return clip_file


def clip_frames(path: Path) -> OpenClipFrame:
    return OpenClipFrame(Spec("openclip-tiny", "frame", 16, Located(path, "openclip-tiny", "0")))


def clip_words(path: Path) -> OpenClipText:
    return OpenClipText(Spec("openclip-tiny-text", "word", 16, Located(path, "openclip-tiny", "0")))


def test_frames_equal_open_clips_own_preprocessing(tiny: Path) -> None:
    import open_clip
    from PIL import Image

    encoder = clip_frames(tiny)
    raw = np.random.default_rng(0).integers(0, 256, (3, 1, 224, 224, 3), np.uint8)
    model = load_model("fsmm-tiny", "random", tiny)
    own = open_clip.image_transform(
        224, is_train=False, mean=model.visual.image_mean, std=model.visual.image_std
    )
    with torch.no_grad():
        expected = model.encode_image(
            torch.stack([own(Image.fromarray(frame)) for frame in raw[:, 0]])
        ).numpy()
    features = encoder.encode([encoder.prepare(raw[:1]), encoder.prepare(raw[1:])])
    np.testing.assert_allclose(np.concatenate(features), expected, rtol=1e-3, atol=1e-4)


def test_words_are_embedded_one_by_one_whatever_the_batch(tiny: Path) -> None:
    encoder = clip_words(tiny)
    texts = ["playing piano", "a", "riding a horse " * 40]
    together = encoder.encode(texts)
    for text, vector in zip(texts, together):
        assert vector.shape == (1, 16)
        np.testing.assert_allclose(encoder.encode([text])[0], vector, rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_torch_and_safetensors_checkpoints_give_the_same(tiny: Path) -> None:
    one, other = (clip_words(path).encode(["piano"])[0] for path in (tiny, tiny.with_suffix(".pt")))
    np.testing.assert_array_equal(one, other)


def test_a_checkpoint_that_does_not_fit_never_becomes_random_weights(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"visual.proj": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.pt").write_text("no")
    (tmp_path / "model.onnx").touch()
    for name in ("other.safetensors", "text.pt", "model.onnx", "absent.pt"):
        with pytest.raises(WeightsError):
            load_model("fsmm-tiny", "random", tmp_path / name)


def test_the_tables_models_and_tags_exist_with_the_tables_dimension() -> None:
    ensure_torchvision()
    import open_clip

    from fsmm.extract.encoders import ENCODERS

    for name, entry in weights_table.WEIGHTS.items():
        if entry.hub is not None and entry.hub.library == "open_clip":
            assert open_clip.get_pretrained_cfg(entry.hub.model, entry.hub.tag), name
            dim = open_clip.get_model_config(entry.hub.model)["embed_dim"]
            assert dim == ENCODERS[name].dim == ENCODERS[f"{name}-text"].dim


def checkpoint(name: str, folder: Path) -> tuple[Any, Path]:
    torch.manual_seed(0)
    model = build_model(VARIANTS[name]).eval()
    path = folder / f"{name}.pyth"
    torch.save({"model_state": model.state_dict(), "cfg": "text beside it"}, path)
    return model, path


def windows(name: str, count: int) -> np.ndarray:
    v = VARIANTS[name]
    return np.random.default_rng(1).integers(0, 256, (count, v.length, v.size, v.size, 3), np.uint8)


def test_x3d_features_are_the_pooled_last_block(tmp_path: Path) -> None:
    model, path = checkpoint("x3d-s", tmp_path)
    encoder = build("x3d-s", weights=path)
    raw = windows("x3d-s", 2)
    features = encoder.encode([encoder.prepare(raw), encoder.prepare(raw[:1])])
    assert features[0].shape == (2, 192)
    np.testing.assert_allclose(features[1], features[0][:1], rtol=1e-4, atol=1e-6)
    kept: list[torch.Tensor] = []
    model.blocks[-1].register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    with torch.no_grad():
        model((torch.from_numpy(raw).permute(0, 4, 1, 2, 3).float() / 255 - 0.45) / 0.225)
    expected = kept[0].flatten(2).mean(2).numpy()
    np.testing.assert_allclose(features[0], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(DecodeError, match="13 frames a window"):
        encoder.prepare(raw[:, :5])


def test_video_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save({"state": {}}, tmp_path / "key.pyth")
    torch.save({"model_state": {"a": torch.ones(1)}}, tmp_path / "tensors.pyth")
    (tmp_path / "text.pyth").write_text("no")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(WeightsError, match="do not fit"):
            build("x3d-s", weights=path).encode([windows("x3d-s", 1)])


@pytest.mark.slow
def test_slowfast_feeds_both_pathways_and_gives_the_same_twice(tmp_path: Path) -> None:
    model, path = checkpoint("slowfast-r50", tmp_path)
    encoder = build("slowfast-r50", weights=path)
    raw = windows("slowfast-r50", 1)
    features = encoder.encode([raw])[0]
    assert features.shape == (1, 2304)
    np.testing.assert_array_equal(encoder.encode([raw])[0], features)  # the list it writes into is a new one
    x = (torch.from_numpy(raw).permute(0, 4, 1, 2, 3).float() / 255 - 0.45) / 0.225
    kept: list[torch.Tensor] = []
    model.blocks[-1].register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    with torch.no_grad():
        model([x[:, :, torch.linspace(0, 31, 8).long()], x])
    expected = kept[0].flatten(2).mean(2).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_video_hub_knows_the_tables_checkpoints() -> None:
    import importlib

    ensure_torchvision()
    for name, variant in VARIANTS.items():
        hub = importlib.import_module(f"pytorchvideo.models.hub.{variant.module}")
        assert hub.checkpoint_paths[variant.builder].endswith(weights_table.WEIGHTS[name].file)
    assert set(video3d.VARIANTS) <= set(weights_table.WEIGHTS)


def test_torchvision_imports_here_and_its_care_may_run_twice() -> None:
    ensure_torchvision()
    ensure_torchvision()
    import torchvision.transforms.functional as tf

    assert tf.resize(torch.zeros(3, 8, 8), [4, 4]).shape == (3, 4, 4)
