"""The clips that fsmm carries with it: five odd ones for decoders and a labelled handful for encoders.

They lie beside this file, below a megabyte in all, and were made by ``scripts/built_in_clips.py``. Nothing is encoded
on the machine where fsmm runs, so that everybody decodes the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..datasets.base import Source

FOLDER = Path(__file__).parent / "clips"
CORNERS = ((200, 40, 40), (40, 160, 60), (50, 70, 190))
"""The colours at top left, top right and bottom left of the odd clips."""
MARGINS = (40, 210)
"""The grey at bottom right of the odd clips, at their beginning and at their end; it rises with time."""


@dataclass(frozen=True)
class Odd:
    """A clip that decoders get wrong."""

    name: str
    """The name of the clip, which says what is odd."""
    file: str
    """The name of its file."""
    codecs: str
    """The codecs of its picture and of its sound."""
    hertz: float
    """The pitch of its tone."""
    seconds: float = 1.0
    """Its length."""
    times: tuple[int, ...] = tuple(1000 * i // 12 for i in range(12))
    """The times of its frames in milliseconds."""

    @property
    def source(self) -> Source:
        """The file as the decoder takes it."""
        return Source(video=FOLDER / self.file)


ODD = (
    Odd("rotated", "rotated.mp4", "H.264, AAC", hertz=440.0),
    Odd(
        "variable",
        "variable.webm",
        "VP9, Opus",
        hertz=660.0,
        times=(0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 480, 780, 917),
    ),
    Odd("ten-bit", "ten-bit.mkv", "HEVC at 10 bits, FLAC", hertz=550.0),
    Odd("odd-sound", "odd-sound.mkv", "MPEG-4, PCM of 8 bits and 3 channels at 11,025 Hz", hertz=880.0),
    Odd("short", "short.mp4", "AV1, MP3", hertz=770.0, seconds=1 / 3, times=(0, 83, 166, 250)),
)

HANDFUL_CLASSES = {
    "checks": ("dog", "cat", "horse", "cow", "rabbit", "lion"),
    "stripes": ("guitar", "violin", "piano", "trumpet", "flute", "drum"),
    "dots": ("car", "truck", "bus", "motorcycle", "bicycle", "van"),
    "rings": ("bread", "cheese", "soup", "rice", "salad", "cake"),
    "star": ("rain", "snow", "storm", "thunder", "wind", "fog"),
    "crosses": ("running", "jumping", "walking", "climbing", "swimming", "dancing"),
}
"""The classes of the labelled handful by their patterns, each with the words that encoders of words are tried on."""


def handful() -> list[tuple[str, Source]]:
    """The clips of the labelled handful with their classes, in the order of the classes."""
    return [
        (name, Source(video=path))
        for name in HANDFUL_CLASSES
        for path in sorted(FOLDER.glob(f"{name}-*.mp4"))
    ]
