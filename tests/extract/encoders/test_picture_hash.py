"""The picture hash keeps what scaling, level and contrast leave, and its parts are those of a cropped copy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsmm.extract.encoders import build
from fsmm.extract.encoders.picture_hash import GRID, SIDE, averaged, described


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Smooth pictures uint8 [count, 320, 320, 3] of soft blobs of colour."""
    draws = np.random.default_rng(seed)
    coarse = draws.uniform(0, 255, (count, 9, 9, 3)).astype(np.float32)
    return (
        np.stack([cv2.resize(c, (320, 320), interpolation=cv2.INTER_CUBIC) for c in coarse])
        .clip(0, 255)
        .astype(np.uint8)
    )


def hashed(frames: np.ndarray) -> np.ndarray:
    small = np.stack([cv2.resize(f, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for f in frames])
    return build("picture-hash").prepare(small[:, None])


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_the_means_of_places_are_those_of_a_plain_loop() -> None:
    planes = np.random.default_rng(0).normal(size=(2, 12, 12))
    found = averaged(planes, np.array([2.0, 10.0]), 4)
    for y in range(4):
        for x in range(4):
            part = planes[:, 2 + 2 * y : 4 + 2 * y, 2 + 2 * x : 4 + 2 * x].mean((1, 2))
            np.testing.assert_allclose(found[:, y, x], part, atol=1e-12)


@pytest.mark.parametrize("change", ["small", "darker", "noise"])
def test_a_copy_has_nearly_the_same_hash_and_another_picture_has_not(change: str) -> None:
    frames = pictures(6)
    copy = {
        "small": np.stack([cv2.resize(f, (40, 40), interpolation=cv2.INTER_AREA) for f in frames]),
        "darker": (0.6 * frames + 10).astype(np.uint8),
        "noise": (frames + np.random.default_rng(1).normal(0, 12, frames.shape))
        .clip(0, 255)
        .astype(np.uint8),
    }[change]
    one, other = hashed(frames), hashed(copy)
    assert cosine(one, other).min() > 0.95
    assert cosine(one, np.roll(other, 1, 0)).max() < 0.6


def test_the_whole_of_a_cropped_copy_is_the_inner_part_of_its_original() -> None:
    frames = pictures(4)
    whole, _, inner = np.split(hashed(frames), 3, axis=1)
    cropped, _, _ = np.split(hashed(frames[:, 32:288, 32:288]), 3, axis=1)
    assert cosine(cropped, inner).min() > 0.97
    assert cosine(cropped, whole).max() < cosine(cropped, inner).min()


def test_an_empty_picture_is_zeros_and_others_have_one_size() -> None:
    frames = np.stack([np.full((SIDE, SIDE, 3), 128, np.float32), np.full((SIDE, SIDE, 3), 128, np.float32)])
    frames[1, :32] = 20
    empty, half = described(frames, 1.0)
    assert not empty.any()
    assert np.linalg.norm(half) == pytest.approx(GRID, rel=1e-5)
