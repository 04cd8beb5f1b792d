"""Where encoders run changes no feature and no failure: in the workers, in this process, or beside it for a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from extract_support import WHITE, Net, extracted, rows, same_rows, stills, videos

from fsmm.cache.origin import Origin
from fsmm.errors import FsmmError, WeightsError
from fsmm.extract.pipeline import division, lane
from fsmm.extract.pipeline.division import Division
from fsmm.extract.pipeline.extraction import Extraction
from fsmm.extract.pipeline.failures import Failure, FailureLog
from fsmm.extract.request import Request

FLOW, SOUND = "flow/dis-hof", "audio/logmel-mfcc"
NUMBERS = [1, 2, WHITE, 4, 5, 6, WHITE, 8, 9, 10]


def run(
    place: Path, *encoders: Net, device: str = "cpu", timeout: float = 60.0, flush: float = 30.0
) -> tuple[Path, Extraction]:
    """An extraction of ten stills, of which the third and the seventh are all white, by two workers."""
    listing = stills(place / "stills", NUMBERS)
    listing = replace(listing, origin=Origin("folder", str(place), str(place)))
    request = Request(
        dataset="folder", workers=2, timeout=timeout, flush_seconds=flush, dtype="float32", thumbnails=False
    )
    extraction = Extraction(request, place / "cache" / "stills", listing, encoders, quiet=True)
    extraction.run(device)
    return place / "cache" / "stills", extraction


def lines(folder: Path) -> list[tuple[str, str, str, str]]:
    found = FailureLog(folder).read().values()
    return sorted((line.id, line.stream, line.stage, line.reason) for line in found if is_failure(line))


def is_failure(line: Failure) -> bool:
    return line.stage not in ("partial", "absent", "missing")


@pytest.fixture
def in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division, "ENCODE_FROM", 1)


def test_features_are_the_same_to_the_bit_whichever_process_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = videos(tmp_path / "data", 6)
    here = Path(extracted(data, tmp_path / "here", FLOW, SOUND).folder)
    monkeypatch.setattr(division, "ENCODE_FROM", 1)
    report = extracted(data, tmp_path / "there", FLOW, SOUND, workers=2)
    assert report.workers == 2
    assert 0 < report.encoder_busy <= 1
    assert report.encoder_busy_once_begun is None, "the encoders ran in the workers"
    for stream in (FLOW, SOUND):
        assert same_rows(rows(here, stream), rows(Path(report.folder), stream))
        assert list(rows(here, stream)) == list(rows(Path(report.folder), stream))


@pytest.mark.usefixtures("in_workers")
def test_workers_hand_back_features_and_the_encoder_here_is_not_run(tmp_path: Path) -> None:
    net = Net("net")
    folder, extraction = run(tmp_path, net)
    assert sum(net.batches) <= 4, "it is run over the passport's clips alone"
    assert [len(rows(folder, "frame/net")), extraction.done] == [10, 10]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_encoders_failure_is_told_alike_in_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    here, _ = run(tmp_path / "here", Net("net", trouble="error"))
    monkeypatch.setattr(division, "ENCODE_FROM", 1)
    there, _ = run(tmp_path / "there", Net("net", trouble="error"), device=device)
    assert lines(here) == lines(there)
    assert [(clip, stage) for clip, _, stage, _ in lines(there)] == [("c002", "encode"), ("c006", "encode")]
    assert "RuntimeError: the network fell over" in lines(there)[0][3]
    assert same_rows(rows(here, "frame/net"), rows(there, "frame/net"))


@pytest.mark.usefixtures("in_workers")
@pytest.mark.parametrize(
    ("trouble", "stage", "told"),
    [
        ("crash", "crash", "an encoder crashed (SIGSEGV)"),
        ("hang", "timeout", "encoding took longer than 2 s"),
    ],
)
def test_an_encoder_that_ends_or_holds_up_a_worker_costs_one_clip(
    tmp_path: Path, trouble: str, stage: str, told: str
) -> None:
    folder, extraction = run(tmp_path, Net("net", trouble=trouble), timeout=2.0)
    assert lines(folder) == [(clip, "", stage, told) for clip in ("c002", "c006")]
    assert (extraction.done, extraction.failed) == (8, 2)


@pytest.mark.usefixtures("in_workers")
@pytest.mark.parametrize(
    ("trouble", "told"), [("weights", "They do not fit."), ("unusable", "They were damaged meanwhile.")]
)
def test_an_unusable_encoder_ends_the_run_with_its_own_sentence(
    tmp_path: Path, trouble: str, told: str
) -> None:
    with pytest.raises(WeightsError, match=told):
        run(tmp_path, Net("net", trouble=trouble))


def test_beside_a_gpu_the_workers_run_what_does_not_use_it(tmp_path: Path) -> None:
    big, small = Net("big"), Net("small", on_gpu=False)
    folder, extraction = run(tmp_path, big, small, device="cuda")
    assert sum(big.batches) - sum(small.batches) == 10, "both made their passports here"
    assert same_rows(rows(folder, "frame/big"), rows(folder, "frame/small"))
    assert list(rows(folder, "frame/big")) == [f"c{i:03d}" for i in range(10)]
    assert extraction.failed == 0
    busy = extraction.clock.seconds["encode"] / extraction.wall
    assert busy <= (extraction.clock.share_within("encode") or 0.0) <= 1, (
        "the start counts in the former alone"
    )


def test_what_is_encoded_beside_this_process_is_made_safe_in_time(tmp_path: Path) -> None:
    folder, _ = run(tmp_path, Net("big"), device="cuda", flush=0.0)
    assert len(list(folder.rglob("0*.h5"))) > 1, "rows were flushed before the end"
    assert len(rows(folder, "frame/big")) == 10


def test_an_encoder_that_cannot_be_loaded_beside_this_process_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(FsmmError, match="They do not fit"):
        run(tmp_path, Net("big", trouble="weights"), device="cuda")


def test_networks_that_would_not_fit_once_a_worker_stay_in_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nets = [Net("a"), Net("b")]
    roomy, narrow = Division(nets, "cpu"), Division(nets, "cpu")
    monkeypatch.setattr(division, "free_memory", lambda: 16 << 30)
    roomy.settle(4, 1000)
    monkeypatch.setattr(division, "free_memory", lambda: 2 << 30)
    narrow.settle(4, 1000)
    assert (roomy.own, narrow.own) == ({0, 1}, frozenset())
    narrow.settle(1, 1000)
    assert narrow.own == {0, 1}
    narrow.settle(4, division.ENCODE_FROM - 1)
    assert narrow.own == frozenset()


def test_seconds_of_threads_that_overlap_count_once() -> None:
    from fsmm.extract.pipeline.lane import Clock

    clock = Clock()
    with clock.shared("encode"), clock.shared("encode"):
        pass
    assert clock.seconds["encode"] < 0.1
    assert np.isfinite(clock.seconds["encode"])


def test_the_share_of_a_stage_is_that_of_the_time_from_its_beginning_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([10.0, 11.0, 13.0, 14.0])  # It runs from 10 to 11 s and from 13 to 14 s.
    clock = lane.Clock()
    assert clock.share_within("encode") is None
    monkeypatch.setattr(lane, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    for _ in range(2):
        with clock.shared("encode"):
            pass
    assert clock.share_within("encode") == 0.5
