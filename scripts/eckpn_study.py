r"""What each part of ECKPN adds after training, and where ECKPN stands beside ProtoNet, as rows of docs/results.

    python scripts/eckpn_study.py --dataset ave28 --cache CACHE --class-split s0 --shots 1,5 --seeds 0,1 \
        --set train.steps=100 --table NAME

Every variant is trained with the same number of steps and read on the same episodes, once for each seed of training.
Rows have the accuracy in per cent, the paired difference to the complete head of the same seed (of the complete and the
untrained head to ProtoNet) and its interval over clips. They are printed as one JSON list.
"""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsmm.episodes.protocol import Protocol
from fsmm.runs.job import Job, Place
from fsmm.runs.run import Run, run
from fsmm.runs.spec import RunSpec
from fsmm.studies.compare import compare

UNTRAINED, COMPLETE = "untrained", "complete"
VARIANTS: dict[str, dict[str, str]] = {
    UNTRAINED: {"train.steps": "0"},
    COMPLETE: {},
    "without squeeze": {"squeeze": "false"},
    "without calibration": {"calibration": "false"},
    "without words": {"words": "false"},
    "without multi-head relations": {"heads": "0"},
    "without the adjacency loss": {"adjacency_weight": "0"},
    "without the assignment loss": {"assignment_weight": "0"},
    "without all of these": {
        "squeeze": "false",
        "calibration": "false",
        "heads": "0",
        "adjacency_weight": "0",
        "assignment_weight": "0",
    },
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A run and what it is compared with."""

    row: str
    shots: int
    seed: int
    made: Run
    beside: Run


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--dataset", required=True)
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--modalities", type=lambda t: tuple(t.split(",")), default=("frame", "audio"))
    options.add_argument("--label-set")
    options.add_argument("--class-split", default="default")
    options.add_argument("--shots", type=_numbers, default=[1, 5])
    options.add_argument("--seeds", type=_numbers, default=[0, 1], help="the seeds of training")
    options.add_argument("--episodes", type=int, default=1000)
    options.add_argument(
        "--set", action="append", default=[], help="a key=value of every variant; repeatable"
    )
    options.add_argument("--variants", type=lambda t: t.split(","), default=list(VARIANTS))
    options.add_argument("--table", required=True, help="the name of the table that the rows are for")
    options.add_argument("--out", type=Path, default=Path("runs/eckpn"))
    given = options.parse_args()
    rows = [figure(given, cell) for shots in given.shots for cell in cells(given, shots)]
    print(json.dumps(rows, indent=0))


def cells(given: argparse.Namespace, shots: int) -> list[Cell]:
    """The runs of all variants and seeds at one number of shots."""
    own = dict(text.split("=", 1) for text in given.set)
    joined = {key: value for key, value in own.items() if key.startswith("fusion.")}
    beside = run(job(given, shots, seed=0, method="protonet", settings=joined))
    found = []
    for seed in given.seeds:
        complete: Run | None = None
        for row in given.variants:
            if row == UNTRAINED and seed != given.seeds[0]:
                continue
            made = run(job(given, shots, seed=seed, method="eckpn", settings={**own, **VARIANTS[row]}))
            complete = made if row == COMPLETE else complete
            other = beside if complete is None or row == COMPLETE else complete
            found.append(Cell(row=row, shots=shots, seed=seed, made=made, beside=other))
    return found


def job(given: argparse.Namespace, shots: int, *, seed: int, method: str, settings: dict[str, str]) -> Job:
    """The job of one run, in a folder of its own."""
    protocol = Protocol(
        k_shot=shots, label_set=given.label_set, class_split=given.class_split, small_classes="exclude"
    )
    spec = RunSpec(
        method=method,
        protocol=protocol,
        modalities=given.modalities,
        settings=settings,
        train_seed=seed,
    )
    place = Place(cache=given.cache, dataset=given.dataset, device="cpu")
    place = replace(place, out=given.out / given.dataset / f"{method}-{spec.digest()}")
    return Job(spec=spec, place=place, episodes=given.episodes)


def figure(given: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    """One row of docs/results: the accuracy, the paired difference and its interval over clips."""
    (pair,) = compare([cell.made.out, cell.beside.out]).pairs
    width = None if pair.clips is None or pair.clips.ci95 is None else round(100 * pair.clips.ci95, 1)
    return {
        "page": "ablations",
        "table": given.table,
        "row": cell.row,
        "column": f"{cell.shots}-shot",
        "part": None,
        "details": str(cell.seed),
        "value": round(100 * cell.made.mean, 1),
        "unit": "%",
        "interval": None,
        "interval_over": "clips",
        "difference": round(100 * pair.difference, 1),
        "difference_interval": width,
        "episodes": given.episodes,
        "command": command(given, cell),
        "commit": None,
        "note": None,
        "run": None,
    }


def command(given: argparse.Namespace, cell: Cell) -> str:
    """What gives the run of a cell again."""
    settings = cell.made.metrics["settings"]
    words = ["fsmm", "episode-eval", "--dataset", given.dataset, "--method", "eckpn"]
    words += ["--modalities", ",".join(given.modalities), "--class-split", given.class_split]
    words += ["--label-set", given.label_set] if given.label_set else []
    words += ["--k-shot", str(cell.shots), "--small-classes", "exclude", "--train-seed", str(cell.seed)]
    words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return f"{shlex.join(words)} --episodes {given.episodes} --cache CACHE"


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
