"""The clips that fsmm carries with it are made here, once, and kept as files in extract/built_in/clips.

    python scripts/built_in_clips.py --clips        # write them all anew
    python scripts/built_in_clips.py --reference    # write the features of the encoders that are ready here

Five odd clips show the same picture and differ in what decoders get wrong: the turn of the picture, the times of the
frames, the depth of the colours, the layout and the rate of the sound, a length of 0.3 s. The labelled handful has six
classes of four clips; a class has a pattern, a motion and a sound of its own, and its clips differ in everything else.
Encoders of one version give the same bytes again; other versions give other bytes, so that the files are not made where
fsmm is installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np

from fsmm.extract import encoders
from fsmm.extract.built_in.clips import CORNERS, FOLDER, HANDFUL_CLASSES, MARGINS, ODD, Odd
from fsmm.extract.built_in.encoding import REFERENCE, features_of_handful, reference_key

SIDE, FPS, SECONDS = 128, 12, 1.0
CLIPS_A_CLASS = 4
_ONE_THREAD = {"x264-params": "mbtree=0", "x265-params": "pools=none:frame-threads=1:log-level=none"}


@dataclass(frozen=True)
class Writing:
    """How the file of an odd clip is encoded."""

    video: str
    """The encoder of the pictures."""
    audio: str
    """The encoder of the sound."""
    rate: int = 44_100
    """The rate of the sound in hertz."""
    layout: str = "mono"
    """The channels of the sound."""
    pixels: str = "yuv420p"
    """The format of the pixels."""
    turned: bool = False
    """Whether the picture lies on its side and a display matrix sets it up."""
    options: dict[str, str] = field(default_factory=dict)
    """The options of the encoder of the pictures."""


WRITING = {
    "rotated": Writing("libx264", "aac", turned=True, options={"crf": "20"}),
    "variable": Writing(
        "libvpx-vp9",
        "libopus",
        rate=48_000,
        options={"crf": "24", "b": "0"},
    ),
    "ten-bit": Writing("libx265", "flac", rate=32_000, pixels="yuv420p10le", options={"crf": "20"}),
    "odd-sound": Writing("mpeg4", "pcm_u8", rate=11_025, layout="2.1", options={"qscale": "4"}),
    "short": Writing(
        "libsvtav1",
        "libmp3lame",
        options={"crf": "20", "svtav1-params": "lp=1"},
    ),
}


def odd_picture(share: float, height: int, width: int) -> np.ndarray:
    """The picture uint8 [height, width, 3] of the odd clips after a share of their time."""
    picture = np.zeros((height, width, 3), np.uint8)
    for colour, (y, x) in zip(CORNERS, ((0, 0), (0, 1), (1, 0))):
        picture[y * height // 2 :, x * width // 2 :][: height // 2, : width // 2] = colour
    low, high = MARGINS
    picture[height // 2 :, width // 2 :] = round(low + (high - low) * share)
    return picture


def write_odd(odd: Odd, how: Writing) -> None:
    height, width = 96, 128
    with av.open(str(FOLDER / odd.file), "w", options={"fflags": "+bitexact"}) as file:
        video = file.add_stream(how.video, rate=FPS, options={**_ONE_THREAD, **how.options})
        video.height, video.width = (width, height) if how.turned else (height, width)
        video.pix_fmt, video.codec_context.time_base = how.pixels, Fraction(1, 1000)
        video.codec_context.thread_count = 1
        if how.turned:
            video.set_display_matrix([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30])
        audio = file.add_stream(how.audio, rate=how.rate, layout=how.layout)
        for time in odd.times:
            picture = odd_picture(time / 1000 / odd.seconds, height, width)
            picture = np.ascontiguousarray(np.rot90(picture, 1)) if how.turned else picture
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        t = np.arange(round(odd.seconds * how.rate)) / how.rate
        mux_sound(file, audio, (0.5 * np.sin(2 * np.pi * odd.hertz * t)).astype(np.float32), how)


def mux_sound(
    file: av.container.OutputContainer, audio: av.AudioStream, wave: np.ndarray, how: Writing
) -> None:
    context = audio.codec_context
    resampler = av.AudioResampler(
        format=context.format, layout=how.layout, rate=how.rate, frame_size=context.frame_size or 1024
    )
    frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = how.rate, 0, Fraction(1, how.rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
        file.mux(audio.encode(piece))


Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
_PATTERNS: dict[str, Pattern] = {
    "checks": lambda x, y: np.sin(6 * x) * np.sin(6 * y) > 0,
    "stripes": lambda x, y: np.sin(9 * x) > 0,
    "dots": lambda x, y: (np.mod(1.6 * x, 1) - 0.5) ** 2 + (np.mod(1.6 * y, 1) - 0.5) ** 2 < 0.08,
    "rings": lambda x, y: np.sin(14 * np.hypot(x, y)) > 0,
    "star": lambda x, y: np.hypot(x, y) < 0.5 + 0.25 * np.cos(5 * np.arctan2(y, x)),
    "crosses": lambda x, y: np.minimum(abs(np.mod(1.4 * x, 1) - 0.5), abs(np.mod(1.4 * y, 1) - 0.5)) < 0.09,
}
_MOTIONS: dict[str, Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]] = {
    "checks": lambda x, y, t: (x + t, y),
    "stripes": lambda x, y, t: (x, y + t),
    "dots": lambda x, y, t: (x - t, y),
    "rings": lambda x, y, t: (x / (1 + 0.6 * t), y / (1 + 0.6 * t)),
    "star": lambda x, y, t: (
        x * np.cos(1.2 * t) - y * np.sin(1.2 * t),
        x * np.sin(1.2 * t) + y * np.cos(1.2 * t),
    ),
    "crosses": lambda x, y, t: (x, y - t),
}


def sound(name: str, t: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """The sound of a class, with pitch, pace and level of its own, in [-1, 1]."""
    pitch, pace = 2 ** draws.uniform(-0.4, 0.4), 2 ** draws.uniform(-0.3, 0.3)
    noise = draws.standard_normal(len(t))
    made = {
        "checks": lambda: np.sin(2 * np.pi * 440 * pitch * t),
        "stripes": lambda: noise * (np.sin(2 * np.pi * 4 * pace * t) > 0),
        "dots": lambda: np.sin(2 * np.pi * (300 * t + 700 * pace * t**2) * pitch),
        "rings": lambda: np.where(np.mod(t * 9 * pace, 1) < 0.03, noise, 0.0),
        "star": lambda: np.sin(2 * np.pi * 220 * pitch * t) * (1 + np.sin(2 * np.pi * 7 * pace * t)),
        "crosses": lambda: sum(np.sin(2 * np.pi * 180 * pitch * k * t) / k for k in range(1, 9)),
    }[name]()
    wave = made / np.abs(made).max() + 10 ** -draws.uniform(1.2, 2.0) * draws.standard_normal(len(t))
    return (draws.uniform(0.2, 0.8) * wave / np.abs(wave).max()).astype(np.float32)


def handful_pictures(name: str, draws: np.random.Generator) -> Iterator[np.ndarray]:
    """The pictures uint8 [SIDE, SIDE, 3] of a clip of the handful."""
    axis = np.linspace(-1, 1, SIDE)
    x, y = np.meshgrid(axis, axis)
    scale, angle, shift = draws.uniform(0.75, 1.35), draws.uniform(-0.35, 0.35), draws.uniform(-0.3, 0.3, 2)
    ground, ink = draws.uniform(0, 1, 3), draws.uniform(0, 1, 3)
    ink = ink if abs(ink.mean() - ground.mean()) > 0.25 else 1 - ground.round()
    pace, grain = draws.uniform(0.7, 1.3), draws.normal(0, 0.03, (SIDE, SIDE, 1))
    for frame in range(round(SECONDS * FPS)):
        u, v = _MOTIONS[name](x, y, pace * frame / FPS)
        u, v = (
            scale * (u * np.cos(angle) - v * np.sin(angle)),
            scale * (u * np.sin(angle) + v * np.cos(angle)),
        )
        mask = _PATTERNS[name](u + shift[0], v + shift[1]).astype(float)[..., None]
        yield (255 * np.clip(ground + (ink - ground) * mask + grain, 0, 1)).astype(np.uint8)


def write_handful(name: str, number: int) -> None:
    draws = np.random.default_rng([list(HANDFUL_CLASSES).index(name), number])
    path = FOLDER / f"{name}-{number}.mp4"
    rate = 16_000
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=FPS, options={"crf": "30", "x264-params": "mbtree=0"})
        video.height, video.width, video.pix_fmt = SIDE, SIDE, "yuv420p"
        video.codec_context.thread_count = 1
        audio = file.add_stream("aac", rate=rate, layout="mono")
        audio.codec_context.bit_rate = 32_000
        for picture in handful_pictures(name, draws):
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode(None))
        t = np.arange(round(SECONDS * rate)) / rate
        mux_sound(file, audio, sound(name, t, draws), Writing("libx264", "aac", rate=rate))


def write_reference(names: Sequence[str]) -> None:
    """Write the features of the handful's first clips by the encoders that are ready here, beside those known.

    names: those of the encoders that are measured; all where there are none.
    """
    known = dict(np.load(REFERENCE)) if REFERENCE.is_file() else {}
    for row in encoders.rows():
        if row["state"] != "ready" or (names and row["name"] not in names):
            continue
        encoder = encoders.build(row["name"])
        features = features_of_handful(encoder)
        known[reference_key(encoder)] = features.first.astype(np.float16)
        print(f"{row['name']}: accuracy {features.accuracy():.3f}")
    with open(REFERENCE, "wb") as file:
        np.savez_compressed(file, **known)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--clips", action="store_true", help="write the clips")
    options.add_argument(
        "--reference", nargs="*", metavar="ENCODER", help="write the features of these, or of all"
    )
    given = options.parse_args()
    if given.clips:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for odd in ODD:
            write_odd(odd, WRITING[odd.name])
        for name in HANDFUL_CLASSES:
            for number in range(CLIPS_A_CLASS):
                write_handful(name, number)
    if given.reference is not None:
        write_reference(given.reference)
    files = [*FOLDER.iterdir(), *([REFERENCE] if REFERENCE.is_file() else [])]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files):,} bytes")


if __name__ == "__main__":
    main()
