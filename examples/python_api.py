"""From a folder of videos to a figure, in Python: extract once, evaluate by modality, draw.

    python examples/python_api.py

The videos are made on the spot: a square moves in one of four directions while one of four tones sounds, and a class is
a direction with a tone, so that neither the motion nor the sound is enough alone. The two encoders used here are
classical descriptors without weights (`fsmm encoders` lists the networks). Needs the extras ``extract`` and ``report``.
Everything is written below the current directory, in ``python-api/``.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import matplotlib
import numpy as np

import fsmm
from fsmm.extract.contract import Sampling
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.runs.run import Run

HOME = Path("python-api")
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
TONES = {"low": 220.0, "middle": 440.0, "high": 880.0, "shrill": 1760.0}
CLIPS, FRAMES, FPS, SIDE, RATE = 6, 12, 12, 64, 16_000


def make_videos(folder: Path) -> None:
    """One folder a class, ``CLIPS`` videos of one second in each."""
    rng = np.random.default_rng(0)
    for direction, step in DIRECTIONS.items():
        for tone, hertz in TONES.items():
            place = folder / f"{direction} {tone}"
            place.mkdir(parents=True, exist_ok=True)
            for clip in range(CLIPS):
                write_video(place / f"{clip}.mp4", pictures(step, rng), sound(hertz, rng))


def pictures(step: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """RGB frames uint8 [FRAMES, SIDE, SIDE, 3]: a bright square that moves over a noisy ground."""
    ground = rng.integers(0, 60, (SIDE, SIDE, 1))
    frames = np.repeat(np.repeat(ground[None], FRAMES, 0), 3, -1).astype(np.uint8)
    start = rng.integers(0, SIDE, 2)
    for number, frame in enumerate(frames):
        y, x = (start + 3 * number * np.array(step)) % (SIDE - 16)
        frame[y : y + 16, x : x + 16] = 220
    return frames


def sound(hertz: float, rng: np.random.Generator) -> np.ndarray:
    """A second of a tone that is a little off, in noise: float32 [RATE]."""
    time = np.arange(RATE) / RATE
    tone = 0.4 * np.sin(2 * np.pi * hertz * rng.uniform(0.9, 1.1) * time)
    return (tone + 0.1 * rng.normal(size=RATE)).astype(np.float32)


def write_video(path: Path, frames: np.ndarray, samples: np.ndarray) -> None:
    """Write an MPEG-4 file with AAC sound."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=FPS)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        audio = file.add_stream("aac", rate=RATE, layout="mono")
        for frame in frames:
            file.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(video.encode())
        for first in range(0, len(samples), 1024):
            part = av.AudioFrame.from_ndarray(
                samples[None, first : first + 1024], format="fltp", layout="mono"
            )
            part.sample_rate, part.pts, part.time_base = RATE, first, Fraction(1, RATE)
            file.mux(audio.encode(part))
        file.mux(audio.encode())


def draw(runs: dict[str, Run], path: Path) -> None:
    """Bars of the accuracies with their intervals over episode draws, as an SVG file."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3), layout="constrained")
    accuracy = [100 * run.mean for run in runs.values()]
    interval = [100 * (run.metrics["ci95"] or 0) for run in runs.values()]
    axes.bar(list(runs), accuracy, yerr=interval, capsize=4, color="#4a7a96")
    axes.axhline(20, color="grey", linestyle=":", label="chance")
    axes.set(ylabel="accuracy, %", title="5-way 1-shot, novel classes")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Run the steps one after another."""
    make_videos(HOME / "videos")

    # 1. Decode and encode every clip once. Run it again, and it does only what is missing.
    report = fsmm.extract(
        "folder",
        data=HOME / "videos",
        cache=HOME / "cache",
        streams=["flow/dis-hof", "audio/logmel-mfcc"],
        options=DatasetOptions(split_sizes=(4, 2, 10)),
        sampling=Sampling(segments=4),
        quiet=True,
    )
    print(report.summary())

    # 2. Evaluate one method on the same 500 tasks, with each modality alone and with both. Descriptors that share a
    #    large mean are centred by the base classes' mean before they are compared.
    protocol = fsmm.Protocol(n_way=5, k_shot=1, n_query=4)
    runs = {}
    for modalities in (["flow"], ["audio"], ["flow", "audio"]):
        runs[" + ".join(modalities)] = fsmm.episode_eval(
            "protonet",
            cache=HOME / "cache",
            protocol=protocol,
            episodes=500,
            modalities=modalities,
            fusion="ec" if len(modalities) > 1 else None,
            normalise="centre-l2",
        )
    for name, run in runs.items():
        width = run.metrics["ci95"]  # None where every episode has the same accuracy, such as 100 %.
        print(
            f"{name}: {100 * run.mean:.1f} %",
            "" if width is None else f"± {100 * width:.1f} over episode draws",
        )

    # 3. Every run is a folder with its configuration and the accuracy of every episode.
    print("kept in", runs["flow + audio"].out)
    draw(runs, HOME / "accuracy.svg")
    print("drawn in", HOME / "accuracy.svg")


if __name__ == "__main__":
    main()
