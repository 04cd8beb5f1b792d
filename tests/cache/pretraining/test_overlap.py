"""Classes known from pre-training: by words whatever their form, by confidence, and split in a run's accuracy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.pretraining.overlap import CONFIDENT, PART, SAME, by_words, labels_of, overlaps, stems
from fsmm.cache.schema import Provenance, list_streams
from fsmm.cache.stream import StreamWriter
from fsmm.cli import app
from fsmm.episodes.protocol import Protocol
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec

CLASSES = ["Archery", "PlayingGuitar", "climb", "zorbing", "mooping"]


@pytest.mark.parametrize(
    ("training_set", "count", "first"),
    [("imagenet-1k", 1000, "tench"), ("kinetics-400", 400, "abseiling"), ("audioset-521", 521, "Speech")],
)
def test_the_lists_are_those_of_the_training_sets(training_set: str, count: int, first: str) -> None:
    labels = labels_of(training_set)
    assert len(labels) == count
    assert labels[0] == first


@pytest.mark.parametrize(
    ("name", "training_set", "how"),
    [
        ("Archery", "kinetics-400", SAME),
        ("PlayingGuitar", "kinetics-400", SAME),
        ("push_ups", "kinetics-400", SAME),
        ("Horse Riding", "kinetics-400", PART),
        ("climb", "kinetics-400", PART),
        ("Church bell", "audioset-521", SAME),
        ("golden-retriever", "imagenet-1k", SAME),
        ("mooping", "kinetics-400", None),
        ("playing something", "kinetics-400", None),
    ],
)
def test_names_agree_by_their_words(name: str, training_set: str, how: str | None) -> None:
    found = by_words(name, training_set)
    assert (found and found.how) == how


def test_endings_and_order_do_not_count() -> None:
    assert stems("ShootingBasketballs") == stems("basketball_shoot")
    assert stems("the") == frozenset()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Five classes of eight clips with I3D features, and scores that are sure of one class and not of another."""
    draws, n = np.random.default_rng(0), 40
    label = np.arange(n) % 5
    folder = tmp_path / "toy"
    splits = {"default": np.full(5, 3)}
    Catalog(
        "toy", [f"c{i}" for i in range(n)], {"kind": LabelSet(CLASSES, label, splits=splits)}, "kind"
    ).write(folder)
    centre = draws.normal(size=(5, 6))
    kinetics = labels_of("kinetics-400")
    sure = {3: kinetics.index("skydiving"), 0: kinetics.index("archery")}
    with (
        StreamWriter(folder, Provenance("i3d-rgb", "frame", 6, dtype="float32")) as features,
        StreamWriter(folder, Provenance("i3d-rgb-scores", "score", 400, dtype="float32")) as scores,
    ):
        for i, c in enumerate(label.tolist()):
            features.add(f"c{i}", (centre[c] + 0.5 * draws.normal(size=(1, 6))).astype(np.float32))
            probability = draws.dirichlet(np.full(400, 0.5))[None] * 0.2
            probability[0, sure.get(c, int(draws.integers(400)))] += 0.8 if c in sure else 0.0
            scores.add(f"c{i}", probability.astype(np.float32))
    return tmp_path


def test_words_come_first_and_confidence_finds_what_they_miss(cache: Path) -> None:
    folder = cache / "toy"
    catalog = Catalog.read(folder)
    found = {o.class_name: o for o in overlaps(folder, catalog, list_streams(folder))}
    assert {name: o.how for name, o in found.items()} == {
        "Archery": SAME,
        "PlayingGuitar": SAME,
        "climb": PART,
        "zorbing": CONFIDENT,
    }
    assert found["zorbing"].label == "skydiving"
    assert found["Archery"].confidence == pytest.approx(0.8, abs=0.05)
    assert found["PlayingGuitar"].confidence is None


def test_a_run_splits_its_accuracy_and_leaves_scores_out(cache: Path, tmp_path: Path) -> None:
    protocol = Protocol(n_way=5, n_query=3)
    job = Job(
        spec=RunSpec(method="protonet", protocol=protocol),
        place=Place(cache=cache, dataset="toy", out=tmp_path / "run"),
        episodes=50,
    )
    metrics = run(job).metrics
    assert metrics["streams"] == {"frame": "frame/i3d-rgb"}
    found, per_class = metrics["pretraining"], metrics["per_class"]
    assert (found["classes_overlapping"], found["classes_unseen"]) == (4, 1)
    assert found["accuracy_unseen"] == per_class["mooping"]
    known = [accuracy for name, accuracy in per_class.items() if name != "mooping"]
    assert found["accuracy_overlapping"] == pytest.approx(np.mean(known))


def test_the_command_lists_them(cache: Path) -> None:
    said = CliRunner().invoke(app, ["cache", "overlap", "--cache", str(cache)])
    assert said.exit_code == 0, said.output
    assert "4 of 5 classes are known" in said.output
    document = json.loads(
        CliRunner().invoke(app, ["cache", "overlap", "--cache", str(cache), "--json"]).output
    )
    assert {row["class_name"]: row["split"] for row in document["overlaps"]}["climb"] == "novel"


def test_scores_tell_of_their_training_set_where_no_feature_is_of_its_encoder(cache: Path) -> None:
    shutil.rmtree(cache / "toy" / "streams" / "frame")
    with StreamWriter(cache / "toy", Provenance("own-net", "frame", 2, dtype="float32")) as writer:
        writer.add("c0", np.ones((1, 2), np.float32))
    said = CliRunner().invoke(app, ["cache", "overlap", "--cache", str(cache), "--json"])
    document = json.loads(said.output)
    assert {row["class_name"] for row in document["overlaps"]} == {
        "Archery",
        "PlayingGuitar",
        "climb",
        "zorbing",
    }
    assert document["streams_without_a_list"] == ["frame/own-net"]


def test_imported_features_name_their_training_set_by_their_weights(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    Catalog("toy", ["x"], {"kind": LabelSet(["Bark"], np.zeros(1, int))}, "kind").write(folder)
    with StreamWriter(folder, Provenance("vggish", "audio", 2, weights="VGGish, AudioSet")) as writer:
        writer.add("x", np.ones((1, 2)))
    (found,) = overlaps(folder, Catalog.read(folder), list_streams(folder))
    assert (found.training_set, found.label, found.how) == ("audioset-521", "Bark", SAME)
