"""Kept heads and interrupted trainings: used where all that they depend on is the same, and made anew otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache
from torch import Tensor

from fsmm.episodes.protocol import Protocol
from fsmm.errors import FsmmError
from fsmm.machine.tensors import load_tensors, save_tensors
from fsmm.runs.checkpoint import unfitting
from fsmm.runs.job import Job, Place
from fsmm.runs.run import Ready, Run, finish, load, ready, run
from fsmm.runs.spec import RunSpec
from fsmm.runs.train import LATEST

SHORT = {"train.steps": "6", "train.evaluate_every": "3", "train.evaluate_episodes": "10", "train.tasks": "2"}
HEAD, STATE = "head.safetensors", f"training/{LATEST}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), noise=1.5)


def job_of(cache: Path, out: Path, **given: object) -> Job:
    """A job that trains a Relation Network on frames for six steps, with ``given`` of its spec changed."""
    spec = RunSpec(
        **{
            "method": "relation",
            "protocol": Protocol(n_query=4),
            "modalities": ("frame",),
            "settings": SHORT,
            **given,
        }
    )
    return Job(spec=spec, place=Place(cache=cache, dataset="toy", out=out), episodes=30)


@pytest.fixture(scope="module")
def first(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(job_of(cache, tmp_path_factory.mktemp("runs") / "first"))


@pytest.fixture
def folder(first: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first.out, tmp_path / "run"))


def edited(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> None:
    """Change the tensors and texts of a file, which gets the digest of the new content."""
    tensors, about = load_tensors(path)
    change(tensors, about)
    save_tensors(path, tensors, about)


def rename(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    name = next(iter(tensors))
    tensors[f"{name}.other"] = tensors.pop(name)


def reshape(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.ndim)
    tensors[name] = torch.cat([tensors[name], tensors[name]])


def spoil(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    tensors[next(iter(tensors))].view(-1)[0] = torch.nan


def retype(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].double()


def test_a_kept_head_that_fits_is_used(cache: Path, first: Run, folder: Path) -> None:
    again = run(job_of(cache, folder))
    assert again.training is None
    assert again.metrics["notes"] == []
    assert np.array_equal(again.accuracy, first.accuracy)


@pytest.mark.parametrize("state", ["kept", "gone"])
def test_a_flipped_bit_in_a_kept_head_makes_it_anew_with_a_note(
    cache: Path, first: Run, folder: Path, state: str
) -> None:
    content = bytearray((folder / HEAD).read_bytes())
    content[-5] ^= 1 << 6
    (folder / HEAD).write_bytes(content)
    if state == "gone":
        shutil.rmtree(folder / "training")
    again = run(job_of(cache, folder))
    assert again.training is not None
    assert ["is damaged" in note and "made anew" in note for note in again.metrics["notes"]] == [True]
    assert np.array_equal(again.accuracy, first.accuracy)
    assert run(job_of(cache, folder)).training is None, "the new head is kept"


@pytest.mark.parametrize("content", [b"", b"torn", b"\xff" * 100, None])
def test_torn_and_foreign_files_in_the_place_of_a_head_make_it_anew(
    cache: Path, first: Run, folder: Path, content: bytes | None
) -> None:
    whole = (folder / HEAD).read_bytes()
    (folder / HEAD).write_bytes(whole[: len(whole) // 2] if content is None else content)
    again = run(job_of(cache, folder))
    assert "cannot be read" in again.metrics["notes"][0]
    assert np.array_equal(again.accuracy, first.accuracy)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (rename, "has no tensor"),
        (reshape, "has shape"),
        (retype, "has type torch.float64"),
        (spoil, "not finite"),
        (lambda _, about: about.update(identity="{}"), "was trained with other"),
        (lambda _, about: about.update(identity="[" * 100_000), "was trained with other"),
        (lambda _, about: about.clear(), "was trained with other"),
    ],
)
def test_a_whole_head_that_does_not_fit_is_made_anew(
    cache: Path, first: Run, folder: Path, change: Callable[..., object], sentence: str
) -> None:
    edited(folder / HEAD, change)
    again = run(job_of(cache, folder))
    assert sentence in again.metrics["notes"][0]
    assert np.array_equal(again.accuracy, first.accuracy)


@pytest.mark.parametrize(
    "change",
    [
        rename,
        reshape,
        spoil,
        lambda _, about: about.update(training="{}}"),
        lambda _, about: about.update(training='{"x": 1}'),
        lambda _, about: about.update(training="[1]"),
        lambda _, about: about.update(training='{"steps": "six", "curve": 5}'),
        lambda _, about: about.pop("training"),
        lambda tensors, _: tensors.update({"optimiser.one.step": torch.ones(1)}),
    ],
)
def test_a_training_state_that_does_not_fit_is_begun_anew(
    cache: Path, first: Run, folder: Path, change: Callable[..., object]
) -> None:
    (folder / HEAD).unlink()
    edited(folder / STATE, change)
    again = run(job_of(cache, folder))
    assert "the training began anew" in again.metrics["notes"][0]
    assert "\n" not in again.metrics["notes"][0]
    assert np.array_equal(again.accuracy, first.accuracy)


def test_a_damaged_training_state_is_begun_anew(cache: Path, first: Run, folder: Path) -> None:
    (folder / HEAD).unlink()
    content = bytearray((folder / STATE).read_bytes())
    content[-5] ^= 1
    (folder / STATE).write_bytes(content)
    again = run(job_of(cache, folder))
    assert "is damaged" in again.metrics["notes"][0]
    assert "the training began anew" in again.metrics["notes"][0]
    assert np.array_equal(again.accuracy, first.accuracy)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"settings": {**SHORT, "hidden": "5"}}, "head settings"),
        ({"settings": {**SHORT, "train.steps": "9"}}, "recipe"),
        ({"train_seed": 4}, "train_seed"),
        ({"normalise": "none"}, "normalise"),
        ({"modalities": ("audio",)}, "features"),
        ({"protocol": Protocol(n_query=4, n_way=3)}, "protocol"),
    ],
)
def test_a_head_of_other_settings_is_made_anew_and_the_settings_are_named(
    cache: Path, folder: Path, tmp_path: Path, given: dict[str, object], word: str
) -> None:
    job = job_of(cache, folder, **given)
    again = run(job)
    assert word in again.metrics["notes"][0]
    fresh = run(replace(job, place=replace(job.place, out=tmp_path / "fresh")))
    assert np.array_equal(again.accuracy, fresh.accuracy)


@pytest.mark.parametrize("kept", [HEAD, STATE])
def test_neither_a_head_nor_a_training_state_of_other_features_is_used(
    folder: Path, tmp_path: Path, kept: str
) -> None:
    """The streams have the same names and the clips the same ids and labels; the features alone are others."""
    other = synthetic_cache(tmp_path / "other", noise=1.5, seed=1)
    if kept == STATE:
        (folder / HEAD).unlink()
    again = run(job_of(other, folder))
    assert again.training is not None
    fresh = run(job_of(other, tmp_path / "fresh"))
    assert np.array_equal(again.accuracy, fresh.accuracy)
    if kept == HEAD:
        assert "other features" in again.metrics["notes"][0]


def test_training_again_is_no_continuation(cache: Path, folder: Path) -> None:
    stamp = (folder / STATE).stat().st_mtime_ns
    again = run(replace(job_of(cache, folder), retrain=True))
    assert again.training is not None
    assert again.metrics["notes"] == []
    assert (folder / STATE).stat().st_mtime_ns != stamp


def test_the_last_of_two_runs_into_one_folder_leaves_its_own_head(cache: Path, tmp_path: Path) -> None:
    """Both heads are trained before either run is measured, and the first to be trained is the last to be stored."""
    one, two = (job_of(cache, tmp_path / "run", train_seed=seed) for seed in (0, 1))
    trained: list[Ready] = []
    for job in (one, two):
        job, banks = load(job)
        trained.append(ready(job, banks))
    finish(trained[1])
    finish(trained[0])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train_seed"] == 0
    weights, _ = load_tensors(tmp_path / "run" / HEAD)
    assert not unfitting(trained[0].head.state_dict(), weights)
    assert all(torch.equal(weights[k], v) for k, v in trained[0].head.state_dict().items())
    assert run(one).training is None


def test_a_training_that_ends_in_weights_without_a_value_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_infinity(self: torch.optim.Adam, closure: None = None) -> None:
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(torch.inf)

    monkeypatch.setattr(torch.optim.Adam, "step", to_infinity)
    settings = {**SHORT, "train.steps": "1", "train.optimiser": "adam", "train.evaluate_every": "1"}
    monkeypatch.setattr("fsmm.runs.banks.Banks.val", None)
    with pytest.raises(FsmmError, match=r"diverged at step 1 .*not finite"):
        run(job_of(cache, tmp_path / "run", settings=settings))
    assert not (tmp_path / "run" / HEAD).exists()
