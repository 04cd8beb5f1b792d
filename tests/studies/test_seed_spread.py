"""The spread over seeds of training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache

from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.machine.tensors import load_tensors
from fsmm.runs.extent import Auto
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.studies.seed_spread import seed_spread


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=1.5)


def job_of(cache: Path, out: Path, **given: object) -> Job:
    """A job over the toy data set: ProtoNet on 60 episodes of 4 queries a class, with ``given`` of its spec changed."""
    spec = RunSpec(**{"method": "protonet", "protocol": Protocol(n_query=4), **given})
    return Job(spec=spec, place=Place(cache=cache, dataset="toy", out=out), episodes=60)


def test_seeds_of_training_are_a_spread_of_their_own(cache: Path, tmp_path: Path) -> None:
    brief = {"train.steps": "4", "train.evaluate_every": "2", "train.evaluate_episodes": "10"}
    given = {"method": "relation", "fusion": "ec", "settings": brief}
    runs = seed_spread(job_of(cache, tmp_path / "s", **given), 3)
    stored = json.loads((tmp_path / "s" / "seeds.json").read_text())
    means = [r.accuracy.mean(dtype=np.float64) for r in runs]
    assert stored["seeds"] == [0, 1, 2]
    assert stored["sd_over_seeds"] == pytest.approx(np.std(means, ddof=1))
    of_seeds = np.std(means, ddof=1) / np.sqrt(3)
    assert stored["mean_ci95_clips"] > of_seeds  # It counts seeds and clips.
    first, again = (torch.cat([*load_weights(tmp_path / "s" / n)]) for n in ("seed-0", "seed-1"))
    assert not torch.equal(first, again)
    alone = run(job_of(cache, tmp_path / "alone", train_seed=2, **given))
    assert np.array_equal(alone.accuracy, runs[2].accuracy)
    for other, seeds, sentence in (("protonet", 2, "nothing to train"), ("relation", 1, "at least 2")):
        with pytest.raises(UsageError, match=sentence):
            seed_spread(job_of(cache, tmp_path / other, method=other, fusion="ec"), seeds)


def test_the_first_seed_decides_how_many_episodes_all_have(cache: Path, tmp_path: Path) -> None:
    brief = {"train.steps": "2", "train.evaluate_every": "2", "train.evaluate_episodes": "10"}
    job = job_of(cache, tmp_path / "s", method="relation", fusion="ec", settings=brief)
    runs = seed_spread(replace(job, episodes=Auto(1.5)), 2)
    assert 100 * runs[0].metrics["ci95"] <= 1.5
    assert len(runs[0].accuracy) == len(runs[1].accuracy)


def load_weights(folder: Path) -> list[torch.Tensor]:
    return [t.flatten().float() for t in load_tensors(folder / "head.safetensors")[0].values()]
