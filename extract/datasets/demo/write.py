"""The writing of demo clips as files, h264 and AAC in mp4, each of which is whole or absent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from ....machine.files import whole_or_absent
from .plan import Clip
from .render import render
from .sound import sound_of

# Of the presets that take about this time, veryfast makes the smallest files. With mbtree, two encodings of the same
# frames differed on a machine with AVX-512; without it they never did.
_X264 = {"preset": "veryfast", "crf": "23", "x264-params": "mbtree=0"}
_STALE = 3600.0  # seconds after which an unfinished file must be that of a process that was killed


def write_clip(clip: Clip, picture: np.ndarray, folder: Path) -> None:
    """Render one clip to ``folder / clip.path``, whole or not at all.

    picture: its handwriting, uint8 [8, 8], 0 to 16. Raises OSError or av.FFmpegError if the file cannot be
    written, ValueError if this FFmpeg has no encoder for h264 or AAC.
    """
    path = folder / clip.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_absent(path) as beside:
        _encode(clip, picture, beside)


def missing_clips(clips: Sequence[Clip], folder: Path) -> list[Clip]:
    """The clips that have no file in ``folder`` yet."""
    return [clip for clip in clips if not (folder / clip.path).is_file()]


def sweep(folder: Path) -> None:
    """Delete the unfinished files of processes that were killed."""
    for path in folder.glob("*/.*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()
        except OSError:  # Another process was faster, or this one has no right to delete it.
            continue


def _encode(clip: Clip, picture: np.ndarray, path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=clip.fps, options=_X264)
        video.width, video.height, video.pix_fmt = clip.width, clip.height, "yuv420p"
        video.codec_context.thread_count = 1  # Other processes use the other cores.
        sound = container.add_stream("aac", rate=clip.sound_rate, layout="mono") if clip.has_sound else None
        for image in render(clip, picture):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(sound_of(clip)[None], format="fltp", layout="mono")
            samples.sample_rate = clip.sound_rate
            container.mux(sound.encode(samples))
            container.mux(sound.encode())
