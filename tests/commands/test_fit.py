"""``fsmm fit`` and ``fsmm predict`` on real files, and every wrong input as one sentence."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from extract_support import load_makers
from typer.testing import CliRunner, Result

from fsmm import cli
from fsmm.errors import FsmmError
from fsmm.extract.pipeline import extraction
from fsmm.extract.pipeline.report import ExtractReport
from fsmm.machine.tensors import load_tensors, tensors_digest

STREAMS = ("--streams", "flow/dis-hof,audio/logmel-mfcc")
RUNNER = CliRunner()
PITCH = {"high": 1800.0, "low": 240.0, "mid": 700.0}


def film(path: Path, name: str, number: int, *, silent: bool = False) -> Path:
    """A short video of a class, whose pitch and pictures tell the class."""
    makers = load_makers()
    path.parent.mkdir(parents=True, exist_ok=True)
    speed = {"high": 97, "low": 3, "mid": 29}[name]
    makers.video(
        path,
        frames=10 + number % 3,
        picture=lambda k, w, h: makers.numbered((k * speed + 11 * number) % 0xFFFF, w, h),
        sound=None if silent else PITCH[name] * (1 + 0.02 * number),
    )
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with examples of three classes, new clips, and a model of the examples."""
    root = tmp_path_factory.mktemp("fit")
    for name in PITCH:
        for i in range(4):
            film(root / "examples" / name / f"{i}.mp4", name, i)
        film(root / "new" / f"{name}.mp4", name, 5)
    (root / "new" / "torn.mp4").write_bytes(b"no video")
    done = run("fit", "--support", root / "examples", "--out", root / "model", *STREAMS, cache=root)
    assert done.exit_code == 0, done.output
    (root / "fit.txt").write_text(done.stdout)
    return root


def run(*words: object, cache: Path) -> Result:
    """A command with this folder's cache and one worker, in this process."""
    more = ["--cache", cache / "cache"] if words[0] in ("fit", "predict", "suggest") else []
    if words[0] in ("fit", "predict"):
        more += ["--workers", 1]
    return RUNNER.invoke(cli.app, [str(word) for word in (*words, *more)])


def sentence(*words: object, cache: Path) -> str:
    """The sentence with which a command is refused."""
    done = run(*words, cache=cache)
    assert isinstance(done.exception, (FsmmError, typer.BadParameter)), (done.output, done.exception)
    text = str(done.exception)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_the_summary_says_what_the_model_is_worth(home: Path) -> None:
    text = (home / "fit.txt").read_text()
    assert "3 classes, 12 examples (4 each): high 4, low 4, mid 4" in text
    assert re.search(
        r"expected accuracy [\d.]+ % \(95 %: \d+ to \d+\) on clips like these, by leave-one-out", text
    )
    assert re.search(r"the choice is (not )?sure: the next is ", text)
    assert "confused: " in text
    assert "calibration error" in text
    assert "95 % needs 19" in text


def test_new_clips_are_labelled_and_torn_ones_are_named(home: Path) -> None:
    done = run("predict", home / "model", home / "new", "--json", cache=home)
    rows = {Path(row["path"]).stem: row for row in json.loads(done.stdout)}
    assert {name: rows[name]["label"] for name in PITCH} == {name: name for name in PITCH}
    assert rows["torn"]["label"] is None
    assert "cannot be read" in rows["torn"]["note"]
    assert sum(rows["high"]["probabilities"].values()) == pytest.approx(1)


def test_what_was_an_example_is_not_decoded_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[ExtractReport] = []
    report = extraction.Extraction._report

    def kept(self: extraction.Extraction, *given: object) -> ExtractReport:
        found.append(report(self, *given))
        return found[-1]

    monkeypatch.setattr(extraction.Extraction, "_report", kept)
    shutil.copy(home / "examples" / "high" / "0.mp4", home / "copy.mp4")
    done = run("predict", home / "model", home / "examples", home / "copy.mp4", "--json", cache=home)
    assert len(json.loads(done.stdout)) == 13
    assert [(r.done, r.skipped, r.failed) for r in found] == [(0, 13, 0)]


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_labels_are_written(home: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"labels.{kind}"
    assert run("predict", home / "model", home / "new", "--out", out, cache=home).exit_code == 0
    if kind == "csv":
        with open(out, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {"path", "label", "probability", "note", "p: high"} <= set(rows[0])
    elif kind == "json":
        rows = json.loads(out.read_text())
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    assert {Path(row["path"]).stem: row["label"] for row in rows}["mid"] == "mid"


def test_written_labels_are_examples_again(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    run("predict", home / "model", home / "examples", "--out", out, cache=home)
    done = run("fit", "--support", out, "--out", tmp_path / "m", *STREAMS, "--json", cache=home)
    assert json.loads(done.stdout)["examples"] == 12


def test_reject_gives_sets_and_needs_enough_clips(home: Path) -> None:
    done = run("predict", home / "model", home / "new", "--reject", 0.2, "--json", cache=home)
    assert all("set" in row for row in json.loads(done.stdout) if row["label"])
    told = sentence("predict", home / "model", home / "new", "--reject", 0.05, cache=home)
    assert "need 19 calibration clips and there are 12" in told


def test_more_examples_leave_the_head_as_it_is(home: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(home / "model", model)
    for name in PITCH:
        film(tmp_path / "more" / name / "7.mp4", name, 7)
    before = json.loads((model / "model.json").read_text())
    head = tensors_digest(load_tensors(model / "head.safetensors")[0])
    done = run("fit", "--support", tmp_path / "more", "--out", model, "--add", "--json", cache=home)
    assert json.loads(done.stdout)["examples"] == 15
    after = json.loads((model / "model.json").read_text())
    assert tensors_digest(load_tensors(model / "head.safetensors")[0]) == head
    assert {k: before[k] for k in ("head", "classes", "streams")} == {
        k: after[k] for k in ("head", "classes", "streams")
    }
    again = sentence("fit", "--support", tmp_path / "more", "--out", model, "--add", cache=home)
    assert "nothing was added" in again
    film(tmp_path / "other" / "strange" / "1.mp4", "high", 8)
    assert "Unknown class of the model 'strange'" in sentence(
        "fit", "--support", tmp_path / "other", "--out", model, "--add", cache=home
    )


def test_calibration_clips_are_none_of_the_examples(home: Path, tmp_path: Path) -> None:
    for name in PITCH:
        for i in range(3):
            film(tmp_path / "held" / name / f"{i}.mp4", name, 20 + i)
    words = ("fit", "--support", home / "examples", "--out", tmp_path / "m", *STREAMS, "--method", "protonet")
    assert run(*words, "--calibration", tmp_path / "held", cache=home).exit_code == 0
    about = json.loads((tmp_path / "m" / "model.json").read_text())
    assert len(about["calibration"]["scores"]) == 9
    told = sentence(*words, "--replace", "--calibration", home / "examples", cache=home)
    assert "sets are calibrated by clips that are none" in told


def test_one_class_is_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "examples" / "high", tmp_path / "one" / "high")
    told = sentence("fit", "--support", tmp_path / "one", "--out", tmp_path / "m", *STREAMS, cache=home)
    assert "are of one class, 'high'" in told


def test_one_clip_a_class_says_that_nothing_can_be_estimated(home: Path, tmp_path: Path) -> None:
    for name in PITCH:
        (tmp_path / "few" / name).mkdir(parents=True)
        shutil.copy(home / "examples" / name / "0.mp4", tmp_path / "few" / name)
    done = run("fit", "--support", tmp_path / "few", "--out", tmp_path / "m", *STREAMS, cache=home)
    assert "With one example a class nothing can be estimated" in done.stdout
    assert "need 4 calibration clips and there are 0" in sentence(
        "predict", tmp_path / "m", home / "new", "--reject", 0.2, cache=home
    )


def test_an_empty_folder_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "No clip was found" in sentence(
        "fit", "--support", tmp_path / "empty", "--out", tmp_path / "m", *STREAMS, cache=home
    )
    assert "No clip was found" in sentence("predict", home / "model", tmp_path / "empty", cache=home)
    assert "There is no clip or folder" in sentence(
        "predict", home / "model", tmp_path / "gone.mp4", cache=home
    )


def test_an_example_that_cannot_be_read_is_left_out_and_named(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "examples", tmp_path / "torn")
    (tmp_path / "torn" / "low" / "1.mp4").write_bytes(b"no video at all")
    done = run("fit", "--support", tmp_path / "torn", "--out", tmp_path / "m", *STREAMS, cache=home)
    assert "1 clip could not be read and is left out of the examples" in done.stderr
    assert "11 examples (3 to 4 each)" in done.stdout
    for path in (tmp_path / "torn" / "low").iterdir():
        path.write_bytes(b"no video at all " + path.name.encode())
    told = sentence("fit", "--support", tmp_path / "torn", "--out", tmp_path / "n", *STREAMS, cache=home)
    assert "Class 'low' has no example that could be read" in told


def test_sound_alone_is_refused_by_a_model_of_pictures(home: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    words = ("fit", "--support", home / "examples", "--out", model, "--method", "protonet")
    assert run(*words, *STREAMS, "--modalities", "flow", cache=home).exit_code == 0
    sound = load_makers().audio(tmp_path / "tone.wav")
    told = sentence("predict", model, sound, cache=home)
    assert told == (
        "None of the 1 clips could be decided; of the first, it has no flow, which is all that the model reads."
    )


def test_a_model_whose_weights_are_gone_is_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "model", tmp_path / "m")
    (tmp_path / "m" / "head.safetensors").unlink()
    assert "lacks its file head.safetensors" in sentence("predict", tmp_path / "m", home / "new", cache=home)
    assert "is no model" in sentence("predict", home / "new", home / "new", cache=home)


def test_two_models_do_not_share_a_place(home: Path) -> None:
    before = (home / "model" / "model.json").read_bytes()
    told = sentence("fit", "--support", home / "examples", "--out", home / "model", *STREAMS, cache=home)
    assert "There is a model at" in told
    assert "--replace" in told
    assert (home / "model" / "model.json").read_bytes() == before
    told = sentence("fit", "--support", home / "examples", "--out", home / "examples", *STREAMS, cache=home)
    assert "exists and is no model" in told


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--add", "--replace"), "give one of them"),
        (("--add",), "There is no model at"),
        (("--method", "tim"), "name a base set"),
        (("--method", "protonett"), "Did you mean 'protonet'"),
        (("--method", "tip-adapter"), "no stream of the examples has a text tower"),
        (("--base", "nowhere"), "is no data set of a cache"),
        (("--streams", "word"), "takes no word stream"),
        (("--streams", "frame,frame/i3d-rgb"), "one stream a modality"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    home: Path, tmp_path: Path, words: tuple[str, ...], part: str
) -> None:
    given = words if "--streams" in words else (*STREAMS, *words)
    assert part in sentence(
        "fit", "--support", home / "examples", "--out", tmp_path / "m", *given, cache=home
    )


def test_a_kind_of_file_that_is_not_known_is_refused_before_the_work(home: Path) -> None:
    told = sentence("predict", home / "model", home / "new", "--out", "labels.xlsx", cache=home)
    assert "Known: .csv, .json, .parquet" in told
