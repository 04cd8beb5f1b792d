"""Data sets of video and sensor, and those of one folder an emotion, on files in the official form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fsmm.errors import UsageError
from fsmm.extract.datasets import load
from fsmm.extract.datasets.base import DatasetOptions

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
PLAIN = DatasetOptions()


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def utd(root: Path, clip: str) -> None:
    """The files of a sequence: inertial sensor, skeleton, depth."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(clip))
    savemat(root / f"{clip}_inertial.mat", {"d_iner": rng.normal(size=(110, 6))})
    savemat(root / f"{clip}_skeleton.mat", {"d_skel": rng.normal(size=(20, 3, 40))})
    (root / f"{clip}_depth.mat").write_bytes(b"x")


def test_utd_mhad(tmp_path: Path) -> None:
    for clip in ("a1_s1_t1", "a10_s2_t1", "a2_s8_t4"):
        utd(tmp_path / "Inertial", clip)
    touch(tmp_path, "RGB/a1_s1_t1_color.avi", "readme.txt", "a99_s1_t1_inertial.mat")
    found = load("utd-mhad", tmp_path, PLAIN)
    catalog = found.catalog
    assert catalog.clip_id == ["a1_s1_t1", "a2_s8_t4", "a10_s2_t1"]
    names = catalog.labels().class_names
    assert [names[i] for i in catalog.labels().label] == [
        "Swipe left",
        "Swipe right",
        "Draw circle counter clockwise",
    ]
    assert len(names) == 27
    assert catalog.group == ["s1", "s8", "s2"]
    assert found.axes == {"sensor": 6, "skeleton": 60, "depth": 48}
    assert found.streams == ("frame", "flow", "audio", "sensor", "skeleton", "depth", "word")
    assert found.sources["a1_s1_t1"].video is not None
    assert {s.name: s.rate for s in found.sources["a1_s1_t1"].series} == {
        "sensor": 50.0,
        "skeleton": 30.0,
        "depth": 30.0,
    }
    assert any("'a99_s1_t1_inertial.mat'" in warning for warning in found.warnings)
    with pytest.raises(UsageError, match="a1_s1_t1_inertial"):
        load("utd-mhad", touch(tmp_path / "none", "a.mat"), PLAIN)


@pytest.mark.skipif(not (SHARED / "utd_mhad").is_dir(), reason="needs ../shared/data/utd_mhad")
def test_utd_mhad_in_its_official_form() -> None:
    found = load("utd-mhad", SHARED / "utd_mhad" / "official_form", PLAIN)
    assert found.catalog.clip_id == ["a1_s1_t1", "a13_s5_t2"]
    assert found.streams == ("sensor", "skeleton", "depth", "word")


def test_names_of_utd_mhad_are_the_published_ones() -> None:
    path = SHARED / "wordvec" / "class_names_all_datasets.json"
    if not path.is_file():
        pytest.skip("needs ../shared/data/wordvec")
    import json

    from fsmm.extract.datasets.ego_activity import ACTIVITIES
    from fsmm.extract.datasets.ekman6 import EMOTIONS as EKMAN
    from fsmm.extract.datasets.utd_mhad import ACTIONS
    from fsmm.extract.datasets.videoemotion8 import EMOTIONS as EIGHT

    names = json.loads(path.read_text())["names"]
    assert list(ACTIONS) == names["utd_mhad"]
    assert list(ACTIVITIES) == names["song_ego20"]
    assert (list(EKMAN), list(EIGHT)) == (names["ekman6"], names["videoemotion8"])


def test_ego_activity(tmp_path: Path) -> None:
    (tmp_path / "sensors").mkdir()
    for clip in ("act01seq01", "act20seq10"):
        np.savetxt(tmp_path / "sensors" / f"{clip}.csv", np.ones((150, 19)), delimiter=",")
    touch(tmp_path, "videos/act01seq01.mp4", "videos/act02seq01.mp4", "videos/other.mp4")
    found = load("ego-activity", tmp_path, PLAIN)
    labels = found.catalog.labels()
    assert {c: labels.class_names[i] for c, i in zip(found.catalog.clip_id, labels.label)} == {
        "act01seq01": "walking",
        "act02seq01": "walking upstairs",
        "act20seq10": "cycling",
    }
    assert found.axes == {"sensor": 19}
    assert not found.sources["act02seq01"].series
    assert any("other.mp4" in warning for warning in found.warnings)


def test_a_generic_folder(tmp_path: Path) -> None:
    for name in ("run/1.csv", "run/2.csv", "walk/3.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1,2,3\n" * 20)
    touch(tmp_path, "run/1.mp4", "walk/4.mp4", "walk/notes.md", "top.csv")
    with pytest.raises(UsageError, match="--rate"):
        load("video-series", tmp_path, PLAIN)
    found = load("video-series", tmp_path, replace(PLAIN, rate=20.0))
    assert found.catalog.clip_id == ["run/1", "run/2", "walk/3", "walk/4"]
    assert found.axes == {"sensor": 3}
    assert found.sources["run/1"].video is not None
    assert found.sources["run/1"].series[0].rate == 20.0
    assert any("notes.md" in warning and "top.csv" in warning for warning in found.warnings)
    for rate in (0.0, -1.0, float("inf")):
        with pytest.raises(UsageError, match="above 0"):
            load("video-series", tmp_path, replace(PLAIN, rate=rate))
    with pytest.raises(UsageError, match="no use for --rate"):
        load("folder", tmp_path, replace(PLAIN, rate=20.0))


def test_emotions(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "Anger/1.mp4", "joy/2.mp4", "Boredom/3.mp4")
    found = load("ekman-6", data, PLAIN)
    assert found.catalog.dataset == "ekman-6"
    assert found.catalog.labels().class_names == ["Anger", "Boredom", "joy"]
    assert any("'Boredom'" in warning for warning in found.warnings)
    assert any("disgust, fear, sadness, surprise" in warning for warning in found.warnings)
    assert load("videoemotion-8", data, PLAIN).catalog.dataset == "videoemotion-8"
    with pytest.raises(UsageError, match="--dataset csv"):
        load("ekman-6", touch(tmp_path / "other", "a/1.mp4"), PLAIN)
