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
from extract_support import rows, same_rows, videos
from ray_support import STORE_BYTES, two_nodes
from tests_support import synthetic_cache

from fsmm.cache.catalog import Catalog
from fsmm.cache.job import JobFolder
from fsmm.cache.upkeep.verify import verify
from fsmm.studies.grid.store import is_stored, read_study

pytestmark = pytest.mark.slow

STUDY = """\
title: Toy
fixed: {episodes: 400, n_query: 3}
blocks:
  - name: free
    grid:
      method: [protonet, nearest]
      modalities: [each, all]
  - name: trained
    fixed: {method: relation, train.steps: 20, train_seed: 0}
    grid: {seed: [0, 1, 2]}
  - name: wrong
    fixed: {method: protonet, k_shot: 500}
"""
STREAMS = ("flow/dis-hof", "audio/logmel-mfcc")


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Any, Any]]:
    with two_nodes() as made:
        yield made


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(happened: Callable[[], object], running: subprocess.Popen[str], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def test_a_sweep_that_loses_a_node_is_the_local_sweep(cluster: tuple[Any, Any], tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path / "cache", clips=8)
    (tmp_path / "toy.yaml").write_text(STUDY)
    words = ("sweep", tmp_path / "toy.yaml", "--cache", cache, "--out")
    local = start(*words, tmp_path / "local", "--jobs", 2)
    local.communicate(timeout=300)
    running = start(*words, tmp_path / "ray", "--engine", "ray")
    runs = tmp_path / "ray" / "runs"
    wait_for(lambda: any(is_stored(folder) for folder in runs.glob("*")), running)
    cluster[0].remove_node(cluster[1], allow_graceful=False)
    _, err = running.communicate(timeout=300)
    assert running.returncode == 1, err
    assert "9 runs are in" in err
    assert "1 failed" in err
    one, other = (read_study(tmp_path / name) for name in ("local", "ray"))
    assert [row.key for row in one.done] == [row.key for row in other.done]
    for row in one.done:
        mine, theirs = one.load(row), other.load(row)
        assert mine[1]["accuracy"] == theirs[1]["accuracy"], row.label
        assert (mine[2]["accuracy"] == theirs[2]["accuracy"]).all()
    assert {f.kind for f in other.failures.values()} == {"TooFew"}
    (head,) = {row.head for row in other.done if row.head}
    assert (tmp_path / "ray" / "heads" / head / "head.safetensors").is_file()
    again = start(*words, tmp_path / "ray", "--engine", "local")
    assert "10 runs, 9 done" in again.communicate(timeout=300)[1]


def test_an_extraction_that_loses_a_node_is_the_plain_extraction(
    cluster: tuple[Any, Any], tmp_path: Path
) -> None:
    if len(cluster[0].list_all_nodes()) < 2:
        node = cluster[0].add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    else:
        node = cluster[1]
    data = videos(tmp_path / "data", 24)
    (data / "class0" / "no-video.mp4").write_bytes(b"no video")
    words = ["--dataset", "folder", "--data", data, "--encoder", "flow=dis-hof", "--encoder"]
    words += ["audio=logmel-mfcc", "--json", "--cache"]
    plain = start("extract", *words, tmp_path / "plain", "--workers", 2)
    assert plain.wait(300) == 0
    running = start("extract", *words, tmp_path / "ray", "--engine", "ray", "--shards", 8)
    job = JobFolder(tmp_path / "ray" / "data")
    wait_for(job.all_finished, running)
    cluster[0].remove_node(node, allow_graceful=False)
    assert len(job.all_finished()) < 8, "the node was killed too late"
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    report = json.loads(out)
    assert (report["clips"], report["done"], report["failed"]) == (25, 24, 1)
    one, other = (tmp_path / name / "data" for name in ("plain", "ray"))
    for stream in STREAMS:
        assert same_rows(rows(one, stream), rows(other, stream))
    assert Catalog.read(one).clip_id == Catalog.read(other).clip_id
    assert Catalog.read(one).facts["sha256"].tolist() == Catalog.read(other).facts["sha256"].tolist()
    assert (one / "failures.jsonl").read_text() == (other / "failures.jsonl").read_text()
    assert verify(tmp_path / "ray").ok
    again = start("extract", *words, tmp_path / "ray", "--engine", "ray")
    out, err = again.communicate(timeout=300)
    assert (json.loads(out)["done"], json.loads(out)["skipped"]) == (0, 24 + 1), err
