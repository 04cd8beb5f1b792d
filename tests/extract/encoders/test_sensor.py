"""The features of a sensor's windows, compared with slow formulas and with what is known of simple motions."""

from __future__ import annotations

import numpy as np
import pytest

from fsmm.errors import DecodeError
from fsmm.extract.encoders import build
from fsmm.extract.encoders.sensor import BANDS, WindowStats, width, window_features


def test_the_width_is_that_of_the_axes() -> None:
    for axes in (1, 2, 6, 19):
        assert window_features(np.zeros((2, 50, axes), np.float32)).shape == (2, width(axes))


def test_features_are_those_of_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, 40, 4)) * [1, 5, 50, 0.1] + [0, 1, -20, 9]).astype(np.float32)
    found = window_features(x)
    for window, features in zip(x.astype(np.float64), found):
        blocks = np.split(features[: 8 * 4], 8)
        for axis in range(4):
            signal = window[:, axis]
            spectrum = np.abs(np.fft.rfft(signal - signal.mean())) ** 2
            power = spectrum[1:]
            shares = np.array([k / 20 for k in range(1, 21)])
            expected = [
                np.sign(signal.mean()) * np.log1p(abs(signal.mean())),
                np.log1p(signal.std()),
                np.log1p((signal**2).mean()),
                (power * shares).sum() / power.sum(),
                *(np.log10(band.sum() / power.sum() + 1e-6) for band in np.array_split(power, BANDS)),
            ]
            np.testing.assert_allclose([block[axis] for block in blocks], expected, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(
            features[8 * 4 :], np.corrcoef(window.T)[np.triu_indices(4, 1)], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_a_sine_has_its_centroid_at_its_frequency(share: float) -> None:
    at = np.arange(200)
    wave = np.sin(np.pi * share * at)[None, :, None].astype(np.float32)
    features = window_features(wave)[0]
    assert features[3] == pytest.approx(share, abs=0.01)
    assert int(np.argmax(features[4 : 4 + BANDS])) == int(share * BANDS)


def test_axes_that_do_not_move_give_finite_features() -> None:
    x = np.zeros((1, 30, 3), np.float32)
    x[0, :, 1] = 5.0
    x[0, :, 2] = np.arange(30)
    features = window_features(x)
    assert np.isfinite(features).all()
    assert (features[0, 8 * 3 :] == 0).all()
    assert np.isfinite(window_features(np.ones((1, 1, 2), np.float32))).all()  # one step is a window, too


def test_a_clip_with_another_number_of_axes_is_refused() -> None:
    encoder = build("window-stats")
    assert isinstance(encoder, WindowStats)
    encoder.fit_to(6)
    windows = np.ones((2, 50, 6), np.float32)
    assert encoder.encode([encoder.prepare(windows)])[0].shape == (2, encoder.dim)
    with pytest.raises(DecodeError, match="axes"):
        encoder.prepare(windows[..., :5])
