"""README works as printed: its blocks run in order, on a machine where the blocks before were run.

The present environment stands for what is installed, made folders for the reader's own data, and a cache of its form
for the whole demo set, which takes minutes. The program's libraries are loaded once for all lines. Everything else runs
as it stands.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from extract_support import load_makers
from tests_support import synthetic_cache
from warm_program import warm_program

from fsmm.cache.catalog import Catalog
from fsmm.extract.weights.store import weight_cache

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What is installed is the present environment.
REPLACED = {
    "git clone <this repository> fsmm && cd fsmm": ":",
    "make demo": f"python '{ROOT}/scripts/demo.py' --form small --home fsmm-demo --episodes 50",
    "make demo-full": ":",
    "make test": ":",
    ". .venv/bin/activate": ":",
    'pip install -c constraints.txt -e ".[extract]"': ":",
}
CLASSES, CLIPS = 12, 6
EMOTIONS = 12


def blocks() -> list[tuple[str, str]]:
    """The fenced blocks of README, each with its language, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The command lines of a block, without their comments, each on one line."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [re.sub(r"\s+#.*", "", line) for line in joined.splitlines()]


def lines() -> list[str]:
    """The command lines of README, in order."""
    return [line for language, text in blocks() if language == "sh" for line in commands(text)]


def test_every_block_is_one_that_runs() -> None:
    assert {language for language, _ in blocks()} == {"sh", "python"}
    assert set(REPLACED) <= set(lines()), "a replaced line is not in README any more"
    indented = re.findall(r"^    (fsmm|make|pip|git) .*$", README, re.MULTILINE)
    assert not indented, "commands stand in fenced blocks, which this test runs"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("target", "form", "home"), [("demo", "small", "fsmm-demo"), ("demo-full", "full", "fsmm-demo-full")]
)
def test_each_form_of_the_demo_has_a_home_of_its_own(target: str, form: str, home: str) -> None:
    def recipe(*words: str) -> str:
        done = subprocess.run(
            ["make", "-n", "-B", target, *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert f"scripts/demo.py --form {form} --home {home}\n" in recipe()
    assert f"scripts/demo.py --form {form} --home elsewhere\n" in recipe("DEMO_HOME=elsewhere")
    assert '-e ".[extract,report]"' in recipe(), "the demo installs no tools"


def test_slow_heads_are_named_with_their_seconds() -> None:
    rows = json.loads((ROOT / "docs" / "results" / "speed.json").read_text())["rows"]
    heads = [row for row in rows if row["table"] == "speed-heads" and row["column"] == "ours, episodes/s"]
    seconds = {row["row"]: 10_000 / row["value"] for row in heads if ":" not in row["row"]}
    readme = " ".join(README.split())
    (text,) = re.findall(r"\*\*Slow ones\*\*, in seconds: (.*?)\. Five shots", readme)
    told = {name: float(value) for name, value in re.findall(r"([\w-]+) (\d+)", text)}
    assert {name for name, value in seconds.items() if value >= 10} <= told.keys()
    for name, value in told.items():
        assert value == pytest.approx(seconds[name], rel=0.15, abs=0.6), name
    fast = sum(value < 2 for value in seconds.values())
    assert f"of the {len(seconds)} methods that were timed, {fast} need" in readme


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``git clone`` and ``cd`` lead to, with data of the reader in it."""
    folder = tmp_path_factory.mktemp("readme") / "fsmm"
    folder.mkdir()
    (folder / "docs").symlink_to(ROOT / "docs")
    own_videos(folder / "my-videos")
    for number, path in enumerate(sorted((folder / "my-videos").rglob("*.mp4"))[::9]):
        (folder / "new-videos").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "new-videos" / f"{number}.mp4")
    own_table(folder)
    massiv(folder / "3massiv", folder / "my-videos")
    own_features(folder)
    whole_demo(folder / "fsmm-demo-full" / "cache")
    return folder


@pytest.mark.slow
@pytest.mark.network
def test_the_blocks_run_in_order(home: Path) -> None:
    program = home.parent / "bin"
    program.mkdir()
    (program / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (program / "python").chmod(0o755)
    script = ["set -euo pipefail"]
    for language, text in blocks():
        if language == "python":
            script.append(f"python - <<'END'\n{text}END")
            continue
        for command in commands(text):
            script += [f"echo {shlex.quote('+ ' + command)}", REPLACED.get(command, command)]
    environment = {
        **os.environ,
        "PATH": f"{program}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(home.parent / "user-cache"),
        "FSMM_WEIGHTS": str(weight_cache()),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("FSMM_CACHE", None)
    with warm_program(program):
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=590,
        )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert [line[2:] for line in done.stdout.splitlines() if line.startswith("+ ")] == lines()
    assert {path.name for path in (home.parent / "user-cache" / "fsmm-cache").iterdir()} >= {
        "my-videos", "clips", "3massiv", "ave28",
    }  # fmt: skip


def own_videos(folder: Path) -> None:
    """Videos with sound in a folder a class."""
    makers = load_makers()
    for number in range(CLASSES * CLIPS):
        kind = number % CLASSES
        path = folder / f"class {kind:02d}" / f"{number:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        makers.video(
            path,
            frames=10,
            picture=lambda k, w, h, n=number, c=kind: makers.numbered((k * 9 + n + c * 777) % 0xFFFF, w, h),
            sound=200.0 + 50 * kind,
        )


def own_table(folder: Path) -> None:
    """A CSV file about these videos, with two label columns and a split."""
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "place", "split"])
        for number, path in enumerate(sorted((folder / "my-videos").rglob("*.mp4"))):
            table.writerow([path.relative_to(folder), path.parent.name, f"place {number % 3}", "train"])


def massiv(folder: Path, videos: Path) -> None:
    """3MASSIV in the form of its official files, with copies of these videos."""
    sizes = {"Topic": 34, "Emotion": EMOTIONS, "AudioFormat": 8, "VideoFormat": 10, "Language": 13}
    paths = sorted(videos.rglob("*.mp4"), key=lambda path: path.stem)
    posts = dict(zip(range(1000, 1000 + len(paths)), paths))
    for post, path in posts.items():
        place = folder / "videos" / str(post % 3) / f"{post}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    for split, remainders in {"train": (0, 1), "val": (2,), "test": (3,)}.items():
        rows = [",".join(["PostIndex", *sizes])]
        rows += [
            ",".join([str(post), *(str((post - 1000) % size) for size in sizes.values())])
            for post in posts
            if post % 4 in remainders
        ]
        (folder / f"3massiv_{split}.csv").write_text("\r\n".join(rows) + "\r\n")


def own_features(folder: Path) -> None:
    """Features and class words in the form that docs/examples/ave28.json maps."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(28), 20)
    np.savez(
        folder / "ave28_train3339.npz",
        audio=rng.integers(0, 256, (len(label), 10, 128), dtype=np.uint8),
        video=(rng.normal(size=(28, 1, 512))[label] + rng.normal(size=(len(label), 10, 512))).astype(
            np.float16
        ),
        label=label,
        class_names=np.array([f"event{number:02d}" for number in range(28)]),
        youtube_id=np.array([f"video{number}" for number in range(len(label))]),
        in_two_classes=np.arange(len(label)) % 50 == 0,
    )
    words = np.array([f"event{number:02d}" for number in range(28)])
    np.savez(folder / "glove.npz", words=words, vec=rng.normal(size=(28, 100)).astype(np.float32))


def whole_demo(cache: Path) -> None:
    """A cache of the whole demo's form: 20 clips a class, two of its label sets, three streams."""
    streams = {f"{modality}/net": (4, 16) for modality in ("frame", "flow", "audio")}
    synthetic_cache(cache, dataset="demo", clips=20, streams=streams)
    catalog = Catalog.read(cache / "demo")
    catalog.label_sets["motion"] = catalog.labels("event")
    catalog.write(cache / "demo")
