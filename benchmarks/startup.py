"""The time until an evaluation may begin, on synthetic caches of many clips.

    python -m benchmarks.startup [--clips 10000 100000 300000] [--folder DIR]

A cache has two streams of small features (16 numbers a step, one to three steps), 256 clips a shard, a hundred classes
(64 base, 16 val, 20 novel) and ids as a folder of videos gives them. It is made by the writer that extractions and
imports use. Every phase is the median of three; "whole command" is a process of its own, imports included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet, draw_split
from fsmm.cache.index import NAME, stream_index
from fsmm.cache.schema import Provenance, list_streams
from fsmm.cache.stream import StreamWriter
from fsmm.cache.upkeep.verify import verify

from .table import Row, median_seconds, print_rows

CLIPS = (10_000, 100_000, 300_000)
CLASSES, DIM, STEPS = 100, 16, 3
STREAMS = (("frame", "synthetic-a"), ("audio", "synthetic-b"))


def make_cache(cache: Path, clips: int) -> Path:
    """Make the data set "synthetic" of so many clips in ``cache``, and return its folder."""
    rng = np.random.default_rng(0)
    label = np.arange(clips) % CLASSES
    ids = [f"class_{k:03d}/video_{i:07d}.mp4" for i, k in enumerate(label.tolist())]
    split = draw_split(CLASSES, base=64, val=16, novel=20, seed=0)
    labels = LabelSet([f"class_{k:03d}" for k in range(CLASSES)], label, splits={"default": split})
    folder = cache / "synthetic"
    Catalog("synthetic", ids, {"class": labels}, "class", path=ids, attrs={"synthetic": "yes"}).write(folder)
    centres = rng.standard_normal((CLASSES, DIM))
    for modality, encoder in STREAMS:
        with StreamWriter(folder, Provenance(encoder, modality, DIM)) as writer:
            for clip, k in zip(ids, label):
                steps = int(rng.integers(1, STEPS + 1))
                writer.add(clip, centres[k] + rng.standard_normal((steps, DIM)))
    return folder


def phases(cache: Path, clips: int) -> list[Row]:
    """The seconds of each phase of a start-up over a cache of ``make_cache``, as rows of clips a second."""
    folder = cache / "synthetic"
    streams = list_streams(folder)

    def without_index() -> None:
        for stream in streams:
            next(folder.glob(f"streams/{stream}/{NAME}")).unlink(missing_ok=True)
            stream_index(folder, stream)

    command = [
        sys.executable,
        "-m",
        "fsmm",
        "-q",
        "episode-eval",
        "--cache",
        str(cache),
        "--method",
        "protonet-ec",
    ]
    command += ["--episodes", "100", "--out", str(cache / "run")]
    work = {
        "catalog": lambda: Catalog.read(folder),
        "both indices, as they lie": lambda: [stream_index(folder, stream) for stream in streams],
        "both indices, made anew": without_index,
        "novel clips ready": lambda: FeatureBank.load(cache, split="novel"),
        "all clips ready": lambda: FeatureBank.load(cache, split="all"),
        "whole command": lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL),
        "verify": lambda: verify(cache),
    }
    rows = []
    for name, job in work.items():
        seconds = median_seconds(job, 1 if name == "verify" else 3)
        rows.append(Row(f"{name}: {seconds:.2f} s", clips / seconds, "clips/s"))
    return rows


def run(clips: int = CLIPS[0]) -> list[Row]:
    """The rows of one cache that is made for it."""
    with tempfile.TemporaryDirectory() as folder:
        make_cache(Path(folder), clips)
        return phases(Path(folder), clips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=CLIPS)
    parser.add_argument("--folder", type=Path, help="a folder in which the caches are made and kept")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for clips in chosen.clips:
            cache = (chosen.folder or Path(temporary)) / f"startup-{clips}"
            rows = []
            if not cache.is_dir():
                began = time.perf_counter()
                make_cache(cache, clips)
                seconds = time.perf_counter() - began
                rows = [Row(f"written: {seconds:.2f} s", clips / seconds, "clips/s")]
            print_rows(f"Start-up over {clips:,} clips in two streams", rows + phases(cache, clips))


if __name__ == "__main__":
    main()
