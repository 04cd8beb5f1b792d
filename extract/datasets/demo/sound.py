"""The sounds of the demo clips, one function each, with pitch and pace drawn anew for every clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .plan import Clip


@dataclass(frozen=True)
class _Take:
    """The material of a sound. t: times in seconds [n]; pitch, pace: factors around 1; noise: random numbers."""

    t: np.ndarray
    pitch: float
    pace: float
    noise: np.random.Generator

    @property
    def rate(self) -> float:
        return 1 / (self.t[1] - self.t[0])


_Sound = Callable[[_Take], np.ndarray]


def sound_of(clip: Clip) -> np.ndarray:
    """The mono sound of a clip, float32 [samples] in [-1, 1] at ``clip.sound_rate`` Hz, as long as its pictures."""
    draws = clip.draws("sound")
    t = np.arange(round(clip.seconds * clip.sound_rate)) / clip.sound_rate
    pitch, pace = 2 ** draws.uniform(-0.3, 0.3), 2 ** draws.uniform(-0.25, 0.25)
    wave = _SOUNDS[clip.sound](_Take(t, pitch, pace, draws))
    wave = wave / max(float(abs(wave).max()), 1e-9)
    # The murmur of the place lies 0 to 30 dB below the sound.
    wave = wave + _murmur(_Take(t, 1.0, 1.0, draws)) * 10 ** -draws.uniform(0.0, 1.5) * wave.std()
    edge = np.clip(np.minimum(t, t[-1] - t) / 0.01, 0, 1)
    return (clip.gain * edge * wave / max(float(abs(wave).max()), 1e-9)).astype(np.float32)


def _tone(take: _Take, hertz: float, strengths: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """A steady tone with the given strengths of its harmonics."""
    angle = 2 * np.pi * hertz * take.pitch * take.t
    return np.asarray(sum(s * np.sin((k + 1) * angle) for k, s in enumerate(strengths)))


def _glide(take: _Take, hertz: np.ndarray) -> np.ndarray:
    """A whistle of varying frequency [n], with a weak second harmonic."""
    angle = 2 * np.pi * np.cumsum(hertz * take.pitch) / take.rate
    return np.asarray(np.sin(angle) + 0.25 * np.sin(2 * angle))


def _hiss(take: _Take) -> np.ndarray:
    """White noise of unit deviation."""
    return take.noise.standard_normal(len(take.t))


def _murmur(take: _Take) -> np.ndarray:
    """Noise of unit deviation whose power falls with frequency, more or less steeply."""
    spectrum = np.fft.rfft(_hiss(take))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** -take.noise.uniform(0.2, 1.0)
    wave = np.fft.irfft(spectrum, len(take.t))
    return np.asarray(wave / wave.std())


def _since(take: _Take, period: float) -> np.ndarray:
    """The seconds since the last beat [n], where beats come every ``period`` seconds, at the take's pace and phase."""
    period = period / take.pace
    return (take.t + take.noise.uniform(0, period)) % period


def _beeps(take: _Take) -> np.ndarray:
    return _tone(take, 1000, (1.0, 0.1)) * (_since(take, 0.4) < 0.18)


def _engine(take: _Take) -> np.ndarray:
    shake = 1 + 0.4 * np.sin(2 * np.pi * 11 * take.pace * take.t)
    return (_tone(take, 48, tuple(1 / k**0.8 for k in range(1, 13))) + 0.3 * _hiss(take)) * shake


def _plucked_strings(take: _Take) -> np.ndarray:
    since = _since(take, 0.32)
    beat = np.cumsum(np.diff(since, prepend=since[0]) < 0)
    scale = 196 * take.pitch * 2 ** (take.noise.choice([0, 2, 4, 7, 9, 12], beat[-1] + 1) / 12)
    angle = 2 * np.pi * scale[beat] * since
    return np.asarray(sum(np.exp(-since * 3 * k) * np.sin(k * angle) / k for k in range(1, 9)))


def _telephone(take: _Take) -> np.ndarray:
    low = np.sin(2 * np.pi * 22 * take.pace * take.t) > 0
    ring = np.where(low, _tone(take, 1250, (1.0, 0.4, 0.3)), _tone(take, 1560, (1.0, 0.4, 0.3)))
    return ring * (_since(take, 0.9) < 0.6)


def _zaps(take: _Take) -> np.ndarray:
    since = _since(take, 0.35)
    return _glide(take, 250 + 3500 * np.exp(-since * 14)) * np.exp(-since * 7)


def _organ(take: _Take) -> np.ndarray:
    pipes = (1.0, 0.7, 0.3, 0.4, 0.1, 0.2)
    return (_tone(take, 262, pipes) + _tone(take, 330, pipes) + _tone(take, 392, pipes)) * (
        1 + 0.15 * np.sin(2 * np.pi * 6 * take.pace * take.t)
    )


def _knocks(take: _Take) -> np.ndarray:
    since = _since(take, 0.24)
    return np.exp(-since * 60) * (_tone(take, 420) + 0.6 * _hiss(take))


def _hum(take: _Take) -> np.ndarray:
    return 0.5 * _tone(take, 120, (1.0, 0.8, 0.2, 0.3))


def _siren(take: _Take) -> np.ndarray:
    return _glide(take, 950 + 400 * np.sin(2 * np.pi * (1.3 * take.pace * take.t + take.noise.uniform())))


def _clock(take: _Take) -> np.ndarray:
    since = _since(take, 0.5)
    return np.exp(-since * 250) * (_hiss(take) + _tone(take, 3200))


def _buzz(take: _Take) -> np.ndarray:
    rough = 1 + 0.8 * np.sign(np.sin(2 * np.pi * 27 * take.pace * take.t))
    return _tone(take, 155, tuple(1 / k**0.5 for k in range(1, 20))) * rough


def _plain(take: _Take) -> np.ndarray:
    return _tone(take, 600, (1.0, 0.3, 0.1))


def _sizzle(take: _Take) -> np.ndarray:
    return 0.35 * np.diff(_hiss(take), prepend=0.0)


def _bells(take: _Take) -> np.ndarray:
    since = _since(take, 0.85)
    partials = ((0.5, 0.5), (1.0, 1.0), (1.19, 0.8), (1.56, 0.5), (2.0, 0.7), (2.66, 0.4), (4.1, 0.3))
    angle = 2 * np.pi * 520 * take.pitch * since
    return np.asarray(sum(s * np.exp(-since * 2 * f) * np.sin(f * angle) for f, s in partials))


def _drums(take: _Take) -> np.ndarray:
    since = _since(take, 0.56)
    later = (since - 0.28 / take.pace) % (0.56 / take.pace)
    thump = np.sin(2 * np.pi * take.pitch * (55 * since + 6 * (1 - np.exp(-since * 25)))) * np.exp(-since * 9)
    return thump + 0.5 * _hiss(take) * np.exp(-later * 18)


def _chirps(take: _Take) -> np.ndarray:
    since = _since(take, 0.13)
    phrase = _since(take, 1.0) < 0.65 / take.pace
    return _glide(take, 2800 + 9000 * since) * np.clip(1 - since / 0.09, 0, 1) * phrase


def _rise_then_fall(take: _Take) -> np.ndarray:
    return _glide(take, 450 * 4 ** (1 - abs(2 * take.t / take.t[-1] - 1)))


def _fall_then_rise(take: _Take) -> np.ndarray:
    return _glide(take, 450 * 4 ** abs(2 * take.t / take.t[-1] - 1))


def _then(first: _Sound, second: _Sound) -> _Sound:
    """A sound that is ``first`` for the first half of the time and ``second`` for the other half."""
    return lambda take: np.where(take.t < take.t[-1] / 2, first(take), second(take))


_SOUNDS: dict[str, _Sound] = {
    "beeps": _beeps,
    "engine": _engine,
    "plucked-strings": _plucked_strings,
    "telephone": _telephone,
    "zaps": _zaps,
    "organ": _organ,
    "knocks-then-hum": _then(_knocks, _hum),
    "hum-then-knocks": _then(_hum, _knocks),
    "siren": _siren,
    "clock": _clock,
    "buzz": _buzz,
    "tone-then-hiss": _then(_plain, _sizzle),
    "hiss-then-tone": _then(_sizzle, _plain),
    "bells": _bells,
    "drums": _drums,
    "chirps": _chirps,
    "rise-then-fall": _rise_then_fall,
    "fall-then-rise": _fall_then_rise,
}
