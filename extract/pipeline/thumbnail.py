"""The small picture of a clip that reports show: its middle frame, as a JPEG of some 2 kB."""

from __future__ import annotations

from ..contract import Decoded

SIDE = 64
"""The side of the picture in pixels."""
_QUALITY = 70


def thumbnail_of(decoded: Decoded) -> bytes:
    """The JPEG of the frame in the middle of a clip; empty where none was decoded."""
    import cv2

    needs = sorted(decoded.frames, key=lambda need: (need.length, -need.size))
    if not needs or not len(decoded.frames[needs[0]]):
        return b""
    frames = decoded.frames[needs[0]]
    picture = cv2.resize(frames[len(frames) // 2, 0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    written, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes() if written else b""
