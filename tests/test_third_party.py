"""A package of one's own adds methods, encoders and data sets by entry points (examples/third_party)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import av
import numpy as np
import pytest

from fsmm.errors import FsmmError
from fsmm.heads.registry import METHODS, Method
from fsmm.machine import plugins

PACKAGE = Path(__file__).resolve().parents[1] / "examples" / "third_party"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that sees the example package, installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "third_party"
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", ".toml") and "build" not in path.parts:
            (source / path.relative_to(PACKAGE)).parent.mkdir(parents=True, exist_ok=True)
            (source / path.relative_to(PACKAGE)).write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    paths = [str(target), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def fsmm(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fsmm", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_video(path: Path, brightness: int) -> None:
    """Half a second of one grey tone with a little noise."""
    rng = np.random.default_rng(len(path.name) + sum(path.name.encode()))
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=16)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(8):
            picture = np.clip(brightness + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))


@pytest.mark.slow
def test_its_rows_are_listed_and_used(installed: dict[str, str], tmp_path: Path) -> None:
    page = json.loads(fsmm(installed, "methods", "median", "--json"))
    assert page["settings"][0]["key"] == "scale"
    assert "brightness" in {row["name"] for row in json.loads(fsmm(installed, "encoders", "--json"))}
    videos, cache = tmp_path / "videos", str(tmp_path / "cache")
    videos.mkdir()
    for number, tone in enumerate((20, 60, 100, 140, 180, 220)):
        for clip in range(4):
            write_video(videos / f"tone{number}-{clip}.mp4", tone)
    extract = ("extract", "--dataset", "flat-names", "--data", str(videos), "--cache", cache)
    fsmm(installed, "-q", *extract, "--streams", "frame", "--encoder", "frame=brightness")
    evaluate = ("episode-eval", "--method", "median", "--split", "all", "--n-way", "3", "--k-shot", "2")
    evaluate += ("--n-query", "2", "--episodes", "50", "--normalise", "none", "--cache", cache, "--json")
    assert json.loads(fsmm(installed, "-q", *evaluate))["accuracy"] > 0.95  # tones lie forty levels apart


class Listed:
    """Stands in for the installed packages' entry points."""

    def __init__(self, *points: tuple[str, str]) -> None:
        self.points = points

    def __call__(self, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in self.points]


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ((("mine", "no_such_module_anywhere:ROW"),), "cannot be loaded"),
        ((("mine", "json:dumps"),), "is not a"),
        ((("protonet", "fsmm.heads.registry:METHODS"),), "is not a"),
    ],
)
def test_an_unusable_row_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, points: tuple[tuple[str, str], ...], says: str
) -> None:
    monkeypatch.setattr(plugins, "entry_points", Listed(*points))
    with pytest.raises(FsmmError, match=says):
        plugins.rows_of("fsmm.heads", Method, METHODS)


def test_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", Listed(("median", "fsmm.errors:unknown")))
    with pytest.raises(FsmmError, match="taken"):
        plugins.rows_of("fsmm.heads", type(plugins.rows_of), {"median"})
