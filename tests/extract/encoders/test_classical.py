"""Encoders without weights: what they measure can be read back, and their parts equal slow formulas."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from fsmm.errors import DecodeError
from fsmm.extract.encoders import build
from fsmm.extract.encoders.flow import BINS, DIM, GRID, SPEEDS, describe
from fsmm.extract.encoders.flow_motion import colour, flows
from fsmm.extract.encoders.sound_stats import FFT, HIGH, LOW, MELS, log_mel, mel_filters
from fsmm.extract.encoders.sound_windows import MAX_WINDOWS, patches
from fsmm.extract.encoders.yamnet import HOP, PATCH

SIDE, CELLS = 160, GRID * GRID
RATE = 16_000


def moving(
    dx: float, dy: float, seed: int = 0, segments: int = 2, length: int = 3, noise: float = 3.0
) -> np.ndarray:
    """A random texture that moves (dx, dy) pixels a frame: uint8 [segments, length, 160, 160, 3]."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.normal(size=(400, 400, 3)), (0, 0), 2.5)
    texture = (texture - texture.min()) / (texture.max() - texture.min()) * 255
    frames = []
    for i in range(length):
        shift = np.array([[1, 0, dx * i], [0, 1, dy * i]], np.float32)
        frame = cv2.warpAffine(texture, shift, (400, 400))[120 : 120 + SIDE, 120 : 120 + SIDE]
        frames.append(np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8))
    return np.repeat(np.stack(frames)[None], segments, axis=0)


def blocks(features: np.ndarray) -> dict[str, np.ndarray]:
    """One descriptor [306] as its blocks [cells, ...]."""
    sizes = {"hof": BINS + 1, "speed": len(SPEEDS) + 1, "mbhx": BINS, "mbhy": BINS, "mean": 2}
    cuts = np.cumsum([CELLS * n for n in sizes.values()])
    parts = np.split(features, cuts[:-1])
    return {name: part.reshape(CELLS, n) for (name, n), part in zip(sizes.items(), parts)}


def dis_hof(raw: np.ndarray) -> np.ndarray:
    encoder = build("dis-hof")
    (features,) = encoder.encode([encoder.prepare(raw)])
    assert features.shape == (len(raw), DIM)
    assert features.dtype == np.float32
    return features


@pytest.mark.parametrize("direction", range(BINS))
def test_the_direction_of_a_translation_is_the_largest_bin_of_every_cell(direction: int) -> None:
    angle = direction * 2 * np.pi / BINS
    found = blocks(dis_hof(moving(3 * np.cos(angle), 3 * np.sin(angle), seed=direction))[0])
    assert (found["hof"][:, :BINS].argmax(1) == direction).all()
    mean = found["mean"].mean(0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), [np.cos(angle), np.sin(angle)], atol=0.2)


def test_the_speed_of_a_translation_is_read_back_within_a_fifth() -> None:
    for pixels in (1.0, 2.0, 4.0, 8.0):
        found = blocks(dis_hof(moving(pixels, 0))[0])
        percent = 5.0 * (found["mean"][:, 0] * GRID) ** 2  # the documented root, undone
        assert np.median(percent) == pytest.approx(100 * pixels / SIDE, rel=0.2)
        histogram = found["speed"].sum(0) ** 2
        centre = SPEEDS[int(histogram[1:].argmax())]
        assert 0.5 <= centre / (100 * pixels / SIDE) <= 2


def test_a_still_scene_is_all_rest() -> None:
    found = blocks(dis_hof(moving(0, 0, noise=0))[0])
    np.testing.assert_allclose(found["hof"][:, BINS], 1 / GRID, atol=1e-6)
    np.testing.assert_array_equal(found["hof"][:, :BINS], 0)
    np.testing.assert_allclose(found["mean"], 0, atol=1e-3)
    assert np.abs(found["mbhx"]).max() < 1e-3


def test_motion_boundaries_ignore_a_translation_of_the_camera() -> None:
    rng = np.random.default_rng(0)
    flow = cv2.GaussianBlur(rng.normal(0, 40, (160, 160, 2)).astype(np.float32), (0, 0), 12)[None, None]
    panned = flow + np.float32([5, -3])
    still, pan = blocks(describe(flow, SIDE)[0]), blocks(describe(panned, SIDE)[0])
    for name in ("mbhx", "mbhy"):
        np.testing.assert_allclose(still[name], pan[name], atol=1e-4)
    assert np.abs(still["hof"] - pan["hof"]).max() > 0.05  # entries go up to 1: the camera shows in the flow


def test_turning_the_flow_turns_the_histogram() -> None:
    rng = np.random.default_rng(1)
    flow = rng.normal(0, 3, (1, 2, 48, 48, 2)).astype(np.float32)
    quarter = np.stack([-flow[..., 1], flow[..., 0]], -1)  # each vector by a quarter turn, in place
    one, other = blocks(describe(flow, 48)[0]), blocks(describe(quarter, 48)[0])
    np.testing.assert_allclose(
        np.roll(one["hof"][:, :BINS], BINS // 4, axis=1), other["hof"][:, :BINS], atol=1e-5
    )
    np.testing.assert_allclose(one["speed"], other["speed"], atol=1e-5)


def test_hof_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(2)
    flow = rng.normal(0, 1, (1, 1, 24, 24, 2)).astype(np.float32)
    hof = np.zeros((GRID, GRID, BINS + 1))
    for y in range(0, 24, 2):
        for x in range(0, 24, 2):
            u, v = flow[0, 0, y, x] * 100 / 24
            speed, cell = math.hypot(u, v), (y // 8, x // 8)
            if speed < 0.25:
                hof[(*cell, BINS)] += 0.25
                continue
            place = math.atan2(v, u) / (2 * math.pi) * BINS
            low = math.floor(place)
            hof[(*cell, low % BINS)] += speed * (low + 1 - place)
            hof[(*cell, (low + 1) % BINS)] += speed * (place - low)
    expected = np.sqrt(hof / hof.sum()).reshape(CELLS, BINS + 1)
    np.testing.assert_allclose(blocks(describe(flow, 24)[0])["hof"], expected, atol=1e-5)


def test_flow_does_not_depend_on_what_was_computed_before() -> None:
    clip, other = moving(2, 1), moving(-3, 5, seed=9)
    first = flows(clip)
    flows(other)
    np.testing.assert_array_equal(flows(clip), first)
    np.testing.assert_array_equal(flows(clip[:1]), first[:1])


def test_flow_needs_a_pair() -> None:
    with pytest.raises(DecodeError, match="two or more frames"):
        build("dis-hof").prepare(moving(0, 0, length=1))


def test_the_colour_code_is_white_at_rest_and_differs_by_direction() -> None:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    wheel = colour(np.stack([np.cos(angles), np.sin(angles)], -1) * 5, fastest=5).astype(int)
    distance = np.abs(wheel[:, None] - wheel[None]).sum(-1) + 1000 * np.eye(12, dtype=int)
    assert distance.min() > 40
    assert (colour(np.zeros((2, 2)), fastest=5) == 255).all()
    slow, fast = colour(np.array([[0.5, 0.0], [2.0, 0.0]]), fastest=5).astype(int)
    assert (255 - fast).sum() == pytest.approx(
        2 * (255 - slow).sum(), abs=3
    )  # four times the speed: twice the colour


def test_mel_filters_equal_a_slow_formula() -> None:
    def to_mel(hertz: float) -> float:
        return 1127.01048 * math.log(1 + hertz / 700)

    def to_hertz(mels: float) -> float:
        return 700 * (math.exp(mels / 1127.01048) - 1)

    low, high = to_mel(LOW), to_mel(HIGH)
    edges = [to_hertz(low + (high - low) * i / (MELS + 1)) for i in range(MELS + 2)]
    for row in range(FFT // 2 + 1):
        hertz = row * RATE / FFT
        for band in range(MELS):
            left, centre, right = (to_mel(edge) for edge in edges[band : band + 3])
            at = to_mel(hertz)
            expected = 0.0
            if left < at <= centre:
                expected = (at - left) / (centre - left)
            elif centre < at < right:
                expected = (right - at) / (right - centre)
            assert mel_filters()[row, band] == pytest.approx(expected, abs=1e-5)


def test_log_mel_equals_a_slow_fourier_transform() -> None:
    rng = np.random.default_rng(3)
    sound = rng.normal(0, 0.1, 720)
    at = np.arange(400)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * at / 400)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(FFT // 2 + 1), at) / FFT)
    rows = [
        np.log(np.abs(waves @ (sound[s : s + 400] * window)) ** 2 @ mel_filters() + 1e-6)
        for s in (0, 160, 320)
    ]
    np.testing.assert_allclose(log_mel(sound[None])[0], rows, rtol=1e-4, atol=1e-4)


def tone(hertz: float, seconds: float = 2.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_logmel_statistics_name_the_band_of_a_tone_whatever_its_level() -> None:
    encoder = build("logmel-mfcc")
    for hertz in (300.0, 1000.0, 4000.0):
        loud, soft = (encoder.prepare(tone(hertz, level=level)) for level in (0.5, 0.05))
        assert loud.shape == (4, 169)
        centre = mel_filters()[:, int(loud[0, :MELS].argmax())].argmax() * RATE / FFT
        assert centre == pytest.approx(hertz, rel=0.1)
        assert loud[0, MELS] > soft[0, MELS]
        assert np.isfinite(encoder.encode([loud, soft])[1]).all()


def test_logmel_tells_a_pulsed_tone_from_a_steady_one_by_its_spread() -> None:
    encoder = build("logmel-mfcc")
    steady = tone(1000)
    pulsed = steady * (np.arange(len(steady)) // 1600 % 2)
    spread = [encoder.prepare(sound)[0, MELS + 1 : 2 * MELS + 1].mean() for sound in (steady, pulsed)]
    assert spread[1] > 10 * spread[0]


@pytest.mark.parametrize("name", ["logmel-mfcc"])
def test_unusable_sound_is_refused(name: str) -> None:
    encoder = build(name)
    for bad, reason in (
        (np.zeros(10), "samples"),
        (np.zeros(0), "samples"),
        (np.full(RATE, np.nan), "finite"),
    ):
        with pytest.raises(DecodeError, match=reason):
            encoder.prepare(bad.astype(np.float32))
    silent = encoder.encode([encoder.prepare(np.zeros(RATE, np.float32))])[0]
    assert np.isfinite(silent).all()


@pytest.mark.parametrize(
    "length", [800, PATCH, PATCH + 1, PATCH + HOP, 3 * PATCH + 17, PATCH + HOP * (MAX_WINDOWS - 1)]
)
def test_patches_cover_every_sample_in_order(length: int) -> None:
    sound = np.linspace(-1, 1, length, dtype=np.float32)
    cut = patches(sound, PATCH, HOP)
    starts = np.arange(len(cut)) * HOP
    assert starts[-1] + PATCH >= length
    assert len(cut) == 1 or starts[-2] + PATCH < length  # none too many
    for start, patch in zip(starts, cut):
        rest = sound[start : start + PATCH]
        np.testing.assert_array_equal(patch[: len(rest)], rest)
        np.testing.assert_array_equal(patch[len(rest) :], 0)


def test_long_sound_gives_a_bounded_number_of_patches_over_all_of_it() -> None:
    sound = np.linspace(-1, 1, RATE * 300, dtype=np.float32)
    cut = patches(sound, PATCH, HOP)
    assert cut.shape == (MAX_WINDOWS, PATCH)
    assert cut[0, 0] == -1
    assert 1.0 in cut[-1]
    gaps = np.diff(cut[:, 0])
    assert gaps.max() < 1.01 * gaps.min()  # starts lie 75,000 samples apart, rounded to whole samples
