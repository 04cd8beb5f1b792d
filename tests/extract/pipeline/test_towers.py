"""A model's towers are tried on the built-in handful: a sentence where they are no better than guessing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fsmm.errors import WeightsError
from fsmm.extract.built_in import encoding
from fsmm.extract.built_in.clips import HANDFUL_CLASSES
from fsmm.extract.built_in.encoding import HandfulFeatures
from fsmm.extract.pipeline.towers import doubt_about, doubtful_towers

CLASSES = len(HANDFUL_CLASSES)
LABEL = np.repeat(np.arange(CLASSES), 4)
GOOD = np.eye(CLASSES, dtype=np.float32)[LABEL] + 0.1
NOISE = np.random.default_rng(0).normal(size=GOOD.shape).astype(np.float32)


def words(spaces: np.ndarray) -> Any:
    """An encoder of words that puts the pattern i at ``spaces[i]``."""
    names = list(HANDFUL_CLASSES)
    return SimpleNamespace(
        name="m-text-ensemble",
        modality="word",
        encode=lambda batch: [spaces[[names.index(word)]] for word in batch],
    )


def frames(name: str = "m") -> Any:
    return SimpleNamespace(name=name, modality="frame")


def tried(monkeypatch: pytest.MonkeyPatch, seen: np.ndarray, told: np.ndarray) -> None:
    def features(encoder: Any) -> HandfulFeatures:
        return HandfulFeatures(told if encoder.modality == "word" else seen, LABEL)

    monkeypatch.setattr(encoding, "features_of_handful", features)


def test_towers_that_tell_the_handful_apart_are_not_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, GOOD, GOOD)
    assert doubt_about(frames(), words(np.eye(CLASSES))) == ""


@pytest.mark.parametrize("which", ["frames", "words", "space"])
def test_each_tower_and_their_common_space_is_looked_at(monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    tried(monkeypatch, NOISE if which == "frames" else GOOD, NOISE if which == "words" else GOOD)
    shifted = np.roll(np.eye(CLASSES), 1, 0)  # Each pattern's word is nearest to the frames of another one.
    sentence = doubt_about(frames(), words(shifted if which == "space" else np.eye(CLASSES)))
    assert sentence.startswith("Encoder 'm' was tried on the built-in clips: ")
    assert "guessing gives 17%" in sentence


def test_only_new_streams_of_a_model_with_words_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, NOISE, NOISE)
    lanes: list[Any] = [
        SimpleNamespace(encoder=frames(name), writer=SimpleNamespace(is_new=new))
        for name, new in (("m", True), ("m", False), ("other", True))
    ]
    assert len(doubtful_towers(lanes, [words(np.eye(CLASSES))])) == 1
    assert doubtful_towers(lanes, []) == []


def test_what_else_goes_wrong_is_left_to_the_first_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(error: Exception) -> None:
        def features(encoder: Any) -> HandfulFeatures:
            raise error

        monkeypatch.setattr(encoding, "features_of_handful", features)

    broken(RuntimeError("no room"))
    assert doubt_about(frames(), words(np.eye(CLASSES))) == ""
    broken(WeightsError("They do not fit."))
    with pytest.raises(WeightsError):
        doubt_about(frames(), words(np.eye(CLASSES)))
