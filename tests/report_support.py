"""A small study for the tests of reports: every kind of run that has a section of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests_support import synthetic_cache

from fsmm.cache.thumbnails import add_thumbnails
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.runs.store import load_run, save_run

TASK = Protocol(n_query=4, k_shot=2)
BRIEF = {"train.steps": "4", "train.evaluate_every": "2", "train.evaluate_episodes": "10"}
SECTIONS = (
    *(
        "runs",
        "shots",
        "matrix",
        "missing",
        "stress",
        "carried",
        "classes",
        "confusion",
        "reliability",
        "cost",
        "seeds",
    ),
    *("learning", "map", "made-of", "failed"),
)


def make_study(root: Path) -> Path:
    """Make a cache and a folder of runs with something for every section, and return the folder of runs."""
    cache = synthetic_cache(root / "cache", noise=1.5)
    add_thumbnails(cache / "toy", {f"clip{number}": b"no picture, but bytes" for number in range(24 * 18)})
    study = root / "study"

    def make(name: str, *, reliability: bool = False, **given: Any) -> None:
        spec = RunSpec(**{"method": "protonet", "protocol": TASK, **given})
        place = Place(cache=cache, dataset="toy", out=study / name)
        run(Job(spec=spec, place=place, episodes=60, reliability=reliability))

    for modality in ("frame", "audio"):
        make(f"protonet-{modality}", modalities=(modality,))
    make("protonet-lf", fusion="lf", reliability=True)
    make("protonet-lf-1", fusion="lf", protocol=replace(TASK, k_shot=1))
    make("nearest-frame", method="nearest", modalities=("frame",))
    make("bdcspn-frame", method="bdcspn", modalities=("frame",))
    uneven = (("two-classes", replace(TASK, query_classes=2)), ("dirichlet", replace(TASK, dirichlet=1.0)))
    for name, protocol in uneven:
        make(name, method="bdcspn", modalities=("frame",), protocol=protocol)
    for seed in (0, 1):
        make(f"relation-{seed}", method="relation", modalities=("frame",), settings=BRIEF, train_seed=seed)
    for rate in (0.5, 1.0):
        missing = (Missing("audio", rate, "query"),)
        make(f"missing-{rate}", fusion="lf", protocol=replace(TASK, missing=missing))
    cross = replace(TASK, support_modalities=("frame",), query_modalities=("frame",))
    make("cross-same", fusion="lf", protocol=cross)
    _copy(study / "cross-same", study / "cross-other", {"query_modalities": ["audio"]}, accuracy=0.25)
    (study / "damaged").mkdir()
    (study / "damaged" / "config.json").write_text("{")
    return study


def _copy(source: Path, target: Path, protocol: Mapping[str, Any], **figures: float) -> None:
    """Write the run at ``source`` once more with some values of its protocol and some figures changed."""
    config, metrics, arrays = load_run(source)
    config["protocol"] |= protocol
    save_run(target, config, {**metrics, **figures}, arrays)


def made_up(source: Path, folder: Path, runs: int) -> None:
    """Write many runs that are that at ``source`` with other figures, settings and shots, with digests of their own."""
    config, metrics, arrays = load_run(source)
    for number in range(runs):
        light = {**config, "settings": {"scale": str(1 + number // 5)}}
        light["protocol"] = {**config["protocol"], "k_shot": (1, 2, 3, 5, 10)[number % 5]}
        figures = {**metrics, "accuracy": 0.2 + 0.8 * number / runs, "eval_seconds": 0.1 + number}
        save_run(folder / f"run-{number:03d}", light, figures, arrays)
