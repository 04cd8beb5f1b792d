"""Encoders named by their model: tiny networks with random weights in local files, against their own libraries."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extract_support import rows, videos

import fsmm
from fsmm.cache.schema import StreamName, stream_folder
from fsmm.cache.stream import stream_provenance
from fsmm.errors import UsageError, WeightsError
from fsmm.extract import encoders
from fsmm.extract.choose import choose_streams
from fsmm.extract.encoders import references
from fsmm.extract.encoders.prompts import ENSEMBLE, templates_of
from fsmm.extract.encoders.references import Reference
from fsmm.extract.encoders.video_hub import INPUTS, HubVideo
from fsmm.extract.weights import hubs
from fsmm.extract.weights.torchvision_care import ensure_torchvision
from fsmm.runs import frozen_space
from fsmm.runs.frozen_space import joint_streams

TINY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
TOWER = "test_vit"


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP model that open_clip knows from now on, with random weights in a file."""
    ensure_torchvision()
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "fsmm-small.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    state = open_clip.create_model("fsmm-small").state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "small.safetensors")
    return folder / "small.safetensors"


@pytest.fixture(scope="module")
def tower() -> Any:
    """A tiny image tower of timm with a classifier and random weights."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    return timm.create_model(TOWER, pretrained=False).eval()


@pytest.fixture(scope="module")
def tower_file(tower: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "tower.pth"
    torch.save({"model": {**tower.state_dict(), "decoder_embed.weight": torch.zeros(2)}, "epoch": 3}, path)
    return path


def pictures(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 1, side, side, 3), np.uint8)


def transformed(transform: Any, raw: np.ndarray) -> torch.Tensor:
    from PIL import Image

    return torch.stack([transform(Image.fromarray(frame)) for frame in raw[:, 0]])


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_frames_equal_those_of_open_clips_own_transform(
    clip_file: Path, monkeypatch: pytest.MonkeyPatch, resize_mode: str
) -> None:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    own = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.3), "resize_mode": resize_mode}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: own)
    encoder: Any = Reference.parse("frame", f"openclip:fsmm-small/some_tag@{clip_file}").build()
    raw = pictures(64)
    assert (encoder.need.size, encoder.need.resize) == (64, {"shortest": "crop"}.get(resize_mode, "squash"))
    model = open_clip.create_model("fsmm-small", pretrained=str(clip_file)).eval()
    with torch.no_grad():
        frames = transformed(image_transform_v2(PreprocessCfg(size=64, **own), is_train=False), raw)
        expected = model.encode_image(frames).numpy()
    features = encoder.encode([encoder.prepare(raw)])[0]
    assert features.shape == (3, encoder.dim) == (3, 12)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert "mean 0.5 0.4 0.3 std 0.5 0.25 0.3" in encoder.provenance()["preprocessing"]


def test_frames_before_the_final_projection_are_what_it_maps(clip_file: Path) -> None:
    """A tower of open_clip's own, and one of timm's with a projection, against the matrices of their checkpoints."""
    import open_clip
    from safetensors.torch import load_file, save_file

    raw = pictures(64)
    model = open_clip.create_model("fsmm-small", pretrained=str(clip_file)).eval()
    encoder: Any = Reference.parse("frame", f"openclip:fsmm-small#unprojected@{clip_file}").build()
    whole: Any = Reference.parse("frame", f"openclip:fsmm-small@{clip_file}").build()
    features = encoder.encode([encoder.prepare(raw)])[0]
    assert features.shape == (3, encoder.dim) == (3, 32)
    projected = features @ load_file(clip_file)["visual.proj"].numpy()
    np.testing.assert_allclose(projected, whole.encode([whole.prepare(raw)])[0], rtol=1e-3, atol=1e-4)
    assert encoder.name == f"{whole.name}-unprojected"
    assert "before the final projection" in encoder.provenance()["preprocessing"]
    config = {**TINY, "vision_cfg": {"timm_model_name": TOWER, "timm_pool": "", "image_size": 64}}
    config["vision_cfg"] |= {"timm_proj": "linear"}
    (clip_file.parent / "fsmm-timm.json").write_text(json.dumps(config))
    open_clip.add_model_config(clip_file.parent)
    path = clip_file.with_name("timm.safetensors")
    model = open_clip.create_model("fsmm-timm")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    encoder = Reference.parse("frame", f"openclip:fsmm-timm#unprojected@{path}").build()
    whole = Reference.parse("frame", f"openclip:fsmm-timm@{path}").build()
    features = encoder.encode([encoder.prepare(raw)])[0]
    matrix = load_file(path)["visual.head.proj.weight"].numpy()
    np.testing.assert_allclose(
        features @ matrix.T, whole.encode([whole.prepare(raw)])[0], rtol=1e-3, atol=1e-4
    )


def test_words_by_several_templates_are_the_mean_of_unit_vectors(clip_file: Path, tmp_path: Path) -> None:
    import open_clip

    model = open_clip.create_model("fsmm-small", pretrained=str(clip_file)).eval()
    tokenizer = open_clip.get_tokenizer("fsmm-small")
    (tmp_path / "mine.txt").write_text("{} on film\n\nsome {}, {}\n")
    asked = {"ensemble": ENSEMBLE, str(tmp_path / "mine.txt"): ("{} on film", "some {}, {}")}
    for prompts, templates in asked.items():
        encoder = Reference.parse("word", f"openclip:fsmm-small#{prompts}@{clip_file}").build()
        for word, vector in zip(("piano", "a {dog}"), encoder.encode(["piano", "a {dog}"])):
            with torch.no_grad():
                each = model.encode_text(tokenizer([text.replace("{}", word) for text in templates]))
            mean = torch.nn.functional.normalize(each, dim=-1).mean(0)
            expected = torch.nn.functional.normalize(mean, dim=-1)
            np.testing.assert_allclose(vector, expected[None], rtol=1e-3, atol=1e-4)
    usual = Reference.parse("word", f"openclip:fsmm-small@{clip_file}").build().encode(["piano"])[0]
    with torch.no_grad():
        expected = model.encode_text(tokenizer(["a video of piano."]))
    np.testing.assert_allclose(usual, expected, rtol=1e-3, atol=1e-4)


def test_tower_features_equal_timms_own_pooled_ones(tower: Any, tower_file: Path) -> None:
    import timm

    encoder: Any = Reference.parse("frame", f"timm:{TOWER}@{tower_file}").build()
    config = timm.data.resolve_model_data_config(tower)
    side = config["input_size"][-1]
    assert encoder.need.size == int(side / config["crop_pct"]) > side
    raw = pictures(encoder.need.size)
    with torch.no_grad():
        frames = transformed(timm.data.create_transform(**config, is_training=False), raw)
        expected = tower.forward_head(tower.forward_features(frames), pre_logits=True).numpy()
    features = encoder.encode([encoder.prepare(raw)])[0]
    assert features.shape == (3, encoder.dim)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_video_features_are_what_the_classifier_reads(tmp_path: Path) -> None:
    from pytorchvideo.models.hub.x3d import x3d_xs

    torch.manual_seed(0)
    model = x3d_xs(pretrained=False).eval()
    path = tmp_path / "x3d.pyth"
    torch.save({"model_state": model.state_dict(), "epoch": 3}, path)
    encoder: Any = Reference.parse("frame", f"pytorchvideo:x3d_xs@{path}").build()
    raw = np.random.default_rng(1).integers(0, 256, (1, 4, 182, 182, 3), np.uint8)
    with torch.no_grad():
        x = (torch.from_numpy(raw).permute(0, 4, 1, 2, 3).float() / 255 - 0.45) / 0.225
        for block in model.blocks[:-1]:
            x = block(x)
        expected = model.blocks[-1].pool(x).mean((-3, -2, -1)).numpy()
    features = encoder.encode([encoder.prepare(raw)])[0]
    assert features.shape == (1, encoder.dim) == (1, 2048)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_video_transformers_give_the_vector_of_their_class_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of two blocks stands for MViT's sixteen."""
    from pytorchvideo.models.hub import vision_transformers as hub

    whole, small = hub.mvit_base_16x4, {"depth": 2, "embed_dim_mul": [[1, 2.0]], "atten_head_mul": [[1, 2.0]]}
    small["pool_q_stride_size"] = [[1, 1, 2, 2]]
    monkeypatch.setattr(hub, "mvit_base_16x4", lambda pretrained: whole(pretrained, **small))
    torch.manual_seed(0)
    model = hub.mvit_base_16x4(False).eval()
    torch.save(model.state_dict(), tmp_path / "mvit.pyth")
    encoder: Any = Reference.parse("frame", f"pytorchvideo:mvit_base_16x4@{tmp_path / 'mvit.pyth'}").build()
    raw = np.random.default_rng(1).integers(0, 256, (1, 16, 224, 224, 3), np.uint8)
    features = encoder.encode([encoder.prepare(raw)])[0]
    model.head = None
    with torch.no_grad():
        x = (torch.from_numpy(raw).permute(0, 4, 1, 2, 3).float() / 255 - 0.45) / 0.225
        expected = model(x)[:, 0].numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_two_threads_of_a_video_network_get_each_its_own_features() -> None:
    """On a GPU two threads run one network; each waits here until both have been at its classifier."""
    meeting = threading.Barrier(2, timeout=10)

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = self.proj(x)
            meeting.wait()
            return made

    network = torch.nn.Sequential()
    network.add_module("head", Head())
    embed, width = HubVideo.__new__(HubVideo)._embedding(network)
    inputs = [torch.full((3, 2), float(number)) for number in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(embed, inputs))
    assert width == 2
    assert all(torch.equal(one, other) for one, other in zip(found, inputs))


def test_the_video_hub_has_each_named_model() -> None:
    import importlib

    for name, row in INPUTS.items():
        assert name in importlib.import_module(f"pytorchvideo.models.hub.{row.module}").checkpoint_paths


def test_checkpoints_that_do_not_fit_are_refused(tower_file: Path, clip_file: Path, tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(2)}, tmp_path / "head.pth")
    for text in (f"timm:{TOWER}@{clip_file}", f"timm:{TOWER}@{tmp_path / 'head.pth'}"):
        with pytest.raises(WeightsError, match="do not fit"):
            Reference.parse("frame", text).build()
    with pytest.raises(WeightsError, match="do not fit"):
        Reference.parse("frame", f"openclip:fsmm-small@{tower_file}").build()
    with pytest.raises(WeightsError, match=r"absent\.pth.*check its path"):
        choose_streams(None, {"frame": f"timm:{TOWER}@{tmp_path / 'absent.pth'}"})


def test_an_extraction_takes_references_and_pairs_a_models_two_towers(
    clip_file: Path, tower_file: Path, tmp_path: Path
) -> None:
    data = videos(tmp_path / "data", 2)
    model = f"openclip:fsmm-small@{clip_file}"
    given: dict[str, Any] = {
        "encoders": {
            "frame": [model, f"timm:{TOWER}@{tower_file}"],
            "word": f"openclip:fsmm-small#ensemble@{clip_file}",
        },
        "quiet": True,
        "workers": 1,
    }
    report = fsmm.extract("folder", data, tmp_path / "cache", **given)
    folder = Path(report.folder)
    names = [stream.name for stream in report.streams if stream.name.startswith("frame/")]
    first = StreamName.parse(names[0])
    assert first.encoder.startswith("openclip-fsmm-small-")
    assert StreamName.parse(names[1]).encoder.startswith("timm-test-vit-")
    assert joint_streams(folder) == [(first, StreamName("word", f"{first.encoder}-text-ensemble"))]
    provenance = stream_provenance(folder, first)
    assert provenance is not None
    assert provenance.weights == "openclip:fsmm-small"
    assert first.encoder.endswith(provenance.weights_sha256[:8])
    assert stream_folder(folder, first).is_dir()
    assert all(value is not None and value.shape[1] == 12 for value in rows(folder, names[0]).values())
    assert fsmm.extract("folder", data, tmp_path / "cache", **given).done == 0


def test_words_by_the_usual_template_go_before_others(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "frame/a",
        "frame/b",
        "word/a-text",
        "word/a-text-ensemble",
        "word/b-text-prompts-0a1b2c",
        "word/c",
    ]
    held = [StreamName.parse(name) for name in names]
    monkeypatch.setattr(frozen_space, "list_streams", lambda folder: held)
    assert joint_streams(Path()) == [(held[0], held[2]), (held[1], held[4])]


def test_names_of_streams_are_those_of_model_and_tag() -> None:
    model = "openclip:ViT-B-32/laion2b_s34b_b79k"
    frame, tower, word = choose_streams(
        None, {"frame": [model, "timm:vit_base_patch16_224.mae"], "word": model}
    )
    assert str(frame) == "frame/openclip-vit-b-32-laion2b-s34b-b79k"
    assert str(word) == "word/openclip-vit-b-32-laion2b-s34b-b79k-text"
    assert str(tower) == "frame/timm-vit-base-patch16-224.mae"


@pytest.mark.parametrize(
    ("modality", "text", "says"),
    [
        ("frame", "clip:ViT-B-32/openai", "Unknown family of encoders"),
        ("audio", "openclip:ViT-B-32/openai", "make frame and word streams"),
        ("word", "timm:resnet18", "make frame streams"),
        ("frame", "openclip:ViT-B-32", "add /TAG"),
        ("frame", "openclip:/openai", "names no model or file"),
        ("frame", "timm:resnet18@", "names no model or file"),
        ("frame", "timm:resnet18/a1_in1k", "belongs to the name"),
        ("frame", "openclip:ViT-B-32/openai#ensemble", "Known: unprojected"),
        ("frame", "timm:resnet18#ensemble", "are for word streams"),
    ],
)
def test_references_that_no_encoder_can_have_are_refused(modality: str, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        choose_streams(None, {modality: text})
    with pytest.raises(UsageError, match=f"by --encoder, as {modality}="):
        choose_streams([f"{modality}/{text}"], None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("openclip:ViT-B-23/openai", "Did you mean 'ViT-B-32'"),
        ("openclip:ViT-B-32/laion2b", "Unknown tag of open_clip model 'ViT-B-32'"),
        ("timm:resnet81", "Unknown timm model"),
        ("pytorchvideo:x3d_xl", "Unknown pytorchvideo model"),
    ],
)
def test_a_model_that_its_library_does_not_know_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        encoders.fetch(text)


def test_without_the_hub_or_the_package_a_sentence_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(model: str, tag: str, target: Path) -> None:
        raise OSError("no route")

    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(hubs, "fetch_timm", refuse)
    with pytest.raises(WeightsError, match=rf"no route.*--fetch timm:{TOWER}.*put the checkpoint at"):
        encoders.fetch(f"timm:{TOWER}")
    assert "size not known, licence not verified" in capsys.readouterr().err
    monkeypatch.setattr(references, "find_spec", lambda module: None)
    with pytest.raises(UsageError, match=r"needs timm, torchvision: run `pip install.*encoders"):
        encoders.fetch(f"timm:{TOWER}")


def test_templates_without_a_place_for_the_word_are_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.txt").write_text("a video of {}.\na photo\n")
    (tmp_path / "empty.txt").write_text("\n")
    for name, says in (("wrong", "'a photo'"), ("empty", "no prompt template"), ("absent", "cannot be read")):
        with pytest.raises(UsageError, match=says):
            templates_of(str(tmp_path / f"{name}.txt"))
