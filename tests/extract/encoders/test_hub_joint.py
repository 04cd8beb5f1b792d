"""Pictures and sound in one vector: a tiny PE-AV with random weights in a folder, against the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extract_support import rows, videos

from fsmm.errors import DecodeError, WeightsError
from fsmm.extract.contract import AudioNeed, Pair, Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.decoding.decode import decode
from fsmm.extract.encoders.hub_model import HubModel
from fsmm.extract.encoders.references import Reference
from fsmm.extract.pipeline.lane import sampling_text
from fsmm.extract.pipeline.worker import ABSENT, READY, prepare_part
from fsmm.extract.weights.torchvision_care import ensure_torchvision

ensure_torchvision()  # transformers imports it, too.
hf = pytest.importorskip("transformers", reason="the extra hub is not installed")
pytest.importorskip("timm", reason="the extra encoders is not installed")
if not hasattr(hf, "PeAudioVideoModel"):
    pytest.skip("this version of transformers has no PE-AV", allow_module_level=True)

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
}
RATE, FRAMES = 48_000, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PE-AV with its processors."""
    vision = {
        "model_type": "timm_wrapper",
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"img_size": 32, "depth": 1, "embed_dim": 16, "num_heads": 2},
        "num_labels": 2,
    }
    dac = {"model_type": "dac", "encoder_hidden_size": 4, "codebook_dim": 8}
    dac["downsampling_ratios"] = [2, 8, 10, 12]
    text = {"model_type": "modernbert", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "vocab_size": 32, "pad_token_id": 0, "eos_token_id": 1}
    text |= {"bos_token_id": 2, "cls_token_id": 2, "sep_token_id": 1}
    joint = hf.PeAudioVideoEncoderConfig(
        audio_config={"model_type": "pe_audio_encoder", "dac_config": dac, **SIZES},
        video_config={"model_type": "pe_video_encoder", "vision_config": vision, **SIZES},
        **SIZES,
    )
    config = hf.PeAudioVideoConfig(text_config=text, audio_video_config=joint)
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("pe-av")
    hf.PeAudioVideoModel(config).eval().save_pretrained(place)
    hf.PeAudioFeatureExtractor().save_pretrained(place)
    size = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    hf.PeVideoVideoProcessor(**size, do_normalize=True).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Any:
    return Reference.parse("video", f"hf:pe-av@{folder}").build()


def test_each_quarter_is_what_the_library_makes_of_it(encoder: Any, folder: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4 * FRAMES, 1, 32, 32, 3), np.uint8)
    sound = 0.1 * rng.standard_normal(2 * RATE).astype(np.float32)
    found = encoder.encode([encoder.prepare(Pair(frames, sound))])[0]
    assert found.shape == (4, encoder.dim)
    model = hf.PeAudioVideoModel.from_pretrained(folder).eval()
    extractor = hf.PeAudioFeatureExtractor.from_pretrained(folder)
    for quarter, vector in enumerate(found):
        heard = extractor(
            sound[quarter * RATE // 2 : (quarter + 1) * RATE // 2], sampling_rate=RATE, return_tensors="pt"
        )
        shown = torch.from_numpy(frames[quarter * FRAMES : (quarter + 1) * FRAMES, 0]).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected = model.get_audio_video_embeds(
                heard["input_values"], (shown[None] / 255 - 0.5) / 0.5, heard["padding_mask"]
            ).audio_video_embeds
        np.testing.assert_allclose(vector, expected[0].numpy(), rtol=1e-3, atol=1e-4)


def test_of_a_long_quarter_the_middle_is_heard(encoder: Any) -> None:
    frames = np.zeros((4 * FRAMES, 1, 32, 32, 3), np.uint8)
    sound = np.arange(48 * RATE, dtype=np.float32) / (48 * RATE)
    heard = encoder.prepare(Pair(frames, sound)).sound
    assert heard.shape == (4, 10 * RATE)
    np.testing.assert_allclose(heard.mean(1) * 48, [6, 18, 30, 42], atol=0.01)
    with pytest.raises(DecodeError, match="needs at least"):
        encoder.prepare(Pair(frames, sound[: RATE // 10]))
    with pytest.raises(DecodeError, match="needs 64 single frames"):
        encoder.prepare(Pair(frames[:8], sound))


def test_a_clip_is_decoded_once_for_both_and_without_sound_it_is_absent(encoder: Any, tmp_path: Path) -> None:
    data = videos(tmp_path / "data", 5)
    loud, silent = data / "class0" / "000.mp4", data / "class0" / "004.mp4"
    need = encoder.need
    assert need.sound == AudioNeed(RATE)
    decoded = decode(Source(video=loud), "c", [need, AudioNeed(16_000)], Sampling())
    part = prepare_part(encoder, decoded)
    assert part.state == READY
    assert part.value.nbytes == part.value.frames.nbytes + part.value.sound.nbytes
    assert len(part.times) == 4 * FRAMES
    assert prepare_part(encoder, decode(Source(video=silent), "c", [need], Sampling())).state == ABSENT
    assert sampling_text(encoder, Sampling()).startswith("64 segments of 1 frames")


def test_an_extraction_makes_a_stream_of_both(folder: Path, tmp_path: Path) -> None:
    import fsmm

    report = fsmm.extract(
        "folder",
        videos(tmp_path / "data", 5),
        tmp_path / "cache",
        encoders={"video": f"hf:pe-av@{folder}"},
        quiet=True,
        workers=1,
    )
    (stream,) = report.streams
    assert (stream.written, stream.absent, stream.failed) == (4, 1, 0)
    assert stream.name.startswith("video/hf-pe-av-")
    made = [x for x in rows(Path(report.folder), stream.name).values() if x is not None]
    assert all(x.shape == (4, stream.dim) for x in made)
    assert not any("passport" in sentence for sentence in report.warnings)


def test_a_model_of_one_kind_of_input_is_refused() -> None:
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16}
    model = hf.VideoMAEModel(hf.VideoMAEConfig(**sizes, image_size=32, patch_size=16, num_frames=4))
    hub = HubModel(model, torch.device("cpu"), random_pooler=False)
    with pytest.raises(WeightsError, match="'videomae' does not read pictures and sound at once"):
        hub.embedding("pair")
