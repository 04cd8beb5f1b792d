"""``fsmm extract --dataset NAME --data DIR`` makes features of a directory in the official form, for every data set."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from extract_support import SOUND, extracted, film, rows
from scipy.io import savemat

import fsmm
from fsmm.cache.catalog import Catalog
from fsmm.cli import app
from fsmm.commands.passport import SAME
from fsmm.errors import FsmmError
from fsmm.extract.built_in.encoding import features_of_handful
from fsmm.extract.contract import Sampling
from fsmm.extract.datasets import DATASETS
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.extract.datasets.massiv_tables import LABEL_SETS
from fsmm.extract.encoders import build

OPTIONS: dict[str, DatasetOptions] = {"video-series": DatasetOptions(rate=20.0)}
VIDEOS = {
    "kinetics-100": [
        "train_256/air drumming/-VtLx-mcPds_000012_000022.mp4",
        "val_256/baking_cookies/-514AQUrSow.mp4",
    ],
    "ssv2-100": ["78687.mp4", "5.mp4"],
    "ssv2-full": ["78687.mp4", "5.mp4"],
    "hmdb51": ["wave/x_wave_u_cm_np1_ri_bad_1.mp4", "run/y_run_f_cm_np1_le_bad_2.mp4"],
    "ucf101": ["YoYo/v_YoYo_g01_c01.mp4", "Archery/v_Archery_g01_c02.mp4"],
    "ucf-gzsl": ["Archery/v_Archery_g01_c01.mp4", "BandMarching/v_BandMarching_g01_c01.mp4"],
    "activitynet-gzsl": ["Canoeing/-IkL9Kq9zfQ_0.mp4", "BMX/-KWToNMY1Lc_0.mp4"],
    "vggsound-gzsl": ["wind noise/--Bu2xe4OSo_000430.mp4", "cow lowing/-0pJqpNjft4_000267.mp4"],
    "ekman-6": ["anger/1.mp4", "joy/2.mp4"],
    "videoemotion-8": ["trust/1.mp4", "fear/2.mp4"],
    "folder": ["a/1.mp4", "b/2.mp4"],
    "csv": ["1.mp4", "2.mp4"],
    "3massiv": ["1000.mp4", "1001.mp4"],
}
TABLES = {
    "ssv2-100": {
        "labels.json": json.dumps([{"id": n, "template": "Closing [something]"} for n in ("78687", "5")])
    },
    "csv": {"clips.csv": "path,label\n1.mp4,a\n2.mp4,b\n"},
    "3massiv": {"3massiv_train.csv": f"PostIndex,{','.join(LABEL_SETS)}\n1000,0,0,0,0,0\n1001,1,1,1,1,1\n"},
}
TABLES["ssv2-full"] = TABLES["ssv2-100"]
TABLES["ssv2-100"] = {
    "labels.json": json.dumps(
        [{"id": n, "template": "Pouring [something] into [something]"} for n in ("78687", "5")]
    )
}


def official(name: str, root: Path, video: Path) -> Path:
    """A directory in the form of a data set, with two clips."""
    root.mkdir(parents=True)
    for path in VIDEOS.get(name, ()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(video.read_bytes() + path.encode())
    for path, text in TABLES.get(name, {}).items():
        (root / path).write_text(text)
    rng = np.random.default_rng(0)
    if name == "utd-mhad":
        for clip in ("a1_s1_t1", "a2_s1_t1"):
            savemat(root / f"{clip}_inertial.mat", {"d_iner": rng.normal(size=(110, 6))})
            savemat(root / f"{clip}_skeleton.mat", {"d_skel": rng.normal(size=(20, 3, 40))})
    if name == "ego-activity":
        for clip in ("act01seq01", "act02seq01"):
            np.savetxt(root / f"{clip}.csv", rng.normal(size=(150, 19)), delimiter=",")
    if name == "video-series":
        for clip in ("run/1", "walk/2"):
            (root / clip).parent.mkdir()
            np.savetxt(root / f"{clip}.csv", rng.normal(size=(60, 3)), delimiter=",")
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("film") / "a.mp4", 300.0)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "demo"])
def test_every_data_set_is_extracted(name: str, video: Path, tmp_path: Path) -> None:
    stream = SOUND if name in VIDEOS else "sensor"
    report = extracted(
        official(name, tmp_path / "data", video),
        tmp_path / "cache",
        stream,
        kind=name,
        options=OPTIONS.get(name),
    )
    assert (report.clips, report.done, report.failed) == (2, 2, 0), report.warnings
    folder = tmp_path / "cache" / Catalog.read(Path(report.folder)).dataset
    found = rows(folder, SOUND if name in VIDEOS else "sensor/window-stats")
    assert len(found) == 2
    assert all(x is not None for x in found.values())
    assert "default" in Catalog.read(folder).labels().splits


def test_streams_of_a_data_set_without_videos_are_its_series(tmp_path: Path, video: Path) -> None:
    """Neither frames nor sound are looked for; the width of a vector follows from the axes."""
    data, cache = official("utd-mhad", tmp_path / "data", video), tmp_path / "cache"
    report = fsmm.extract("utd-mhad", data, cache, ["sensor", "skeleton"], quiet=True, workers=1)
    assert {s.name: s.dim for s in report.streams} == {
        "sensor/window-stats": 63,
        "skeleton/skeleton-window-stats": 2250,
    }
    assert not any("passport" in warning for warning in report.warnings)
    folder = Path(report.folder)
    sensor = rows(folder, "sensor/window-stats")["a1_s1_t1"]
    assert sensor is not None
    assert len(sensor) == 3  # 110 steps at 50 a second are three windows of a second, half a second apart
    again = fsmm.extract("utd-mhad", data, cache, ["sensor"], quiet=True, workers=1)
    assert again.skipped == 2
    with pytest.raises(FsmmError, match=r"windows of 0\.5 s"):
        fsmm.extract(
            "utd-mhad",
            data,
            cache,
            ["sensor"],
            quiet=True,
            workers=1,
            sampling=Sampling(window=0.5, hop=0.5),
        )


def test_a_series_that_is_mended_is_read_again(tmp_path: Path, video: Path) -> None:
    data, cache = official("ego-activity", tmp_path / "data", video), tmp_path / "cache"
    right = (data / "act01seq01.csv").read_text()
    (data / "act01seq01.csv").write_text("1,2\n3\n")
    assert fsmm.extract("ego-activity", data, cache, ["sensor"], quiet=True, workers=1).failed == 1
    assert fsmm.extract("ego-activity", data, cache, ["sensor"], quiet=True, workers=1).left_alone == 1
    (data / "act01seq01.csv").write_text(right)
    report = fsmm.extract("ego-activity", data, cache, ["sensor"], quiet=True, workers=1)
    assert (report.done, report.failed) == (1, 0)


def test_a_stream_of_series_is_vouched_for(
    tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its passport is made of built-in series, and the same on this machine; doctor tries the encoder on them."""
    data, cache = official("ego-activity", tmp_path / "data", video), tmp_path / "cache"
    fsmm.extract("ego-activity", data, cache, ["sensor"], quiet=True, workers=1)
    app(["cache", "verify", "--passport", "--cache", str(cache), "--json"], standalone_mode=False)
    (found,) = json.loads(capsys.readouterr().out)["streams"]
    assert (found["state"], found["cosine"]) == (SAME, pytest.approx(1.0))
    assert features_of_handful(build("window-stats")).accuracy() == 1.0


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_page(name: str) -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    (row,) = [line for line in (docs / "datasets.md").read_text().splitlines() if f"`{name}`" in line]
    target = re.search(r"\]\(([a-z0-9/-]+\.md)", row)
    assert target is not None
    assert name in (docs / target[1]).read_text()
