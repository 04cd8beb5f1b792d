"""Models of transformers and sentence-transformers: tiny ones with random weights in a folder, against the libraries.

What a library gives for one input by its own processor is what the encoder must give.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extract_support import rows, videos

from fsmm.errors import UsageError, WeightsError
from fsmm.extract import encoders
from fsmm.extract.contract import Sampling
from fsmm.extract.encoders import references
from fsmm.extract.encoders.prompts import ENSEMBLE
from fsmm.extract.encoders.references import Reference
from fsmm.extract.weights import hubs
from fsmm.extract.weights.torchvision_care import ensure_torchvision

ensure_torchvision()  # transformers imports it, too.
hf = pytest.importorskip("transformers", reason="the extra hub is not installed")

LAYERS = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16}
SPEECH = {
    **LAYERS,
    "conv_dim": (8, 8, 8),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 4, 4),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
TEXT = {**LAYERS, "vocab_size": 32, "max_position_embeddings": 40}


def clap() -> tuple[Any, Any]:
    heard = hf.ClapAudioConfig(
        patch_embeds_hidden_size=8,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        hidden_size=16,
        num_hidden_layers=2,
    )
    config = hf.ClapConfig(
        text_config=hf.ClapTextConfig(**TEXT).to_dict(), audio_config=heard.to_dict(), projection_dim=8
    )
    return hf.ClapModel(config), hf.ClapFeatureExtractor(truncation="rand_trunc")


def ast() -> tuple[Any, Any]:
    return hf.ASTModel(hf.ASTConfig(**LAYERS, max_length=1024)), hf.ASTFeatureExtractor()


def wavlm() -> tuple[Any, Any]:
    return hf.WavLMModel(hf.WavLMConfig(**SPEECH)), hf.Wav2Vec2FeatureExtractor()


def wav2vec2() -> tuple[Any, Any]:
    return hf.Wav2Vec2Model(hf.Wav2Vec2Config(**SPEECH)), hf.Wav2Vec2FeatureExtractor()


def whisper() -> tuple[Any, Any]:
    sizes = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
    }
    tokens = {
        "vocab_size": 32,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    config = hf.WhisperConfig(d_model=16, encoder_layers=1, decoder_layers=1, **sizes, **tokens)
    return hf.WhisperModel(config), hf.WhisperFeatureExtractor()


def joint(model: Any, inputs: Any) -> torch.Tensor:
    return model.get_audio_features(**inputs).pooler_output


def pooled(model: Any, inputs: Any) -> torch.Tensor:
    return model(**inputs).pooler_output


def averaged(model: Any, inputs: Any) -> torch.Tensor:
    return model(**inputs).last_hidden_state.mean(1)


def of_the_window(model: Any, inputs: Any) -> torch.Tensor:
    """Five of the thirty seconds that Whisper's encoder reads."""
    return model.encoder(inputs["input_features"]).last_hidden_state[:, :250].mean(1)


SOUND: dict[str, tuple[Callable[[], tuple[Any, Any]], Callable[[Any, Any], torch.Tensor], float]] = {
    "clap": (clap, joint, 10.0),
    "ast": (ast, pooled, 10.0),
    "wavlm": (wavlm, averaged, 2.0),
    "wav2vec2": (wav2vec2, averaged, 2.0),
    "whisper": (whisper, of_the_window, 5.0),
}


def saved(folder: Path, *parts: Any) -> Path:
    torch.manual_seed(0)
    for part in parts:
        part.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", SOUND)
def test_windows_of_sound_are_what_the_library_makes_of_them(tmp_path: Path, name: str) -> None:
    make, take, seconds = SOUND[name]
    torch.manual_seed(0)
    model, extractor = make()
    saved(tmp_path / "m", model.eval(), extractor)
    encoder: Any = Reference.parse("audio", f"hf:{name}@{tmp_path / 'm'}").build()
    rate = extractor.sampling_rate
    assert encoder.need.rate == rate
    sound = 0.1 * np.random.default_rng(0).standard_normal(round(1.7 * seconds * rate)).astype(np.float32)
    found = encoder.encode([encoder.prepare(sound), encoder.prepare(sound[: rate // 2])])
    window, hop = round(seconds * rate), round(seconds * rate) // 2
    padded = np.pad(sound, (0, 2 * window))
    expected = []
    with torch.no_grad():
        for start in (0, hop, 2 * hop):
            inputs = extractor(padded[start : start + window], sampling_rate=rate, return_tensors="pt")
            expected.append(take(model, inputs)[0].numpy())
        short = np.pad(sound[: rate // 2], (0, window - rate // 2))  # silence after it
        alone = take(model, extractor(short, sampling_rate=rate, return_tensors="pt")).numpy()
    assert found[0].shape == (3, encoder.dim)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[1], alone, rtol=1e-3, atol=1e-4)
    times = encoder.times(sound, None)
    np.testing.assert_allclose(times[:2], [seconds / 2, seconds], atol=1e-3)
    encoder.set_hop(seconds)
    assert len(encoder.prepare(sound)) == 2
    assert f"every {window}" in encoder.provenance()["preprocessing"]


def test_the_length_of_a_window_is_an_option(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", *wavlm())
    encoder: Any = Reference.parse("audio", f"hf:w#0.5@{folder}").build()
    assert encoder.prepare(np.zeros(16_000, np.float32)).shape == (3, 8_000)
    assert encoder.name.endswith("-0.5")
    for option in ("0.01", "61", "long"):
        with pytest.raises(UsageError, match=r"windows of 0\.1 to 60 s"):
            Reference.parse("audio", f"hf:w#{option}@{folder}").build()


def videomae() -> tuple[Any, Any]:
    config = hf.VideoMAEConfig(**LAYERS, image_size=32, patch_size=16, num_frames=4)
    size = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    return hf.VideoMAEModel(config), hf.VideoMAEImageProcessor(**size)


def vjepa2() -> tuple[Any, Any]:
    more = {"pred_hidden_size": 16, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    config = hf.VJEPA2Config(**LAYERS, **more, crop_size=32, patch_size=16, frames_per_clip=4)
    size = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    return hf.VJEPA2Model(config), hf.VideoMAEImageProcessor(**size)


@pytest.mark.parametrize("make", [videomae, vjepa2])
def test_windows_of_frames_are_what_the_library_makes_of_them(
    tmp_path: Path, make: Callable[[], tuple[Any, Any]]
) -> None:
    torch.manual_seed(0)
    model, processor = make()
    saved(tmp_path / "m", model.eval(), processor)
    encoder: Any = Reference.parse("frame", f"hf:v@{tmp_path / 'm'}").build()
    need = encoder.need
    assert (need.segments, need.length, need.stride, need.resize) == (4, 4, 16, "crop")
    raw = np.random.default_rng(0).integers(0, 256, (4, 4, need.size, need.size, 3), np.uint8)
    found = encoder.encode([encoder.prepare(raw)])[0]
    with torch.no_grad():
        for window, vector in zip(raw, found):
            pixels = processor(list(window), return_tensors="pt")["pixel_values"]
            frames = pixels.reshape(1, 4, 3, 32, 32)
            if make is videomae:
                expected = model(frames).last_hidden_state.mean(1)
            else:
                expected = model(frames, skip_predictor=True).last_hidden_state.mean(1)
            np.testing.assert_allclose(vector, expected[0].numpy(), rtol=1e-3, atol=1e-4)


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ("[PAD]", "[UNK]", "playing", "piano", "a", "video", "of", "photo", ".", "dog")
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture(scope="module")
def joint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, whose two towers share a space."""
    seen = {**LAYERS, "image_size": 32, "patch_size": 16}
    text = {**TEXT, "eos_token_id": 31, "bos_token_id": 30, "pad_token_id": 0}
    config = hf.CLIPConfig(text_config=text, vision_config=seen, projection_dim=12)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    torch.manual_seed(0)
    model = hf.CLIPModel(config).eval()
    return saved(tmp_path_factory.mktemp("clip"), model, hf.CLIPImageProcessor(**size), tokenizer())


def test_a_joint_space_has_frames_and_words(joint_folder: Path) -> None:
    from fsmm.runs.frozen_space import TEXT as PAIRED

    model = hf.CLIPModel.from_pretrained(joint_folder)
    processor = hf.CLIPImageProcessor.from_pretrained(joint_folder)
    frames: Any = Reference.parse("frame", f"hf:clip@{joint_folder}").build()
    raw = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32, 3), np.uint8)
    words: Any = Reference.parse("word", f"hf:clip@{joint_folder}").build()
    with torch.no_grad():
        pixels = processor(list(raw[:, 0]), return_tensors="pt")
        expected = model.get_image_features(**pixels).pooler_output.numpy()
        tokens = tokenizer()(["a video of piano."], return_tensors="pt")
        text = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output.numpy()
    np.testing.assert_allclose(frames.encode([frames.prepare(raw)])[0], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(words.encode(["piano"])[0], text, rtol=1e-3, atol=1e-4)
    assert frames.dim == words.dim == 12
    assert PAIRED.sub("", words.name) == frames.name
    several: Any = Reference.parse("word", f"hf:clip#ensemble@{joint_folder}").build()
    each = np.concatenate([words._vector(t.replace("{}", "dog"))[None] for t in ENSEMBLE])
    mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(0)
    np.testing.assert_allclose(
        several.encode(["dog"])[0][0], mean / np.linalg.norm(mean), rtol=1e-3, atol=1e-4
    )


def test_models_of_a_hub_compute_in_the_arithmetic_that_is_asked_for(
    joint_folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    sound = saved(tmp_path / "m", *wavlm())
    raws = {
        f"frame=hf:clip@{joint_folder}": rng.integers(0, 256, (3, 1, 32, 32, 3), np.uint8),
        f"audio=hf:wavlm@{sound}": rng.standard_normal(20_000).astype(np.float32),
    }
    for text, raw in raws.items():
        modality, _, name = text.partition("=")
        exact, coarse = (
            Reference.parse(modality, name).build(precision=kind) for kind in ("float32", "bfloat16")
        )
        one, other = (encoder.encode([encoder.prepare(raw)])[0] for encoder in (exact, coarse))
        assert "arithmetic" not in exact.provenance()
        assert coarse.provenance()["arithmetic"] == "bfloat16"
        assert not np.array_equal(one, other)
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosine.min() > 0.99


def test_sentences_are_embedded_with_the_models_own_pooling(tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers", reason="the extra hub is not installed")
    torch.manual_seed(0)
    model = hf.BertModel(hf.BertConfig(**TEXT)).eval()
    saved(tmp_path / "bert", model, tokenizer())
    st.SentenceTransformer(str(tmp_path / "bert"), local_files_only=True).save(str(tmp_path / "st"))
    encoder: Any = Reference.parse("word", f"st:tiny@{tmp_path / 'st'}").build()
    with torch.no_grad():
        tokens = tokenizer()(["playing piano"], return_tensors="pt")
        expected = model(tokens["input_ids"]).last_hidden_state.mean(1).numpy()
    found = encoder.encode(["playing piano", "dog"])
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-4)
    assert (len(found), encoder.dim) == (2, 16)
    assert "'{}'" in encoder.provenance()["preprocessing"]


def test_an_extraction_takes_sound_pictures_and_words_of_folders(joint_folder: Path, tmp_path: Path) -> None:
    """The workers that prepare clips get the encoders without their networks."""
    import fsmm
    from fsmm.cache.schema import StreamName
    from fsmm.runs.frozen_space import joint_streams

    data, sound = videos(tmp_path / "data", 2), saved(tmp_path / "m", *wavlm())
    report = fsmm.extract(
        "folder",
        data,
        tmp_path / "cache",
        encoders={
            "audio": f"hf:wavlm#0.5@{sound}",
            "frame": f"hf:clip@{joint_folder}",
            "word": f"hf:clip@{joint_folder}",
        },
        sampling=Sampling(sound_hop=0.25),
        quiet=True,
        workers=1,
    )
    folder = Path(report.folder)
    frame = next(stream.name for stream in report.streams if stream.name.startswith("frame/"))
    heard = next(stream.name for stream in report.streams if stream.name.startswith("audio/"))
    assert joint_streams(folder) == [
        (StreamName.parse(frame), StreamName("word", frame.removeprefix("frame/") + "-text"))
    ]
    assert all(x is not None and x.shape == (8, 12) for x in rows(folder, frame).values())
    assert any("its weights may be random" in sentence for sentence in report.warnings)
    assert all(x is not None and len(x) > 2 and x.shape[1] == 16 for x in rows(folder, heard).values())


def test_a_folder_that_is_no_whole_model_is_one_sentence(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(WeightsError, match=r"holds no \*\.safetensors"):
        Reference.parse("audio", f"hf:x@{tmp_path}").build()
    folder = saved(tmp_path / "m", *wavlm())
    state = load_file(folder / "model.safetensors")
    state.pop(next(key for key in state if "feed_forward" in key))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks tensor .*feed_forward.*would be random"):
        Reference.parse("audio", f"hf:x@{folder}").build()
    bare = saved(tmp_path / "v", videomae()[0])
    with pytest.raises(WeightsError, match="has no video_preprocessor_config"):
        Reference.parse("frame", f"hf:x@{bare}").build()
    bert = saved(tmp_path / "b", hf.BertModel(hf.BertConfig(**TEXT)), videomae()[1])
    with pytest.raises(WeightsError, match="of kind 'bert' reads no picture"):
        Reference.parse("frame", f"hf:x@{bert}").build()
    other = saved(
        tmp_path / "o",
        videomae()[0],
        hf.VideoMAEImageProcessor(size={"shortest_edge": 48}, do_center_crop=False),
    )
    with pytest.raises(WeightsError, match="cannot be run on what its processor makes"):
        Reference.parse("frame", f"hf:x@{other}").build()
    (folder / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be read as model of transformers"):
        Reference.parse("audio", f"hf:x@{folder}").build()


def test_weights_that_are_pickles_are_never_loaded(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", *wavlm())
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be read as model"):
        Reference.parse("audio", f"hf:x@{folder}").build()


def test_without_the_packages_or_a_hub_the_sentence_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path))

    def unreachable(model: str, tag: str, target: Path) -> None:
        raise OSError("no network")

    monkeypatch.setattr(hubs, "fetch_folder", unreachable)
    with pytest.raises(WeightsError, match=r"no network.*fsmm encoders --fetch hf:openai/tiny"):
        encoders.fetch("hf:openai/tiny")
    with pytest.raises(UsageError, match="write OWNER/NAME"):
        encoders.fetch("hf:tiny")
    monkeypatch.setattr(references, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs transformers: .*\[hub\]"):
        encoders.fetch("hf:openai/tiny")


def test_a_folder_from_a_hub_is_kept_with_its_hashes(
    joint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setenv("FSMM_WEIGHTS", str(tmp_path))

    def snapshot(model: str, *, local_dir: Path, **given: Any) -> None:
        assert model == "owner/tiny"
        for path in joint_folder.iterdir():
            (local_dir / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    encoder = Reference.parse("frame", "hf:owner/tiny").build()
    assert encoder.name == "hf-owner-tiny"
    local = Reference.parse("frame", f"hf:owner/tiny@{joint_folder}").build()
    assert encoder.provenance()["weights_sha256"] == local.provenance()["weights_sha256"]
    (tmp_path / "hf-owner-tiny" / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="missing or damaged"):
        Reference.parse("frame", "hf:owner/tiny").build()
