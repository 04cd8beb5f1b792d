"""Pruning removes what is listed no more, and only that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.cache.exchange.exporting import export_features
from fsmm.cache.schema import list_streams
from fsmm.cache.stream import stream_checks
from fsmm.cache.upkeep.prune import prune
from fsmm.cache.upkeep.verify import verify


@pytest.fixture
def cache(make_cache: Callable[..., Path]) -> Path:
    """A cache of which every third clip is listed no more."""
    root = make_cache()
    catalog = Catalog.read(root / "toy")
    catalog.sources.listed[::3] = False
    catalog.write(root / "toy")
    lines = [{"id": clip, "stage": "decode", "reason": "r"} for clip in catalog.clip_id[:2]]
    (root / "toy" / "failures.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + "torn\n"
    )
    return root


def test_clips_that_are_listed_no_more_take_no_part(cache: Path) -> None:
    catalog = Catalog.read(cache / "toy")
    bank = FeatureBank.load(cache, split="all")
    assert not catalog.sources.gone[bank.clip_row].any()
    assert len(bank) == (~catalog.sources.gone).sum()


def test_clips_that_are_listed_no_more_are_not_exported(cache: Path, tmp_path: Path) -> None:
    catalog = Catalog.read(cache / "toy")
    assert export_features(cache, tmp_path / "out.npz").clips == (~catalog.sources.gone).sum()
    with np.load(tmp_path / "out.npz") as arrays:
        assert set(arrays["id"]).isdisjoint(catalog.clip_id[::3])


def test_pruning_removes_clips_rows_and_failures(cache: Path) -> None:
    catalog, bank = Catalog.read(cache / "toy"), FeatureBank.load(cache, split="all")
    gone = catalog.clip_id[::3]
    checks = {stream: stream_checks(cache / "toy", stream) for stream in list_streams(cache / "toy")}
    report = prune(cache)
    assert report.removed == {"toy": gone}
    after = Catalog.read(cache / "toy")
    assert after.clip_id == [clip for clip in catalog.clip_id if clip not in gone]
    for stream, held in checks.items():
        is_word = stream.modality == "word"
        kept = {key: check for key, check in held.items() if is_word or key not in gone}
        assert stream_checks(cache / "toy", stream) == kept
    again = FeatureBank.load(cache, split="all")
    assert again.label.tolist() == bank.label.tolist()
    failures = (cache / "toy" / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in failures[:-1]] == [catalog.clip_id[1]]
    assert verify(cache).ok
    assert prune(cache).removed == {}


def test_a_dry_run_removes_nothing(cache: Path) -> None:
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    assert prune(cache, dry_run=True).removed["toy"]
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before
