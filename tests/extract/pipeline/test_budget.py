"""The failures that a job may have: the canary, the limit, and the reasons that are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from extract_support import SOUND, extracted, rows, videos
from scipy.stats import binom

from fsmm.cache.schema import list_datasets
from fsmm.extract.datasets.base import Source
from fsmm.extract.pipeline.budget import Budget, Limit, TooManyFailures, at_least, canary_first
from fsmm.extract.pipeline.failures import Failure


def failures(count: int, reason: str = "broken", stage: str = "decode") -> list[Failure]:
    return [Failure(f"{reason}{i}", stage, f"'{i}.mp4' is {reason} at {i}.5 s") for i in range(count)]


def test_the_limit_counts_clips_once_and_no_notes() -> None:
    budget = Budget(Limit.parse("2%"), 200)
    budget.note([*failures(4), *failures(4), *failures(30, stage="partial")])
    assert (budget.failed, budget.verdict()) == (4, "")
    budget.note(failures(1, "torn"))
    verdict = budget.verdict()
    assert "5 clips failed, and --max-failures 2% allows 4 of 200" in verdict
    assert "4 x decode: '...' is broken at N s; 1 x decode: '...' is torn at N s" in verdict


@pytest.mark.parametrize("limit", ["0", "2%", "30%"])
def test_the_canary_stops_what_chance_does_not_explain(limit: str) -> None:
    """The job is stopped by as many failures as the binomial distribution has once in a thousand times."""
    clips = 1000
    rate = Limit.parse(limit).of(clips) / clips
    stops = []
    for failed in range(51):
        budget = Budget(Limit.parse(limit), clips, canary=50)
        budget.note(failures(failed))
        budget.add(tried=50, reasons={})
        stops.append("tried first" in budget.verdict())
        if failed:
            assert at_least(failed, 50, rate) == pytest.approx(binom.sf(failed - 1, 50, rate), abs=1e-12)
    first = next(k for k in range(51) if binom.sf(k - 1, 50, rate) < 0.001)
    assert stops == [k >= first for k in range(51)]


def test_a_canary_that_fails_as_a_whole_stops_a_job_without_a_limit() -> None:
    budget = Budget(None, 1000, canary=50)
    budget.add(tried=50, reasons={"decode: a": 49})
    assert not budget.verdict()
    budget.add(tried=0, reasons={"decode: b": 1})
    assert "50 of the 50 clips" in budget.verdict()


def test_every_kind_of_file_is_tried_first() -> None:
    endings = ["mp4"] * 500 + ["webm"] * 3 + ["AVI"] * 40
    sources = {f"c{i}": Source(video=Path(f"c{i}.{ending}")) for i, ending in enumerate(endings)}
    sources["images"] = Source(images=(Path("a.png"),))
    order = canary_first(list(sources), lambda clip: sources[clip], lambda clip: clip)
    first = [str(sources[clip].video).rpartition(".")[2] for clip in order[:50]]
    assert sorted(order) == sorted(sources)
    assert order[50:] == [clip for clip in sources if clip not in order[:50]]
    assert (first.count("webm"), first.count("None")) == (3, 1)
    assert abs(first.count("mp4") - first.count("AVI")) <= 1


def test_a_hopeless_extraction_stops_and_keeps_what_was_done(tmp_path: Path) -> None:
    data = videos(tmp_path / "data", 6)
    for i in range(6):
        (data / "class1" / f"{i}.avi").write_bytes(b"no video")
    with pytest.raises(TooManyFailures, match=r"4 clips failed, and .* allows 3 of 12 \(4 x decode"):
        extracted(data, tmp_path / "cache", max_failures="3")
    held = rows(tmp_path / "cache" / "data", SOUND)
    assert 0 < len(held) < 6
    report = extracted(data, tmp_path / "cache", max_failures="50%")
    assert len(held) + report.done == 6
    assert list_datasets(tmp_path / "cache") == ["data"]
