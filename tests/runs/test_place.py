"""Where a run cannot be written, that is said before anything is trained, with the remedy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests_support import synthetic_cache

from fsmm.episodes.protocol import Protocol
from fsmm.errors import CacheError
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.runs.store import check_writable
from fsmm.studies.missing_sweep import missing_sweep
from fsmm.studies.seed_spread import seed_spread

BRIEF = {"train.steps": "2", "train.evaluate_every": "2", "train.evaluate_episodes": "5"}
WAYS: dict[str, Callable[..., Any]] = {
    "a run": lambda job, progress: run(job, progress),
    "a sweep": lambda job, progress: missing_sweep(job, "audio@query", progress),
    "a spread": lambda job, progress: seed_spread(job, 2, progress),
}


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which no file can be made; the superuser may write anywhere, so that the system call is refused."""
    root = synthetic_cache(tmp_path / "cache", clips=8)
    made = tempfile.TemporaryFile

    def refuse(*words: Any, **given: Any) -> Any:
        if root in (Path(given["dir"]), *Path(given["dir"]).parents):
            raise OSError(30, os.strerror(30), given["dir"])
        return made(*words, **given)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    return root


@pytest.mark.parametrize("way", WAYS)
def test_a_read_only_cache_is_told_before_training(read_only: Path, tmp_path: Path, way: str) -> None:
    spec = RunSpec(method="relation", fusion="ec", settings=BRIEF, protocol=Protocol(n_query=2))
    job, told = Job(spec=spec, place=Place(cache=read_only), episodes=10), list[str]()
    with pytest.raises(
        CacheError, match=r"cannot be written \(Read-only file system\); .* with --out\."
    ) as caught:
        WAYS[way](job, lambda phase, *_: told.append(phase))
    assert "\n" not in str(caught.value)
    assert told == []
    assert not (read_only / "toy" / "runs").exists()
    elsewhere = Job(spec=spec, place=Place(cache=read_only, out=tmp_path / "mine"), episodes=10)
    WAYS[way](elsewhere, None)
    assert list((tmp_path / "mine").rglob("metrics.json"))


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(CacheError, match=r"Not a directory.*--out"):
        check_writable(tmp_path / "runs" / "protonet-0")


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
