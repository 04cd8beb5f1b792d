"""The decoders of this machine on the odd clips: what comes out is compared with what was put in.

The expectations follow from how the clips were made, not from a decoder: corners of known colours, a grey that tells
the time of its frame, a tone of a known pitch.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from ...errors import DecodeError
from ..contract import AudioNeed, FrameNeed, Sampling
from ..decoding.decode import decode
from .clips import CORNERS, MARGINS, Odd

_SEGMENTS, _SIDE, _RATE = 4, 96, 16_000
_COLOUR = 12  # levels by which a colour may be off after lossy compression
_GREY = 7
_PITCH = 0.03
_SECONDS = 0.12  # by which the sound may be longer or shorter: encoders pad it to whole frames


def faults_of_decoding(odd: Odd) -> list[str]:
    """What this machine's decoder gets wrong about a clip, in clauses; empty where all is right."""
    need, sound = FrameNeed(segments=_SEGMENTS, size=_SIDE, resize="squash"), AudioNeed(_RATE)
    try:
        decoded = decode(odd.source, odd.name, [need, sound], Sampling())
    except DecodeError as error:
        return [str(error).rstrip(".")]
    except Exception as error:  # A codec's wrapper may raise anything.
        return [f"{type(error).__name__}: {error}"]
    faults = list(decoded.notes)
    if need in decoded.frames:
        faults += _faults_of_pictures(decoded.frames[need][:, 0].astype(float), odd)
    else:
        faults.append("no picture is decoded")
    if sound in decoded.audio:
        faults += _faults_of_sound(decoded.audio[sound], odd)
    else:
        faults.append("no sound is decoded")
    return faults


def expected_greys(odd: Odd) -> list[float]:
    """The greys at bottom right of the frames on screen at the centres of four equal parts of the clip."""
    low, high = MARGINS
    shown = [t / 1000 for t in odd.times]
    centres = [(2 * part + 1) / (2 * _SEGMENTS) * odd.seconds for part in range(_SEGMENTS)]
    times = [shown[bisect_right(shown, centre) - 1] for centre in centres]
    return [low + (high - low) * time / odd.seconds for time in times]


def _faults_of_pictures(frames: np.ndarray, odd: Odd) -> list[str]:
    """The clauses about frames [T, S, S, 3]."""
    quarter = _SIDE // 2
    middle = slice(quarter // 4, quarter - quarter // 4)
    found = {
        (y, x): frames[:, y * quarter :, x * quarter :][:, middle, middle].mean((1, 2))
        for y in (0, 1)
        for x in (0, 1)
    }
    colours = np.stack([found[place][0] for place in ((0, 0), (0, 1), (1, 0))])
    faults = []
    off = float(np.abs(colours - np.array(CORNERS)).max())
    if off > _COLOUR:
        upright = [np.stack([found[p][0] for p in places]) for places in _TURNED]
        if any(np.abs(turned - np.array(CORNERS)).max() <= _COLOUR for turned in upright):
            faults.append("the picture is not turned upright")
        else:
            faults.append(f"colours are off by {off:.0f} of 255 levels")
    greys, expected = found[1, 1].mean(1), np.array(expected_greys(odd))
    if not faults and len(greys) == len(expected) and np.abs(greys - expected).max() > _GREY:
        faults.append(
            f"frames of other times come out (greys {_numbers(greys)} where {_numbers(expected)} belong)"
        )
    return faults


# Where the colours of top left, top right and bottom left lie in a picture that is turned by 90, 180 and 270 degrees.
_TURNED = (
    ((0, 1), (1, 1), (0, 0)),
    ((1, 1), (1, 0), (0, 1)),
    ((1, 0), (0, 0), (1, 1)),
)


def _faults_of_sound(samples: np.ndarray, odd: Odd) -> list[str]:
    """The clauses about mono samples [n]."""
    faults = []
    if abs(len(samples) / _RATE - odd.seconds) > _SECONDS:
        faults.append(f"the sound lasts {len(samples) / _RATE:.2f} s, not {odd.seconds:.2f} s")
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    hertz = float(spectrum.argmax()) * _RATE / max(len(samples), 1)
    if abs(hertz / odd.hertz - 1) > _PITCH:
        faults.append(f"the tone has {hertz:.0f} Hz, not {odd.hertz:.0f} Hz")
    return faults


def _numbers(values: np.ndarray) -> str:
    return ", ".join(f"{value:.0f}" for value in values)
