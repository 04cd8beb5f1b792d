"""The clips that fsmm carries with it: decoders give what was put in, and what is wrong with a decoder is seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest

from fsmm.errors import DecodeError
from fsmm.extract.built_in import decoding
from fsmm.extract.built_in.clips import FOLDER, HANDFUL_CLASSES, ODD, Odd, handful
from fsmm.extract.built_in.decoding import expected_greys, faults_of_decoding
from fsmm.extract.built_in.encoding import (
    HandfulFeatures,
    cosine_to_reference,
    features_of_handful,
)
from fsmm.extract.contract import AudioNeed, Decoded, FrameNeed, Need, Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.encoders import build


def test_the_clips_are_below_a_megabyte_and_every_class_has_four() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1e6
    assert {odd.file for odd in ODD} <= {path.name for path in FOLDER.iterdir()}
    classes = [name for name, _ in handful()]
    assert [classes.count(name) for name in HANDFUL_CLASSES] == [4] * 6


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_this_machine_decodes_every_odd_clip(odd: Odd) -> None:
    assert faults_of_decoding(odd) == []


def test_the_greys_of_a_variable_rate_are_those_of_the_frames_on_screen() -> None:
    odd = Odd("v", "v.mp4", "", 440.0, seconds=1.0, times=(0, 100, 900))
    # At 0.125 s the frame of 0.1 s is on screen, and so it is until 0.875 s.
    assert expected_greys(odd) == [40 + 170 * 0.1] * 4


def spoilt(how: str) -> Any:
    """A decoder that does one thing wrong."""
    real = decoding.decode

    def decode(source: Source, name: str, needs: Collection[Need], sampling: Sampling) -> Decoded:
        if how == "refuses":
            raise DecodeError("It cannot be read.")
        decoded = real(source, name, needs, sampling)
        frame, audio = (next(n for n in needs if isinstance(n, kind)) for kind in (FrameNeed, AudioNeed))
        pictures = decoded.frames[frame]
        if how == "turns":
            decoded.frames[frame] = np.rot90(pictures, axes=(2, 3))
        elif how == "bgr":
            decoded.frames[frame] = pictures[..., ::-1]
        elif how == "late":
            decoded.frames[frame] = pictures[::-1]
        elif how == "slow":
            decoded.audio[audio] = np.repeat(decoded.audio[audio], 2)
        elif how == "mute":
            decoded.audio.clear()
        return decoded

    return decode


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("refuses", "cannot be read"),
        ("turns", "not turned upright"),
        ("bgr", "colours are off"),
        ("late", "frames of other times"),
        ("slow", "the tone has 220 Hz"),
        ("mute", "no sound"),
    ],
)
def test_a_decoder_that_is_wrong_is_seen(how: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "decode", spoilt(how))
    assert says in "; ".join(faults_of_decoding(ODD[0]))


def test_accuracy_is_that_of_leaving_each_member_out() -> None:
    """Two tight classes are told apart; members without a second one of their kind are lost when they are left out."""
    x = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    assert HandfulFeatures(x, np.array([0, 0, 1, 1])).accuracy() == 1.0
    assert HandfulFeatures(x, np.array([0, 1, 0, 1])).accuracy() < 1.0


def test_a_quick_encoder_is_right_and_gives_the_known_features() -> None:
    encoder = build("logmel-mfcc")
    features = features_of_handful(encoder)
    assert features.accuracy() > 0.9
    cosine = cosine_to_reference(encoder, features)
    assert cosine is not None
    assert cosine > 0.999


def test_a_wrong_input_shows_in_features(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build("logmel-mfcc")
    right = encoder.prepare

    def too_loud(raw: np.ndarray) -> np.ndarray:
        return right(raw * 32768)

    monkeypatch.setattr(encoder, "prepare", too_loud)
    cosine = cosine_to_reference(encoder, features_of_handful(encoder))
    assert cosine is not None
    assert cosine < 0.99


class Deaf:
    """An encoder that can use nothing."""

    name, modality, dim, batch_clips = "deaf", "audio", 2, 1
    need: Need = AudioNeed()

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        raise DecodeError("It is too short.")

    def encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return []

    def provenance(self) -> dict[str, str]:
        return {}


def test_an_encoder_that_can_use_no_clip_says_so() -> None:
    with pytest.raises(DecodeError, match="'deaf' can use none of the built-in clips"):
        features_of_handful(Deaf())
