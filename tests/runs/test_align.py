"""`--align` is a part of what a run is, and reaches the head through any way of loading."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_support import called

import fsmm
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.runs.shared import SharedBanks
from fsmm.runs.spec import RunSpec


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes told apart by when the feature rises: frames at 8 times, sound at 3."""
    root = tmp_path_factory.mktemp("cache")
    label, rng = np.repeat(np.arange(9), 8), np.random.default_rng(0)
    ids = [f"c{i}" for i in range(len(label))]
    splits = {"default": np.repeat([1, 2, 3], 3)}
    labels = LabelSet([f"k{i}" for i in range(9)], label, splits=splits)
    Catalog("toy", ids, {"s": labels}, "s").write(root / "toy")
    for modality, steps in (("frame", 8), ("audio", 3)):
        times = (np.arange(steps) + 0.5) * 4 / steps
        with StreamWriter(root / "toy", Provenance("net", modality, 4, dtype="float32")) as writer:
            for clip, k in zip(ids, label):
                x = np.stack([np.sin((k + 1) * times + j) for j in range(4)], 1)
                writer.add(clip, x + 0.3 * rng.normal(size=x.shape), {}, times)
    return root


def test_the_option_names_another_run_and_no_option_the_old_one() -> None:
    old = RunSpec(method="otam")
    assert RunSpec(method="otam", align="8").digest() != old.digest()
    assert "align" not in old.content()
    assert RunSpec(method="otam", align="8").training_identity()["align"] == "8"


def test_shared_banks_and_lone_ones_are_aligned_alike(cache: Path) -> None:
    from fsmm.runs.banks import Banks
    from fsmm.runs.job import Place

    spec = RunSpec(method="otam-ec", streams=("frame", "audio"), align="audio", words=None)
    place = Place(cache=cache, dataset="toy", device="cpu")
    alone, shared = Banks(spec, place), Banks(spec, place, SharedBanks())
    for banks in (alone, shared):
        assert [table.steps for table in banks.test.tables.values()] == [3, 3]
        assert [table.steps for table in banks.base.tables.values()] == [3, 3]
    for key, table in alone.test.tables.items():
        assert np.array_equal(table.x, shared.test.tables[key].x)


def test_the_command_takes_it_and_stores_it(cache: Path, tmp_path: Path) -> None:
    words = ("episode-eval", "--method", "otam-ec", "--n-way", 3, "--n-query", 3, "--episodes", 20)
    done = called(*words, "--cache", cache, "--align", "coarsest", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["align"] == "coarsest"
    refused = called(*words, "--cache", cache, "--align", "video", "--out", tmp_path / "other")
    assert refused.returncode == 2
    assert "'video'" in refused.stderr
    run = fsmm.episode_eval(
        "otam-ec", cache=cache, protocol=fsmm.Protocol(n_way=3, n_query=3), episodes=20, align="coarsest"
    )
    assert run.metrics["accuracy"] == json.loads((tmp_path / "run" / "metrics.json").read_text())["accuracy"]
