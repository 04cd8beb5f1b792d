"""The loop that one would write without fsmm: a clip is decoded by OpenCV, encoded, and saved as .npy; then the next.

The encoders are the same objects, so that what differs is how they are fed: one process does one step after another,
with torch's usual number of threads and, on a GPU, in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plain_loop(sources: Mapping[str, Any], encoders: Sequence[Any], segments: int, out: Path) -> int:
    """Extract every clip, and return how many frames the encoders were given."""
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for number, source in enumerate(sources.values()):
        pictures = frames_of(source.video)
        for encoder in encoders:
            raw = _input(encoder, source.video, pictures, segments)
            if raw is None:
                continue
            prepared = encoder.prepare(raw)
            if hasattr(encoder, "gpu_items"):
                encoder.gpu_items = 1 if encoder.cpu_items == 1 else len(prepared)
            (features,) = encoder.encode([prepared])
            np.save(out / f"{number:06d}-{encoder.name}.npy", features)
            count += raw.shape[0] * raw.shape[1] if raw.ndim == 5 else 0
    return count


def frames_of(video: Path) -> list[np.ndarray]:
    """All frames of a video, in OpenCV's order of colours."""
    import cv2

    capture = cv2.VideoCapture(str(video))
    frames: list[np.ndarray] = []
    while True:
        is_read, frame = capture.read()
        if not is_read:
            capture.release()
            return frames
        frames.append(frame)


def _input(encoder: Any, video: Path, pictures: list[np.ndarray], segments: int) -> np.ndarray | None:
    need = encoder.need
    if hasattr(need, "rate"):
        return _sound(video, need.rate)
    count = segments if need.segments is None else need.segments
    centres = ((np.arange(count) + 0.5) * len(pictures) / count).astype(np.int64)
    steps = (np.arange(need.length) - need.length // 2) * need.stride
    places = np.clip(centres[:, None] + steps, 0, len(pictures) - 1)
    chosen = {int(i): _square(pictures[i], need.size) for i in np.unique(places)}
    return np.stack([np.stack([chosen[int(i)] for i in row]) for row in places])


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    """The picture in RGB, its short side brought to ``size``, and its centre cut out."""
    import cv2

    high, wide = picture.shape[:2]
    scale = size / min(high, wide)
    shape = (max(round(wide * scale), size), max(round(high * scale), size))
    scaled = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
    top, left = (scaled.shape[0] - size) // 2, (scaled.shape[1] - size) // 2
    return np.ascontiguousarray(scaled[top : top + size, left : left + size, ::-1])


def _sound(video: Path, rate: int) -> np.ndarray | None:
    """The sound as mono float32 at this rate; None where there is none, or too little of it."""
    import av

    with av.open(str(video)) as file:
        if not file.streams.audio:
            return None
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    sound = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return sound if len(sound) >= rate // 2 else None
