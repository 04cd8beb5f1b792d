"""Two hundred ProtoNet-class runs as one sweep, beside a sample of the same runs as commands of their own.

    python -m benchmarks.sweep [--cache DIR --dataset NAME] [--sample 10]

The grid is methods x modalities x shots x protocols x seeds, 1,000 episodes a run. Without a cache, one is made of 24
classes of 60 clips in two streams of 512 numbers. The commands' time is that of the sample, times the number of runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmm.cache.catalog import Catalog, LabelSet, draw_split
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.machine.cores import default_workers
from fsmm.studies.grid.store import Study, read_study

from .table import Row, cpu_seconds, print_rows

STUDY = """\
name: bench
fixed: {episodes: 1000}
blocks:
  - name: grid
    grid:
      method: [protonet, nearest, simpleshot, matching]
      modalities: [each, all]
      k_shot: [1, 5]
      n_query: [5, 15]
      seed: [0, 1, 2, 3]
  - name: late
    fixed: {method: protonet, fusion: lf, k_shot: 5}
    grid:
      seed: [0, 1, 2, 3, 4, 5, 6, 7]
"""
RUNS = 200
_CLASSES, _CLIPS, _DIM = 24, 60, 512


def make_cache(cache: Path) -> None:
    """Make the data set "bench"."""
    rng = np.random.default_rng(0)
    label = np.arange(_CLASSES * _CLIPS) % _CLASSES
    ids = [f"clip{i:05d}" for i in range(len(label))]
    split = draw_split(_CLASSES, base=8, val=4, novel=12, seed=0)
    labels = LabelSet([f"class {k}" for k in range(_CLASSES)], label, splits={"default": split})
    Catalog("bench", ids, {"class": labels}, "class", attrs={"synthetic": "yes"}).write(cache / "bench")
    for modality in ("frame", "audio"):
        centres = 0.2 * rng.standard_normal((_CLASSES, _DIM))
        with StreamWriter(cache / "bench", Provenance("synthetic", modality, _DIM)) as writer:
            for clip, k in zip(ids, label):
                writer.add(clip, centres[k] + rng.standard_normal((4, _DIM)))


@dataclass(frozen=True)
class Spent:
    """The seconds that commands took, by the clock and of processor time."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} s, {self.cpu:.1f} s of processor time"


def fsmm(*words: str | Path) -> Spent:
    """What a command takes."""
    began, worked = time.perf_counter(), cpu_seconds()
    line = [sys.executable, "-m", "fsmm", "--quiet", *map(str, words)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return Spent(time.perf_counter() - began, cpu_seconds() - worked)


def run(cache: Path | None = None, dataset: str = "bench", *, sample: int = 10) -> list[Row]:
    """The rows of the sweep, of the same sweep once more, and of its runs as commands."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if cache is None:
            cache = folder / "cache"
            make_cache(cache)
        (folder / "bench.yaml").write_text(STUDY)
        words = (
            "sweep",
            folder / "bench.yaml",
            "--cache",
            cache,
            "--dataset",
            dataset,
            "--out",
            folder / "out",
        )
        swept, again = fsmm(*words), fsmm(*words)
        found = read_study(folder / "out")
        if len(found.done) != RUNS:
            raise RuntimeError(f"{len(found.done)} of {RUNS} runs are done")
        alone = _alone(found, folder, sample)
    jobs = default_workers()
    return [
        Row(f"{RUNS} runs as one sweep, {jobs} at a time: {swept}", RUNS / swept.wall, "runs/s"),
        Row(f"the same sweep again: {again}", RUNS / again.wall, "runs/s"),
        Row(
            f"as commands, one after another: {alone} for all, by {sample} of them",
            RUNS / alone.wall,
            "runs/s",
            "sweep",
            swept.wall / alone.wall,
        ),
    ]


def _alone(found: Study, folder: Path, sample: int) -> Spent:
    """What all runs would take as commands of their own, by a sample of runs that is spread over the study."""
    rows = found.rows[:: max(len(found.rows) // sample, 1)][:sample]
    spent = [
        fsmm("episode-eval", "--config", found.run_folder(row) / "config.json", "--out", folder / row.key)
        for row in rows
    ]
    scale = RUNS / len(spent)
    return Spent(scale * sum(each.wall for each in spent), scale * sum(each.cpu for each in spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--dataset", default="bench")
    parser.add_argument("--sample", type=int, default=10)
    chosen = parser.parse_args()
    print_rows("Sweep", run(chosen.cache, chosen.dataset, sample=chosen.sample))


if __name__ == "__main__":
    main()
