"""Training on another data set: whose classes train, which are left out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests_support import synthetic_cache

from fsmm.episodes.protocol import Protocol
from fsmm.errors import NoClips, UsageError
from fsmm.runs.banks import Banks
from fsmm.runs.job import Job, Place
from fsmm.runs.run import Run, run
from fsmm.runs.spec import RunSpec

SHORT = {"train.steps": "4", "train.evaluate_every": "2", "train.evaluate_episodes": "5", "train.tasks": "2"}
OVERLAP = tuple(f"class {c}" for c in range(6, 10))  # base classes of "wide" that are val classes of "toy"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    synthetic_cache(root, clips=8)  # base classes 0 to 5, val 6 to 11, novel 12 to 17
    synthetic_cache(
        root,
        dataset="wide",
        classes=30,
        clips=8,
        seed=1,
        streams={"frame/net": (6, 16), "audio/net": (3, 12)},
    )
    synthetic_cache(root, dataset="other", clips=8, seed=2, streams={"frame/other": (4, 16)})
    return synthetic_cache(root, dataset="narrow", clips=8, seed=2, streams={"frame/net": (4, 8)})


def spec_of(**given: object) -> RunSpec:
    values = {
        "method": "relation",
        "modalities": ("frame",),
        "settings": SHORT,
        "protocol": Protocol(n_query=3),
    }
    return RunSpec(**{**values, **given})


def made(cache: Path, out: Path, **given: object) -> Run:
    place = Place(cache=cache, dataset="toy", out=out)
    return run(Job(spec=spec_of(**given), place=place, episodes=20))


def test_base_classes_of_the_other_train_without_those_that_are_val_or_novel_here(
    cache: Path, tmp_path: Path
) -> None:
    banks = Banks(spec_of(train_dataset="wide"), Place(cache=cache, dataset="toy"))
    assert banks.base.dataset == "wide"
    assert banks.base.class_names == [f"class {c}" for c in range(6)]
    assert len(banks.base) == 6 * 8
    assert banks.test.dataset == banks.val.dataset == "toy"
    found = made(cache, tmp_path / "run", train_dataset="wide")
    assert found.metrics["train_dataset"] == "wide"
    assert tuple(found.metrics["train_left_out"]) == OVERLAP
    assert any("leaves out 4 of its 10 classes" in note for note in found.metrics["notes"])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["train_dataset"] == "wide"


def test_a_kept_head_knows_the_data_set_that_trained_it(cache: Path, tmp_path: Path) -> None:
    own = made(cache, tmp_path)
    again = made(cache, tmp_path, train_dataset="wide")
    assert own.training is not None
    assert again.training is not None
    assert any("trained with other" in note for note in again.training.notes)
    assert again.training.curve[-1]["loss"] != own.training.curve[-1]["loss"]
    assert made(cache, tmp_path, train_dataset="wide").training is None  # It is used again.


def test_training_on_the_tested_data_set_by_name_is_the_usual_training(cache: Path, tmp_path: Path) -> None:
    usual, named = made(cache, tmp_path / "a"), made(cache, tmp_path / "b", train_dataset="toy")
    assert usual.accuracy.tolist() == named.accuracy.tolist()
    assert named.metrics["train_dataset"] is None


def test_sequences_of_the_other_are_as_long_as_those_of_the_test_at_most(cache: Path) -> None:
    spec = spec_of(method="otam", settings={}, train_dataset="wide")
    assert Banks(spec, Place(cache=cache, dataset="toy")).base.tables["frame"].steps == 4


def test_centring_is_by_the_classes_that_train(cache: Path) -> None:
    place = Place(cache=cache, dataset="toy")
    own, other = (
        Banks(spec_of(method="protonet", settings={}, normalise="centre-l2", train_dataset=name), place)
        for name in (None, "wide")
    )
    rows = torch.arange(4)
    assert not torch.allclose(
        own.test.tables["frame"].gather(rows).x, other.test.tables["frame"].gather(rows).x
    )


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("other", UsageError, "'other' has no stream frame/net"),
        ("narrow", UsageError, r"other widths in 'toy' than in 'narrow' \(16 and 8\)"),
        ("nowhere", Exception, "'nowhere' is not in the cache"),
    ],
)
def test_a_stream_that_differs_is_refused(
    cache: Path, name: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        Banks(spec_of(train_dataset=name), Place(cache=cache, dataset="toy"))


def test_nothing_to_train_on_is_refused_and_a_head_that_learns_nothing_is_noted(
    cache: Path, tmp_path: Path
) -> None:
    every = spec_of(train_dataset="wide", protocol=Protocol(n_query=3, split="all"))
    with pytest.raises(NoClips, match="all 10 are val or novel"):
        Banks(every, Place(cache=cache, dataset="toy"))
    found = made(cache, tmp_path, method="protonet", settings={}, train_dataset="wide")
    assert (
        "protonet takes nothing from training classes, so --train-dataset changes nothing."
        in found.metrics["notes"]
    )


def test_specifications_without_another_data_set_keep_their_names() -> None:
    spec = spec_of()
    assert "train_dataset" not in spec.content()
    assert spec.digest() != spec_of(train_dataset="wide").digest()
