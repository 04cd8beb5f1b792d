"""The real weights: fetched by hash, and sensible on signals and clips whose content is known."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from fsmm.errors import DecodeError
from fsmm.extract.contract import Encoder
from fsmm.extract.encoders import build
from fsmm.extract.encoders.efficientnet import SIZES
from fsmm.extract.encoders.i3d import I3dRgb
from fsmm.extract.encoders.tflite import TfliteModel
from fsmm.extract.encoders.yamnet import PATCH
from fsmm.extract.weights import store as weights

pytestmark = pytest.mark.network
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared"
RATE = 16_000


@pytest.fixture(scope="module")
def juggling() -> np.ndarray:
    """32 frames spread over a real clip of a man juggling a football on a lawn: uint8 [32, 240, 240, 3]."""
    path = SHARED / "data" / "clips" / "torchvision_videos" / "v_SoccerJuggling_g23_c01.avi"
    if not path.is_file():
        pytest.skip("the shared clips are not here")
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    side = min(frames[0].shape[:2])
    left = (frames[0].shape[1] - side) // 2
    return np.stack([frames[int((i + 0.5) * len(frames) / 32)][:side, left : left + side] for i in range(32)])


def resized(frames: np.ndarray, size: int) -> np.ndarray:
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])[
        :, None
    ]


def sounds() -> dict[str, np.ndarray]:
    """Two seconds each of sounds that a listener would not mix up."""
    t = np.arange(2 * RATE) / RATE
    rng = np.random.default_rng(0)
    clicks = rng.normal(0, 0.5, t.size) * np.exp(-(t % 0.25) * 60)
    return {
        "tone": 0.4 * np.sin(2 * np.pi * 1000 * t),
        "noise": rng.normal(0, 0.2, t.size),
        "siren": 0.4 * np.sin(2 * np.pi * 900 * t + 300 * np.sin(2 * np.pi * 0.8 * t)),
        "clicks": clicks,
    }


def assert_exactly_batch_invariant(encoder: Encoder, prepared: list[np.ndarray]) -> None:
    together = encoder.encode(prepared)
    for item, features in zip(prepared, together):
        np.testing.assert_array_equal(encoder.encode([item])[0], features)


def test_yamnet_hears_the_same_sound_in_other_noise() -> None:
    encoder = build("yamnet")
    rng = np.random.default_rng(1)
    clean = {name: encoder.prepare(sound) for name, sound in sounds().items()}
    noisy = {name: encoder.prepare(0.6 * s + rng.normal(0, 0.01, s.size)) for name, s in sounds().items()}
    assert_exactly_batch_invariant(encoder, list(clean.values()))
    one = np.stack([f.mean(0) for f in encoder.encode(list(clean.values()))])
    other = np.stack([f.mean(0) for f in encoder.encode(list(noisy.values()))])
    assert one.shape == (4, 1024)
    assert one.min() >= 0  # pooled after a ReLU: the zero point of the int8 tensor is read rightly
    cosine = (one @ other.T) / np.outer(np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1))
    np.testing.assert_array_equal(cosine.argmax(1), np.arange(4))


def test_yamnets_own_output_names_a_sine_wave() -> None:
    located = weights.locate("yamnet")
    with zipfile.ZipFile(located.path) as labels:
        names = labels.read("yamnet_label_list.txt").decode().splitlines()
    scores = TfliteModel(located)(sounds()["tone"][:PATCH].astype(np.float32)).ravel()
    assert names[int(scores.argmax())] in {
        "Sine wave",
        "Beep, bleep",
        "Dial tone",
        "Busy signal",
        "Tuning fork",
    }


def test_potion_puts_related_words_together() -> None:
    encoder = build("potion-8m")
    bike, cycling, piano = (v[0] for v in encoder.encode(["riding a bike", "bicycle ride", "playing piano"]))
    assert np.linalg.norm(bike) == pytest.approx(1, abs=1e-5)
    assert bike @ cycling > 0.5 > abs(bike @ piano)
    with pytest.raises(DecodeError):
        encoder.encode([""])


def test_int8_network_agrees_with_the_float_one(juggling: np.ndarray) -> None:
    fast, full = build("efficientnet-lite0-int8"), build("efficientnet-lite0")
    clips = [resized(juggling[:2], 224), resized(juggling[16:19], 224)]
    prepared = [fast.prepare(clip) for clip in clips]
    assert_exactly_batch_invariant(fast, prepared)
    coarse = np.concatenate(fast.encode(prepared))
    fine = np.concatenate(full.encode([full.prepare(clip) for clip in clips]))
    assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.75


def test_lite0_sees_a_ball(juggling: np.ndarray) -> None:
    encoder = build("efficientnet-lite0")
    features = encoder.encode([encoder.prepare(resized(juggling[::8], SIZES["efficientnet-lite0"]))])[0]
    import torch

    state = torch.load(weights.fetch("efficientnet-lite0"), weights_only=True)
    scores = (features @ state["_fc.weight"].numpy().T + state["_fc.bias"].numpy()).mean(0)
    with zipfile.ZipFile(weights.fetch("efficientnet-lite0-int8")) as labels:
        names = labels.read("labels_without_background.txt").decode().splitlines()
    best = {names[i] for i in np.argsort(scores)[::-1][:3]}
    assert best & {"soccer ball", "croquet ball"}


def test_i3d_names_the_action(juggling: np.ndarray) -> None:
    encoder = build("i3d-rgb")
    assert isinstance(encoder, I3dRgb)
    logits = encoder.logits(encoder.prepare(resized(juggling, 224)))
    probability = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert int(probability.argmax()) == 171  # "juggling soccer ball" in the alphabetical list of Kinetics-400
    assert probability.max() > 0.8  # chance is 1/400
