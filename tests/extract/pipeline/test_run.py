"""Whole extractions in Python over real videos, with the classical encoders: no weights needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extract_support import facts, load_makers, rows, same_rows, videos

import fsmm
from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.errors import CacheError, UsageError
from fsmm.extract.contract import Sampling
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.extract.pipeline.failures import Failure, FailureLog
from fsmm.extract.pipeline.report import ExtractReport

FLOW, SOUND = "flow/dis-hof", "audio/logmel-mfcc"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos(tmp_path_factory.mktemp("clips") / "data", 20)


def run(data: Path, cache: Path, *streams: str, **given: Any) -> ExtractReport:
    given = {"quiet": True, "workers": 1, **given}
    report: ExtractReport = fsmm.extract("folder", data, cache, streams or [FLOW, SOUND], **given)
    return report


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExtractReport]:
    """One run with one worker: (dataset folder, report)."""
    report = run(data, tmp_path_factory.mktemp("cache"))
    return Path(report.folder), report


def test_the_report_counts_clips_and_rows(whole: tuple[Path, ExtractReport]) -> None:
    _, report = whole
    assert (report.clips, report.done, report.failed, report.skipped) == (20, 20, 0, 0)
    assert [(s.name, s.written, s.absent) for s in report.streams] == [(FLOW, 20, 0), (SOUND, 16, 4)]
    assert json.loads(report.to_json())["done"] == 20
    assert 0 <= report.encoder_busy <= 1
    assert {"decode", "prepare", "encode", "write"} <= report.seconds.keys()


def test_rows_are_in_listing_order_and_silent_clips_are_absent(whole: tuple[Path, ExtractReport]) -> None:
    folder, _ = whole
    ids = Catalog.read(folder).clip_id
    sound = rows(folder, SOUND)
    assert list(rows(folder, FLOW)) == list(sound) == ids
    assert {key for key, value in sound.items() if value is None} == {
        clip for clip in ids if int(Path(clip).stem) % 5 == 4
    }


def test_facts_reach_the_catalog(whole: tuple[Path, ExtractReport], data: Path) -> None:
    folder, _ = whole
    ids = Catalog.read(folder).clip_id
    digests = [hashlib.sha256((data / clip).read_bytes()).hexdigest().encode() for clip in ids]
    assert facts(folder, "sha256").tolist() == digests
    assert facts(folder, "width").tolist() == [64] * 20
    frames = np.array([12 + int(Path(clip).stem) % 5 for clip in ids])
    assert facts(folder, "duration") == pytest.approx(frames / 12, abs=0.05)
    assert facts(folder, "has_audio").sum() == 16


def test_workers_change_nothing(whole: tuple[Path, ExtractReport], data: Path, tmp_path: Path) -> None:
    folder = Path(run(data, tmp_path, workers=3).folder)
    for stream in (FLOW, SOUND):
        assert same_rows(rows(whole[0], stream), rows(folder, stream))
        assert list(rows(whole[0], stream)) == list(rows(folder, stream))


def test_a_second_run_does_nothing_and_a_new_stream_only_itself(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path, SOUND, options=DatasetOptions(limit=7))
    assert first.done == 7
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0*.h5")}
    again = run(data, tmp_path, SOUND, options=DatasetOptions(limit=7))
    assert (again.done, again.skipped, again.workers) == (0, 7, 0)
    assert again.streams[0].held == 7
    more = run(data, tmp_path)
    assert [(s.name, s.written + s.absent, s.held) for s in more.streams] == [(FLOW, 20, 0), (SOUND, 13, 7)]
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert len(rows(Path(more.folder), SOUND)) == 20


def test_what_was_extracted_loads_as_a_bank(whole: tuple[Path, ExtractReport], data: Path) -> None:
    folder, _ = whole
    bank = FeatureBank.load(folder.parent, split="all", words=None)
    assert set(bank.tables) == {"flow", "audio"}
    assert len(bank.label) == 20
    assert sorted(bank.class_names) == [f"class{i}" for i in range(4)]


def test_random_sampling_depends_on_seed_and_clip_alone(data: Path, tmp_path: Path) -> None:
    def flow(cache: str, seed: int, limit: int, workers: int) -> dict[str, np.ndarray | None]:
        sampling = Sampling(position="random", seed=seed)
        options = DatasetOptions(limit=limit)
        report = run(data, tmp_path / cache, FLOW, sampling=sampling, options=options, workers=workers)
        return rows(Path(report.folder), FLOW)

    some, all_of_them, other = flow("a", 1, 3, 1), flow("b", 1, 6, 2), flow("c", 2, 3, 1)
    assert same_rows(some, {key: all_of_them[key] for key in some})
    assert not same_rows(some, other)


def test_another_sampling_in_the_same_stream_is_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, FLOW, options=DatasetOptions(limit=2))
    with pytest.raises(CacheError, match="segments"):
        run(data, tmp_path, FLOW, sampling=Sampling(segments=3))
    # sound does not depend on segments
    run(data, tmp_path, SOUND, options=DatasetOptions(limit=2))
    assert (
        run(data, tmp_path, SOUND, options=DatasetOptions(limit=2), sampling=Sampling(segments=3)).skipped
        == 2
    )


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Three good clips and one that is no video."""
    root = videos(tmp_path / "broken", 3, classes=1)
    (root / "class0" / "bad.mp4").write_text("this is no video")
    return root


def test_a_bad_clip_is_told_once_and_left_alone(broken: Path, tmp_path: Path) -> None:
    first = run(broken, tmp_path / "cache")
    assert (first.done, first.failed) == (3, 1)
    told = [json.loads(line) for line in Path(first.failures_file).read_text().splitlines()]
    assert [(line["id"], line["stage"]) for line in told] == [("class0/bad.mp4", "decode")]
    assert told[0]["path"].endswith("bad.mp4")
    again = run(broken, tmp_path / "cache")
    assert (again.failed, again.left_alone, again.skipped) == (0, 1, 3)
    retried = run(broken, tmp_path / "cache", retry_failed=True)
    assert (retried.failed, retried.left_alone) == (1, 0)
    assert len(Path(first.failures_file).read_text().splitlines()) == 1


def test_a_clip_is_tried_again_when_its_file_changed(broken: Path, tmp_path: Path) -> None:
    run(broken, tmp_path / "cache")
    load_makers().video(broken / "class0" / "bad.mp4", sound=300.0)
    report = run(broken, tmp_path / "cache")
    assert (report.done, report.failed, report.left_alone) == (1, 0, 0)
    assert report.failures_file == ""
    assert "class0/bad.mp4" in rows(Path(report.folder), FLOW)


def test_a_clip_is_tried_again_when_its_sound_file_changed_alone(tmp_path: Path) -> None:
    """A picture that is no picture, with sound that is none either until it is mended."""
    folder = tmp_path / "data" / "class0"
    folder.mkdir(parents=True)
    for name in ("photo.jpg", "photo.wav"):
        (folder / name).write_text("nothing of the kind")
    load_makers().audio(folder / "good.wav")
    assert run(tmp_path / "data", tmp_path / "cache", SOUND).failed == 1
    assert run(tmp_path / "data", tmp_path / "cache", SOUND).left_alone == 1
    load_makers().audio(folder / "photo.wav", hertz=300.0)
    report = run(tmp_path / "data", tmp_path / "cache", SOUND)
    assert (report.done, report.failed, report.left_alone) == (1, 0, 0)
    assert rows(Path(report.folder), SOUND)["class0/photo.jpg"] is not None


def test_a_clip_that_is_whole_only_after_it_was_read_in_vain_is_tried_again(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copying ends between the decoder's refusal and the line about it."""
    append = FailureLog.append

    def append_late(log: FailureLog, failures: Sequence[Failure]) -> None:
        if failures:
            load_makers().video(broken / "class0" / "bad.mp4", sound=300.0)
        append(log, failures)

    monkeypatch.setattr(FailureLog, "append", append_late)
    assert run(broken, tmp_path / "cache").failed == 1
    monkeypatch.undo()
    report = run(broken, tmp_path / "cache")
    assert (report.done, report.failed, report.left_alone) == (1, 0, 0)


def test_sound_too_short_is_absent_with_a_reason(tmp_path: Path) -> None:
    makers = load_makers()
    (tmp_path / "d" / "c").mkdir(parents=True)
    makers.video(tmp_path / "d" / "c" / "blip.mp4", sound=440.0, seconds=0.002)
    makers.video(tmp_path / "d" / "c" / "good.mp4", sound=440.0)
    report = run(tmp_path / "d", tmp_path / "cache")
    assert report.done == 2
    stored = rows(Path(report.folder), SOUND)
    if stored["c/blip.mp4"] is None:  # the codec may pad so short a sound to one that can be used
        lines = (Path(report.folder) / "failures.jsonl").read_text().splitlines()
        assert [json.loads(line)["stage"] for line in lines] == ["absent"]
    assert stored["c/good.mp4"] is not None
    assert run(tmp_path / "d", tmp_path / "cache").skipped == 2


def test_class_names_can_change_between_runs(data: Path, tmp_path: Path) -> None:
    makers = load_makers()
    root = tmp_path / "grow"
    videos(root, 4)
    run(root, tmp_path / "cache", SOUND)
    (root / "newcomer").mkdir()
    makers.video(root / "newcomer" / "x.mp4", sound=500.0)
    report = run(root, tmp_path / "cache", SOUND)
    assert any("newcomer" in warning for warning in report.warnings)
    catalog = Catalog.read(Path(report.folder))
    assert catalog.clip_id[-1] == "newcomer/x.mp4"
    assert "newcomer" in catalog.labels().class_names


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"streams": ["frames"]}, "Did you mean 'frame'"),
        ({"streams": ["sensor"]}, "fsmm cache import"),
        ({"streams": ["frame/dis-hof"]}, "flow=dis-hof"),
        ({"streams": []}, "--streams"),
        ({"encoders": {"flow": "dis-hoff"}}, "Did you mean 'dis-hof'"),
        ({"streams": [FLOW], "weights": {"yamnet": "x"}}, "--encoder audio=yamnet"),
        ({"streams": [FLOW], "weights": {"yamnett": "x"}}, "Did you mean 'yamnet'"),
        ({"streams": [FLOW], "workers": 0}, "--workers"),
        ({"streams": [FLOW], "dtype": "int8"}, "float16"),
        ({"streams": [FLOW], "timeout": 0}, "--timeout"),
        ({"streams": [FLOW], "sampling": Sampling(segments=0)}, "--segments"),
        ({"streams": [FLOW], "sampling": Sampling(position="center")}, "'centre'"),
        ({"streams": [FLOW], "name": "../up"}, "Dataset name"),
    ],
)
def test_requests_that_cannot_be_met_say_why(
    data: Path, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        fsmm.extract("folder", data, tmp_path / "cache", quiet=True, **given)
    assert not (tmp_path / "cache").exists()


def test_features_are_stored_in_the_type_asked_for(data: Path, tmp_path: Path) -> None:
    report = run(data, tmp_path, FLOW, options=DatasetOptions(limit=2), dtype="float32")
    stored = rows(Path(report.folder), FLOW)
    assert all(value is not None and value.dtype == np.float32 for value in stored.values())


def test_torch_keeps_the_threads_it_had(data: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 2)
    try:
        run(data, tmp_path, SOUND, options=DatasetOptions(limit=1), device="cpu")
        assert torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)
