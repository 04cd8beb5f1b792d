"""The most memory that an extraction takes, all processes together: of few clips, of many, and of one long video.

    python -m benchmarks.extract_memory [--clips 1000] [--hours 3]

What waits between the stages is bounded by its bytes, so that four times as many clips take no more; of a long video
only the frames that the encoders read are kept, and of its sound the first ten minutes (``--max-seconds``).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .watch import Watch

Row = dict[str, Any]
_STREAMS = ("flow/dis-hof", "audio/logmel-mfcc")
_MADE = 40  # different clips; the others are links to them


def rows_of(clips: int = 1000, hours: float = 3.0) -> Iterator[Row]:
    """Rows with what, clips, peak_mb and seconds, each as soon as it is measured."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for count in (clips // 4, clips):
            yield _measured(f"{count:,} clips", _linked(place, count), place)
        folder = place / "long" / "class0"
        folder.mkdir(parents=True)
        long_video(folder / "long.mp4", hours)
        yield _measured(f"one video of {hours:g} hours", folder.parent, place)


def _measured(what: str, data: Path, place: Path) -> Row:
    import fsmm

    with Watch() as watch:
        report = fsmm.extract("folder", data, place / f"cache-{data.name}", streams=_STREAMS, quiet=True)
    assert report.done == report.clips, report.summary()
    seconds = report.done / report.clips_per_second
    return {"what": what, "clips": report.done, "peak_mb": watch.peak_mb, "seconds": seconds}


def _linked(place: Path, count: int) -> Path:
    """A folder of so many files, which are links to a few demo clips."""
    from fsmm.extract.datasets import load
    from fsmm.extract.datasets.base import DatasetOptions

    (place / "demo").mkdir(exist_ok=True)
    made = list(load("demo", place / "demo", DatasetOptions(small=True, limit=_MADE)).sources.values())
    folder = place / f"clips{count}"
    for number in range(count):
        video = made[number % len(made)].video
        assert video is not None
        home = folder / f"class{number % 4}"
        home.mkdir(parents=True, exist_ok=True)
        os.link(video, home / f"{number:05d}{video.suffix}")
    return folder


def long_video(path: Path, hours: float) -> None:
    """A video of two frames a second, of 160 x 120 pixels, with sound all along."""
    import av

    seconds, rate = int(hours * 3600), 16_000
    with av.open(str(path), "w") as file:
        picture: Any = file.add_stream("libx264", rate=2, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 160, 120, "yuv420p"
        sound: Any = file.add_stream("aac", rate=rate, layout="mono")
        ramp = np.arange(160)[None, :, None] + np.arange(120)[:, None, None]
        tone = np.sin(np.arange(rate) * 0.1).astype(np.float32)[None] * 0.3
        for second in range(seconds):
            for half in range(2):
                pixels = np.repeat((ramp + 2 * second + half) % 256, 3, 2).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                file.mux(picture.encode(frame))
            heard = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = rate, second * rate, Fraction(1, rate)
            file.mux(sound.encode(heard))
        file.mux(picture.encode(None))
        file.mux(sound.encode(None))


def main() -> None:
    """Print the rows."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--clips", type=int, default=1000)
    options.add_argument("--hours", type=float, default=3.0)
    given = options.parse_args()
    for row in rows_of(given.clips, given.hours):
        print(f"{row['what']:28} {row['peak_mb']:8,.0f} MB {row['seconds']:8.1f} s", flush=True)


if __name__ == "__main__":
    main()
