"""The choice of a clip's frames: equal parts in time, with a window in each (TSN, Wang et al., ECCV 2016)."""

from __future__ import annotations

import hashlib

import numpy as np

from ...errors import UsageError
from ..contract import FrameNeed, Sampling


def pick_frames(times: np.ndarray, end: int, need: FrameNeed, sampling: Sampling, clip_id: str) -> np.ndarray:
    """The indices int64 [T, L] of the frames that ``need`` wants from a clip.

    times: int64 [n], increasing presentation times in any unit (of equal ones only the last is ever on screen); end:
    the time at which the last frame leaves the screen, in the same unit, > times[-1].

    The span from times[0] to ``end`` is cut into T equal parts. The frame on screen at the centre of each (or at a
    random place) is the middle of a window of L frames, ``stride`` apart. A window that would stick out is
    shifted into the clip; if the clip is shorter than the window, the last frame is repeated.

    Raises UsageError for a position other than "centre" and "random", or counts below one.
    """
    segments = sampling.segments if need.segments is None else need.segments
    if min(segments, need.length, need.stride) < 1:
        raise UsageError(
            "Segments, length and stride must be at least 1; they are "
            f"{segments}, {need.length} and {need.stride}."
        )
    middle = _frames_on_screen(times=times, end=end, segments=segments, sampling=sampling, clip_id=clip_id)
    reach = (need.length - 1) * need.stride
    first = np.clip(middle - (need.length - 1) // 2 * need.stride, 0, max(len(times) - 1 - reach, 0))
    window = first[:, None] + np.arange(need.length) * need.stride
    return np.minimum(window, len(times) - 1)


def _frames_on_screen(
    times: np.ndarray, end: int, segments: int, sampling: Sampling, clip_id: str
) -> np.ndarray:
    """The index [T] of the frame on screen at the chosen instant of each segment."""
    offset = times - times[0]
    span = int(end) - int(times[0])
    if sampling.position == "centre":
        # Both sides are whole numbers, so that an instant exactly at a frame's start takes that frame.
        instant = span * (2 * np.arange(segments, dtype=np.int64) + 1)
        return np.searchsorted(offset * (2 * segments), instant, side="right") - 1
    if sampling.position == "random":
        place = clip_generator(sampling.seed, clip_id).random(segments)
        instants = span * (np.arange(segments) + place) / segments
        return np.searchsorted(offset, instants, side="right") - 1
    raise UsageError(f"Sampling position {sampling.position!r} is not known; use 'centre' or 'random'.")


def clip_generator(seed: int, clip_id: str) -> np.random.Generator:
    """A generator that depends on the seed and the clip's id alone, whatever was drawn before."""
    digest = hashlib.sha256(f"{seed}:{clip_id}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "little")))
