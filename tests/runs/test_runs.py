"""Whole runs on synthetic caches: training, checkpoints, zero-shot, multi-label, comparison, errors."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.errors import FsmmError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.metric.relation import Relation, RelationSettings
from fsmm.heads.settings import Recipe
from fsmm.machine.tensors import load_tensors
from fsmm.runs.extent import Auto
from fsmm.runs.generalised import harmonic_mean
from fsmm.runs.multi_label import average_precision, f1
from fsmm.runs.run import episode_eval
from fsmm.runs.train import train

SHORT = {
    "train.steps": "20",
    "train.evaluate_every": "10",
    "train.evaluate_episodes": "20",
    "train.tasks": "2",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=1.5)


def run(cache: Path, method: str, out: Path, **given: object):
    given = {"protocol": Protocol(n_query=4), "episodes": 60, **given}
    return episode_eval(method, "toy", cache, out=out, **given)


def test_a_run_is_a_folder_that_says_everything(cache: Path, tmp_path: Path) -> None:
    found = run(cache, "protonet", tmp_path / "r")
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    stored = np.load(tmp_path / "r" / "episodes.npz", allow_pickle=False)
    assert np.array_equal(stored["accuracy"], found.accuracy)
    assert metrics["accuracy"] == pytest.approx(float(found.accuracy.mean()), abs=1e-6)
    assert Protocol.from_dict(config["protocol"]).n_query == 4
    wanted = {
        "method",
        "dataset",
        "split",
        "streams",
        "protocol",
        "seed",
        "episodes",
        "accuracy",
        "ci95",
        "ci95_clips",
        "ci95_classes",
        "per_class",
        "train_seconds",
        "eval_seconds",
        "episodes_per_second",
        "out",
    }
    assert wanted <= set(metrics)


def test_a_run_says_of_how_many_clips_the_cache_lacks_a_modality(cache: Path, tmp_path: Path) -> None:
    metrics = run(cache, "protonet", tmp_path).metrics
    bank = FeatureBank.load(cache, ["frame", "audio"])
    lacking = {m: [bool(x) for x in table.present].count(False) for m, table in bank.tables.items()}
    assert sum(lacking.values()) > 0
    assert metrics["clips_without"] == {m: count for m, count in lacking.items() if count}


def test_the_same_seed_is_the_same_result_also_for_trained_heads(cache: Path, tmp_path: Path) -> None:
    settings = {"embed": "6", **SHORT}
    first = run(cache, "protonet", tmp_path / "a", settings=settings)
    again = run(cache, "protonet", tmp_path / "b", settings=settings)
    other = run(cache, "protonet", tmp_path / "c", settings=settings, train_seed=1)
    assert np.array_equal(first.accuracy, again.accuracy)
    assert not np.array_equal(first.accuracy, other.accuracy)
    kept = run(cache, "protonet", tmp_path / "a", settings=settings)
    assert kept.training is None, "a checkpoint that fits is used again"
    assert np.array_equal(kept.accuracy, first.accuracy)


def test_an_interrupted_training_continues_step_for_step(cache: Path, tmp_path: Path) -> None:
    base, val = (FeatureBank.load(cache, split=s).pooled() for s in ("base", "val"))
    base, val = base.select(["frame"]), val.select(["frame"])
    recipe = Recipe(steps=30, ceiling=1, tasks=2, query=3, evaluate_every=10, evaluate_episodes=20, mix=0.5)

    def fresh():
        torch.manual_seed(0)
        return build_head("protonet", inputs_of(base), {"embed": "5"})

    straight = fresh()
    train(
        head=straight,
        base=base,
        val=val,
        protocol=Protocol(n_query=3),
        recipe=recipe,
        folder=tmp_path / "one",
    )

    class Stop(Exception):
        pass

    def stop_at_17(step: int, *_: object) -> None:
        if step == 17:
            raise Stop

    with pytest.raises(Stop):
        train(
            head=fresh(),
            base=base,
            val=val,
            protocol=Protocol(n_query=3),
            recipe=recipe,
            folder=tmp_path / "two",
            progress=stop_at_17,
        )
    resumed = fresh()
    found = train(
        head=resumed, base=base, val=val, protocol=Protocol(n_query=3), recipe=recipe, folder=tmp_path / "two"
    )
    assert found.steps == 30
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values()):
        assert torch.equal(a, b)


def test_a_checkpoint_of_other_settings_is_not_continued(cache: Path, tmp_path: Path) -> None:
    """The same folder, recipe and seed, another width: trained anew, as in a folder of its own."""
    run(cache, "protonet", tmp_path / "a", settings={"embed": "5", **SHORT})
    other = run(cache, "protonet", tmp_path / "a", settings={"embed": "6", **SHORT})
    alone = run(cache, "protonet", tmp_path / "b", settings={"embed": "6", **SHORT})
    assert np.array_equal(other.accuracy, alone.accuracy)


def test_training_learns_what_can_be_learned(tmp_path: Path) -> None:
    """Classes differ in one feature of sixteen, noise fills the rest: a learned embedding must beat raw features."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(40), 12)
    codes = np.repeat([1, 1, 2, 3], 10)
    x = rng.normal(size=(480, 1, 16)).astype(np.float32)
    x[:, 0, 3] = rng.normal(size=40)[label] * 2 + 0.3 * x[:, 0, 3]
    x[:, :, 4:] *= 2
    folder = tmp_path / "c" / "toy"
    Catalog(
        "toy",
        [str(i) for i in range(480)],
        {"e": LabelSet([f"k{i}" for i in range(40)], label, splits={"default": codes})},
        "e",
    ).write(folder)
    with StreamWriter(folder, Provenance("n", "frame", 16, dtype="float32")) as writer:
        for i in range(480):
            writer.add(str(i), x[i])
    given = {"protocol": Protocol(n_query=5, k_shot=5), "episodes": 300, "normalise": "none"}
    raw = episode_eval("protonet", "toy", tmp_path / "c", out=tmp_path / "1", **given)
    settings = {"embed": "16", "train.steps": "150", "train.evaluate_every": "50"}
    learned = episode_eval("protonet", "toy", tmp_path / "c", out=tmp_path / "2", settings=settings, **given)
    gain = learned.accuracy - raw.accuracy
    assert gain.mean() > 5 * gain.std() / np.sqrt(300)


@pytest.mark.parametrize("objective", ["softmax", "triplet", "infonce"])
def test_the_common_space_compares_modalities_that_share_a_cause(tmp_path: Path, objective: str) -> None:
    """Frame and audio are linear images of one hidden class vector; words too. Chance is 1/5."""
    rng = np.random.default_rng(1)
    classes, clips = 60, 10
    hidden = rng.normal(size=(classes, 6))
    maps = {m: rng.normal(size=(6, d)) for m, d in (("frame", 12), ("audio", 10), ("word", 8))}
    label = np.repeat(np.arange(classes), clips)
    codes = np.array([1] * 45 + [2] * 7 + [3] * 8)
    names = [f"k{i}" for i in range(classes)]
    folder = tmp_path / "c" / "toy"
    Catalog(
        "toy",
        [str(i) for i in range(len(label))],
        {"e": LabelSet(names, label, splits={"default": codes})},
        "e",
    ).write(folder)
    for m in ("frame", "audio"):
        with StreamWriter(folder, Provenance("n", m, maps[m].shape[1], dtype="float32")) as writer:
            for i, c in enumerate(label):
                writer.add(
                    str(i), ((hidden[c] + 0.3 * rng.normal(size=6)) @ maps[m])[None].astype(np.float32)
                )
    with StreamWriter(folder, Provenance("n", "word", 8, axis="class", dtype="float32")) as writer:
        for c, name in enumerate(names):
            writer.add(f"e/{name}", (hidden[c] @ maps["word"])[None].astype(np.float32))
    settings = {"objective": objective, "train.steps": "250", "dim": "16", "dropout": "0"}
    for number, protocol in enumerate(
        (
            Protocol(n_query=5, support_modalities=("frame",), query_modalities=("audio",)),
            Protocol(n_query=5, k_shot=0),
            Protocol(n_query=5, k_shot=0, n_way=0),
        )
    ):
        found = episode_eval(
            "common-space",
            "toy",
            tmp_path / "c",
            out=tmp_path / f"{objective}{number}",
            protocol=protocol,
            episodes=100,
            settings=settings,
        )
        chance = 1 / 5 if protocol.n_way else 1 / 8
        assert found.mean > 2 * chance, (objective, protocol.describe(), found.mean)
    ridge = episode_eval(
        "ridge-words",
        "toy",
        tmp_path / "c",
        out=tmp_path / f"{objective}r",
        protocol=Protocol(n_query=5, k_shot=0, n_way=0),
    )
    assert ridge.mean > 0.5  # chance is 1/8
    joint = episode_eval(
        "ridge-words",
        "toy",
        tmp_path / "c",
        out=tmp_path / f"{objective}g",
        protocol=Protocol(k_shot=0, n_way=0, generalised=True),
    ).metrics
    assert joint["harmonic"] == pytest.approx(harmonic_mean(joint["seen"], joint["unseen"]))
    assert joint["harmonic"] > 0.2  # chance among all base and novel classes is below 1/50


def test_average_precision_and_f1_agree_with_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, f1_score

    rng = np.random.default_rng(0)
    score = rng.integers(0, 6, (40, 25)).astype(float)  # with ties
    truth = rng.random((40, 25)) < 0.3
    truth[:, 0] = True
    expected = [average_precision_score(t, s) for t, s in zip(truth, score)]
    assert average_precision(score, truth) == pytest.approx(np.array(expected))
    hits = np.stack(
        [((score > 3) & truth).sum(1), ((score > 3) & ~truth).sum(1), (~(score > 3) & truth).sum(1)], 1
    )
    assert f1(hits) == pytest.approx(np.array([f1_score(t, s > 3) for t, s in zip(truth, score)]))
    flat = f1_score(truth.ravel(), (score > 3).ravel())
    assert f1(hits.sum(0)) == pytest.approx(flat)


def test_multi_label_episodes_over_tags_and_over_several_label_sets(tmp_path: Path) -> None:
    """Each tag adds its own direction to the features, so every head does far better than the base rate."""
    rng = np.random.default_rng(3)
    n, tags = 400, 8
    hot = (rng.random((n, tags)) < 0.3).astype(np.uint8)
    directions = rng.normal(size=(tags, 24)) * 1.5
    x = hot @ directions + rng.normal(size=(n, 24))
    names, codes = [f"tag {i}" for i in range(tags)], np.array([1] * 4 + [3] * 4)
    one, two = rng.integers(0, 3, n), rng.integers(0, 4, n)
    sets = {
        "tags": LabelSet(names, hot, splits={"default": codes}),
        "one": LabelSet(["a", "b", "c"], one, splits={"default": np.full(3, 3)}),
        "two": LabelSet(["a", "b", "c", "d"], two, splits={"default": np.full(4, 3)}),
    }
    folder = tmp_path / "c" / "toy"
    Catalog("toy", [str(i) for i in range(n)], sets, "tags").write(folder)
    with StreamWriter(folder, Provenance("n", "frame", 24, dtype="float32")) as writer:
        for i in range(n):
            writer.add(str(i), x[i : i + 1].astype(np.float32))
    protocol = Protocol(n_way=4, k_shot=5, n_query=5)
    for method in ("protonet", "nearest"):
        found = episode_eval(
            method, "toy", tmp_path / "c", protocol=protocol, episodes=80, out=tmp_path / method
        )
        m = found.metrics
        assert m["measure"] == "mean average precision"
        assert m["map"] > 0.6, method  # base rate: about .3 to .45
        assert 0 < m["micro_f1"] <= 1
        assert 0 < m["macro_f1"] <= 1
    auto = episode_eval(
        "protonet", "toy", tmp_path / "c", protocol=protocol, episodes=Auto(1.0), out=tmp_path / "a"
    )
    count = auto.metrics["episodes"]
    fixed = episode_eval(
        "protonet", "toy", tmp_path / "c", protocol=protocol, episodes=count, out=tmp_path / "f"
    )
    assert 100 * auto.metrics["ci95"] <= 1.0
    assert "1 points asked for" in auto.metrics["why_so_many"]
    assert np.array_equal(auto.accuracy, fixed.accuracy)
    for name in ("micro_f1", "macro_f1"):
        assert auto.metrics[name] == pytest.approx(fixed.metrics[name])
    assert auto.metrics["per_class"] == pytest.approx(fixed.metrics["per_class"])
    several = episode_eval(
        "protonet",
        "toy",
        tmp_path / "c",
        protocol=replace(protocol, label_set="one+two", n_way=7),
        episodes=20,
        out=tmp_path / "s",
    ).metrics
    assert set(several["per_class"]) == {f"one: {c}" for c in "abc"} | {f"two: {c}" for c in "abcd"}


def test_only_a_wrapper_that_learns_alone_trains_by_its_own_recipe(cache: Path) -> None:
    inputs = inputs_of(FeatureBank.load(cache, ["frame", "audio"]))
    own = build_head("protonet", inputs, fusion="ea")
    assert own.recipe == type(own).recipe
    assert own.recipe != build_head("protonet", inputs, fusion="ec").inner.recipe
    for fusion in ("ec", "ea", "lf"):
        assert build_head("relation", inputs, fusion=fusion).recipe == Relation.recipe


def test_reliability_counts_what_each_modality_knows(cache: Path, tmp_path: Path) -> None:
    for method in ("protonet-lf", "protonet-ec"):
        found = run(cache, method, tmp_path / method, with_reliability=True).metrics["reliability"]
        assert set(found["modalities"]) == {"frame", "audio"}
        for figures in found["modalities"].values():
            assert 0.2 <= figures["certainty"] <= 1
            assert -np.log(5) - 1e-6 <= figures["negative_entropy"] <= 0
        assert 0 <= found["right_where_other_is_wrong"]["frame"]["audio"] <= 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"modalities": ["smell"]}, "Unknown modality"),
        ({"protocol": Protocol(n_way=30, n_query=4)}, "6 usable classes; 30-way"),
        ({"protocol": Protocol(n_query=400)}, "has 24 clips; 1-shot with 400 queries needs 401"),
        ({"protocol": Protocol(n_query=4, missing=(Missing("smell", 0.5),))}, "Unknown modality"),
        ({"protocol": Protocol(n_query=4, split="dreams")}, "Unknown split"),
        ({"protocol": Protocol(n_query=4, class_split="x")}, "Unknown class split"),
        ({"protocol": Protocol(n_query=4, label_set="mood")}, "Unknown label set"),
        ({"protocol": Protocol(n_query=4, k_shot=0)}, "needs supports"),
        ({"protocol": Protocol(n_query=4, unlabelled=5)}, "no unlabelled clips"),
        ({"protocol": Protocol(n_query=4, generalised=True)}, "whole splits"),
        ({"settings": {"colour": "red"}}, "Unknown setting"),
        ({"settings": {"embed": "many"}}, "is not a int"),
        ({"fusion": "soup"}, "not known"),
        ({"normalise": "whiten"}, "Unknown normalisation"),
        ({"device": "cuda:7"} if not torch.cuda.is_available() else {"device": "abacus"}, "Device"),
    ],
)
def test_wrong_requests_get_one_sentence(cache: Path, tmp_path: Path, given: dict, sentence: str) -> None:
    with pytest.raises(FsmmError, match=sentence) as caught:
        run(cache, "protonet", tmp_path / "r", **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r" / "metrics.json").exists()


def test_a_head_trained_under_another_default_is_trained_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = {"train.steps": "4", "train.evaluate_every": "2", "train.evaluate_episodes": "10"}

    def trains() -> bool:
        run = episode_eval("relation", "toy", cache, protocol=Protocol(n_query=4), episodes=20, settings=brief,
                           out=tmp_path / "r")  # fmt: skip
        return run.training is not None

    assert trains()
    assert not trains()

    @dataclass(frozen=True)
    class Later(RelationSettings):
        hidden: int = 8

    monkeypatch.setattr(Relation, "Settings", Later)
    assert trains()


@pytest.mark.parametrize(("shots", "places"), [(3, 5 * 3), ((1, 3), 5)])
def test_dpgn_has_one_number_a_support_where_shots_are_fixed(
    cache: Path, tmp_path: Path, shots: int | tuple[int, int], places: int
) -> None:
    task = Protocol(n_query=4, k_shot=shots)
    run(cache, "dpgn", tmp_path, protocol=task, modalities=["frame"], settings=SHORT)
    weights, _ = load_tensors(tmp_path / "head.safetensors")
    assert weights["to_distribution.0.weight"].shape == (places, 2 * places)


@pytest.mark.parametrize(
    ("method", "extra", "said"),
    [("semi-protonet", 0, "--unlabelled"), ("protonet", 6, "does not read the 6"), ("protonet", 0, "")],
)
def test_a_run_says_whether_clips_without_labels_were_read(
    method: str, extra: int, said: str, tmp_path: Path
) -> None:
    cache = synthetic_cache(tmp_path / "c", streams={"frame/net": (1, 8)}, noise=1.5, unlabelled=9)
    run(cache, method, tmp_path / "r", protocol=Protocol(n_query=4, unlabelled=extra), episodes=5)
    notes = json.loads((tmp_path / "r" / "metrics.json").read_text())["notes"]
    found = [note for note in notes if "without labels" in note]
    assert len(found) == (1 if said else 0)
    assert all(said in note for note in found)
