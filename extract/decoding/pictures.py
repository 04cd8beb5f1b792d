"""The conversion of a decoded frame to a square RGB picture that is upright, in its display shape, well filtered."""

from __future__ import annotations

from typing import Any

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Interpolation, VideoReformatter

from ...errors import UsageError
from ..contract import FrameNeed

# Bicubic widens its kernel when it shrinks, so it does not alias; the flags cost little and round properly.
_QUALITY = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Above this ratio of the sides a frame is cropped before scaling, which would otherwise need much memory.
_LONGEST_SHAPE = 4.0
# These matrices to RGB are known to FFmpeg's scaler, which refuses frames marked with others (reserved numbers, YCgCo,
# ICtCp ...). Such frames are converted as if they were not marked, and constant luminance as if it were not constant.
_UNSPECIFIED, _BT2020, _BT2020_CONSTANT = 2, 9, 10
_CONVERTIBLE = {0, 1, _UNSPECIFIED, 4, 5, 6, 7, _BT2020}
# A turn (a, b, c, d) of -1, 0 and 1: the pixel stored at (x, y) is shown at (a x + c y, b x + d y), but for a shift.
Turn = tuple[int, int, int, int]
UPRIGHT: Turn = (1, 0, 0, 1)


def _unnamed(kinds: type[SideDataType], number: Any) -> SideDataType:
    """A member for a kind of side data that FFmpeg attaches to frames and PyAV has no name for."""
    member = object.__new__(kinds)
    member._name_, member._value_ = f"KIND_{number}", number
    return member


# PyAV's enumeration lags behind FFmpeg's (EXIF, depth and stereo are missing in PyAV 18; PyAV-Org/PyAV#2392), and one
# kind without a name makes all side data of a frame unreadable, its display matrix included.
setattr(SideDataType, "_missing_", classmethod(_unnamed))  # noqa: B010 (mypy forbids a plain assignment)


class Painter:
    """The maker of the pictures of one FrameNeed, which keeps the scaler's tables from frame to frame.

    Raises UsageError for a size below 1 or an unknown resize.
    """

    def __init__(self, need: FrameNeed) -> None:
        if need.size < 1:
            raise UsageError(f"Frame size {need.size} is not possible; use 1 or more.")
        if need.resize not in ("crop", "squash"):
            raise UsageError(f"Resize {need.resize!r} is not known; use 'crop' or 'squash'.")
        self._size = need.size
        self._crop = need.resize == "crop"
        self._scaler = VideoReformatter()

    def paint(self, frame: VideoFrame, turn: Turn = UPRIGHT, pixel_shape: float = 1.0) -> np.ndarray:
        """The picture of a frame, RGB uint8 [S, S, 3]. ``pixel_shape``: width over height of one stored pixel."""
        if frame.colorspace not in _CONVERTIBLE:
            frame.colorspace = _BT2020 if frame.colorspace == _BT2020_CONSTANT else _UNSPECIFIED
        if not self._crop:
            return _turned(self._scaled(frame, self._size, self._size), turn)
        wide, high = frame.width * pixel_shape, float(frame.height)
        if max(wide, high) > _LONGEST_SHAPE * min(wide, high):
            frame, wide, high = _middle(frame, pixel_shape), 1.0, 1.0
        short = min(wide, high)
        # At least one of the two scaled sides is the size itself.
        columns, rows = (max(round(self._size * side / short), self._size) for side in (wide, high))
        left, top = (columns - self._size) // 2, (rows - self._size) // 2
        picture = self._scaled(frame, columns, rows)
        return _turned(picture[top : top + self._size, left : left + self._size], turn)

    def _scaled(self, frame: VideoFrame, columns: int, rows: int) -> np.ndarray:
        scaled = self._scaler.reformat(
            frame, width=columns, height=rows, format="rgb24", interpolation=_QUALITY, threads=1
        )
        return scaled.to_ndarray()


def turning(frame: VideoFrame) -> Turn | None:
    """The turn of the display matrix that a frame bears; None if it bears none.

    Turns other than by quarters (with or without mirroring) are replaced by the nearest of those.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    matrix = np.frombuffer(bytes(data), np.int32)
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
    return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0


def shown_size(frame: VideoFrame, turn: Turn) -> tuple[int, int]:
    """The frame's width and height in pixels after the turn."""
    return (frame.width, frame.height) if turn[0] != 0 else (frame.height, frame.width)


def _turned(picture: np.ndarray, turn: Turn) -> np.ndarray:
    a, b, c, d = turn
    if a == 0:
        picture, a, d = picture.transpose(1, 0, 2), c, b
    if a < 0:
        picture = picture[:, ::-1]
    if d < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _middle(frame: VideoFrame, pixel_shape: float) -> VideoFrame:
    """The central part of a very long or very high frame, square as displayed."""
    picture = frame.to_ndarray(format="rgb24")
    rows, columns = picture.shape[:2]
    keep_rows = min(rows, max(1, round(columns * pixel_shape)))
    keep_columns = min(columns, max(1, round(rows / pixel_shape)))
    top, left = (rows - keep_rows) // 2, (columns - keep_columns) // 2
    part = np.ascontiguousarray(picture[top : top + keep_rows, left : left + keep_columns], np.uint8)
    return VideoFrame.from_ndarray(part, format="rgb24")
