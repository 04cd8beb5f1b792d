"""``fsmm suggest`` on a model and on a data set, and labels that come back from CSV and from Label Studio."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from extract_support import film
from tests_support import synthetic_cache
from typer.testing import CliRunner, Result

from fsmm import cli
from fsmm.errors import FsmmError, UsageError
from fsmm.extract.label_studio import exported_labels
from fsmm.extract.own_clips import OwnClips

STREAMS = ("--streams", "audio/logmel-mfcc")


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def sentence(*words: object) -> str:
    done = run(*words)
    assert isinstance(done.exception, FsmmError), done.output
    return str(done.exception)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples of two classes, six unlabelled clips, a cache, and a model."""
    root = tmp_path_factory.mktemp("suggest")
    for name, pitch in (("low", 200.0), ("high", 1500.0)):
        for i in range(2):
            film(root / "examples" / name / f"{i}.mp4", pitch + 10 * i)
        for i in range(3):
            film(root / "pool" / f"{name}{i}.mp4", pitch + 10 * i + 5)
    done = run(
        "fit", "--support", root / "examples", "--out", root / "model", *STREAMS,
        "--cache", root / "cache", "--workers", 1,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return root


def test_labels_come_back_from_a_table(home: Path, tmp_path: Path) -> None:
    table, cache = tmp_path / "to-label.csv", ("--cache", home / "cache")
    assert run("suggest", home / "model", home / "pool", "--n", 4, "--out", table, *cache).exit_code == 0
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row["suggested"] for row in rows} == {"low", "high"}
    for row in rows[:3]:  # The last one stays without a label.
        row["label"] = row["suggested"]
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    own = OwnClips.labelled(table)
    assert own.labels == {row["path"]: row["label"] for row in rows[:3]}
    assert list(own.sources) == [row["path"] for row in rows[:3]]


def test_labels_come_back_from_label_studio(home: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.json"
    done = run("suggest", home / "model", home / "pool", "--out", tasks, "--cache", home / "cache")
    assert '<Choice value="high"/>' in done.stderr
    exported = json.loads(tasks.read_text())
    assert len(exported) == 6
    for task in exported:
        (prediction,) = task["predictions"]
        task["annotations"] = [{"was_cancelled": False, "result": prediction["result"]}]
    exported[0]["annotations"][0]["was_cancelled"] = True
    tasks.write_text(json.dumps(exported))
    shutil.copytree(home / "model", tmp_path / "model")
    done = run(
        "fit", "--support", tasks, "--out", tmp_path / "model", "--add", "--json", "--cache", home / "cache"
    )
    assert json.loads(done.stdout)["examples"] == 4 + 5


def test_exports_of_both_forms_are_read_and_other_files_refused(tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    file.write_text(json.dumps([{"video": "/a.mp4", "label": "run"}, {"video": "/b.mp4"}]))
    assert exported_labels(file) == {"/a.mp4": "run"}
    for text, part in (("{}", "no export"), ("[", "cannot be read"), ('[{"data": {}}]', "names no clip")):
        file.write_text(text)
        with pytest.raises(UsageError, match=part):
            exported_labels(file)


def test_clips_of_a_data_set_without_a_label_are_ranked(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path / "cache", classes=3, clips=4, unlabelled=7)
    done = run("suggest", cache / "toy", "--n", 5, "--json")
    rows = json.loads(done.stdout)
    assert len({row["path"] for row in rows}) == 5
    assert all(row["suggested"] is None for row in rows)


def test_wrong_requests_are_one_sentence(home: Path, tmp_path: Path) -> None:
    cache = ("--cache", home / "cache")
    assert "neither a model nor a data set" in sentence("suggest", tmp_path)
    assert "Name the unlabelled videos" in sentence("suggest", home / "model", *cache)
    assert "examples of the model" in sentence("suggest", home / "model", home / "examples", *cache)
    assert "at least 1" in sentence("suggest", home / "model", home / "pool", "--n", 0, *cache)
    assert "Known: .csv, .json" in sentence(
        "suggest", home / "model", home / "pool", "--out", "a.txt", *cache
    )
    assert "Known: auto, doubt, typical" in sentence(
        "suggest", home / "model", home / "pool", "--strategy", "best", *cache
    )
    full = synthetic_cache(tmp_path / "cache", classes=3, clips=4)
    assert "no clip with features and without a label" in sentence("suggest", full / "toy")
