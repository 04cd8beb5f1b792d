"""Sweeps and extractions on a real Ray cluster of two nodes, of which one is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from extract_support import extracted, rows, same_rows, videos
from ray_support import FEW, cluster_of
from tests_support import synthetic_cache

from fsmm.cache.catalog import Catalog
from fsmm.cache.job import JobFolder
from fsmm.cache.upkeep.verify import verify
from fsmm.studies.grid.store import is_stored, read_study
from fsmm.studies.grid.sweep import sweep

pytestmark = pytest.mark.slow

STUDY = """\
title: Toy
fixed: {episodes: 400, n_query: 3}
blocks:
  - name: free
    grid: {method: [protonet, nearest]}
  - name: trained
    fixed: {method: relation, train.steps: 20, train_seed: 0}
    grid: {seed: [0, 1, 2]}
  - name: wrong
    fixed: {method: protonet, k_shot: 500}
"""
STREAMS = ("flow/dis-hof", "audio/logmel-mfcc")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache, a study file, and the sweep of the local engine, done before Ray starts its threads."""
    home = tmp_path_factory.mktemp("study")
    synthetic_cache(home / "cache", clips=8)
    (home / "toy.yaml").write_text(STUDY)
    sweep(home / "toy.yaml", home / "cache", out=home / "local", jobs=2)
    return home


@pytest.fixture(scope="module")
def cluster(study: Path) -> Iterator[Any]:
    with cluster_of() as made:
        yield made


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(happened: Callable[[], object], running: subprocess.Popen[str], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def test_a_sweep_that_loses_a_node_is_the_local_sweep(study: Path, cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(**FEW)
    out = tmp_path / "ray"
    running = start("sweep", study / "toy.yaml", "--cache", study / "cache", "--out", out, "--engine", "ray")
    wait_for(lambda: any(is_stored(folder) for folder in (out / "runs").glob("*")), running)
    cluster.remove_node(node, allow_graceful=False)
    _, err = running.communicate(timeout=300)
    assert running.returncode == 1, err
    assert "5 runs are in" in err
    assert "1 failed" in err
    one, other = read_study(study / "local"), read_study(out)
    assert [row.key for row in one.done] == [row.key for row in other.done]
    for row in one.done:
        mine, theirs = one.load(row), other.load(row)
        assert mine[1]["accuracy"] == theirs[1]["accuracy"], row.label
        assert (mine[2]["accuracy"] == theirs[2]["accuracy"]).all()
    assert {failure.kind for failure in other.failures.values()} == {"TooFew"}
    (head,) = {row.head for row in other.done if row.head}
    assert (out / "heads" / head / "head.safetensors").is_file()


def test_an_extraction_that_loses_a_node_is_the_plain_extraction(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(**FEW)
    data = videos(tmp_path / "data", 20)
    (data / "class0" / "no-video.mp4").write_bytes(b"no video")
    extracted(data, tmp_path / "plain", *STREAMS, workers=2)
    words = ["--dataset", "folder", "--data", data, "--encoder", "flow=dis-hof", "--encoder"]
    words += ["audio=logmel-mfcc", "--json", "--cache", tmp_path / "ray", "--engine", "ray"]
    running = start("extract", *words, "--shards", 8)
    job = JobFolder(tmp_path / "ray" / "data")
    wait_for(job.all_finished, running)
    cluster.remove_node(node, allow_graceful=False)
    assert len(job.all_finished()) < 8, "the node was killed too late"
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    report = json.loads(out)
    assert (report["clips"], report["done"], report["failed"]) == (21, 20, 1)
    one, other = (tmp_path / name / "data" for name in ("plain", "ray"))
    for stream in STREAMS:
        assert same_rows(rows(one, stream), rows(other, stream))
    assert Catalog.read(one).clip_id == Catalog.read(other).clip_id
    assert Catalog.read(one).facts["sha256"].tolist() == Catalog.read(other).facts["sha256"].tolist()
    assert (one / "failures.jsonl").read_text() == (other / "failures.jsonl").read_text()
    assert verify(tmp_path / "ray").ok
