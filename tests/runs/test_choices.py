"""Nobody peeks: nothing that a run chooses depends on the labels of novel clips, and a run says what it chose on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache
from torch import Tensor
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog
from fsmm.cli import app
from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Protocol
from fsmm.heads import registry
from fsmm.heads.head import Head, Inputs
from fsmm.heads.language.word_head import WordHead
from fsmm.heads.multimodal.weights import HasWeights
from fsmm.heads.registry import METHODS, Method
from fsmm.heads.settings import Recipe, Settings
from fsmm.runs.choices import choices_of
from fsmm.runs.job import Job, Place
from fsmm.runs.leave_classes_out import chosen_rule
from fsmm.runs.run import Ready, load, ready, run
from fsmm.runs.shared import SharedBanks
from fsmm.runs.spec import RunSpec

TASK = Protocol(n_way=3, k_shot=2, n_query=2)
BRIEF = {
    "train.steps": "2",
    "train.evaluate_every": "1",
    "train.evaluate_episodes": "3",
    "train.tasks": "1",
    "train.query": "2",
}
CHOOSING = [name for name, method in METHODS.items() if method.regime != "none" or method.fits_base]
FUSED = ("protonet-lf", "protonet-ec", "protonet-ea")
SHARED = SharedBanks()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache, and the same one with the labels of its novel clips permuted."""
    given: dict[str, Any] = {"classes": 12, "clips": 6, "streams": {"frame/net": (3, 8), "audio/net": (2, 8)}}
    roots = [synthetic_cache(tmp_path_factory.mktemp(name), **given) for name in ("right", "permuted")]
    catalog = Catalog.read(roots[1] / "toy")
    label = catalog.labels("event").label
    novel = np.flatnonzero(label >= 8)
    label[novel] = np.random.default_rng(3).permutation(label[novel])
    catalog.write(roots[1] / "toy")
    return roots[0], roots[1]


def made(cache: Path, out: Path, spec: RunSpec) -> Ready:
    job = Job(spec=spec, place=Place(cache=cache, dataset="toy", out=out), episodes=4)
    return ready(*load(job, shared=SHARED))


def spec_of(name: str, **given: Any) -> RunSpec:
    stem = registry.base_name(name)
    method = registry.methods()[stem]
    learns = method.regime != "none" or name.endswith("-ea")
    one = method.modalities == "one" and stem == name
    values = {
        "method": name,
        "protocol": TASK,
        "modalities": ("frame",) if one else None,
        "settings": BRIEF if learns else {},
    }
    return RunSpec(**{**values, **given})


def chosen(found: Ready) -> dict[str, Any]:
    """Everything of a ready head that something might have chosen, as texts that tell bits apart."""
    head, training = found.head, found.made.training
    state = {key: value.tolist() for key, value in head.state_dict().items() if isinstance(value, Tensor)}
    about: dict[str, Any] = {} if training is None else {**asdict(training), "seconds": 0}
    return {
        "state": repr(state),
        "own": repr(head.chosen()),
        "weights": repr(head.weights) if isinstance(head, HasWeights) else "",
        "training": repr(about),
        "scaled": found.banks.normalise,
        "choices": repr(choices_of(found.job, found.banks, head, stopped=found.made.stopped, result=None)),
    }


def peeks(caches: tuple[Path, Path], out: Path, spec: RunSpec) -> list[str]:
    """What changes when the labels of novel clips are permuted."""
    right, permuted = (chosen(made(cache, out / cache.name, spec)) for cache in caches)
    return [key for key in right if right[key] != permuted[key]]


@pytest.mark.parametrize("name", [*CHOOSING, *FUSED])
def test_the_labels_of_novel_clips_change_nothing_that_is_chosen(
    caches: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    assert peeks(caches, tmp_path, spec_of(name)) == []


@pytest.mark.parametrize("normalise", ["auto", "centre-l2"])
def test_nor_how_features_are_scaled(caches: tuple[Path, Path], tmp_path: Path, normalise: str) -> None:
    assert peeks(caches, tmp_path, spec_of("simpleshot", normalise=normalise)) == []


def test_nor_what_tells_seen_from_unseen_classes(caches: tuple[Path, Path], tmp_path: Path) -> None:
    whole = Protocol(n_way=0, k_shot=0, generalised=True)
    rules = []
    for cache in caches:
        spec = spec_of("ridge-words", protocol=whole)
        found = made(cache, tmp_path / cache.name, spec)
        rules.append(chosen_rule(spec, found.banks, found.head))
    assert rules[0] == rules[1]


class Peeking(Head[Settings]):
    """A head that looks at the labels of the queries that it is asked while it does not train."""

    recipe = Recipe()
    seen: Tensor

    def __init__(self, inputs: Inputs, settings: Settings) -> None:
        super().__init__(inputs, settings)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, episodes: Episodes) -> Tensor:
        x, support = episodes.query["frame"].pooled(), episodes.support["frame"].pooled().mean(2)
        logits = -self.scale * torch.cdist(x, support).square()
        if not self.training:
            self.seen += (logits.argmax(-1) == episodes.query_label).double().mean() * x.abs().mean()
        return logits


def test_a_head_that_peeks_on_purpose_is_found(
    caches: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Method(target="tests:Peeking", paper=METHODS["protonet"].paper, regime="episodic")
    monkeypatch.setattr(Method, "load", lambda self: Peeking)
    monkeypatch.setattr(registry, "methods", lambda: {**METHODS, "peeking": row})
    assert "state" in peeks(caches, tmp_path, spec_of("peeking"))


def by_name(metrics: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {choice["what"]: (choice["value"], choice["on"]) for choice in metrics["choices"]}


def measured(cache: Path, out: Path, name: str, **given: Any) -> dict[str, tuple[Any, str]]:
    job = Job(spec=spec_of(name, **given), place=Place(cache=cache, dataset="toy", out=out), episodes=4)
    return by_name(run(job).metrics)


def test_a_run_says_what_each_choice_was_made_on(caches: tuple[Path, Path], tmp_path: Path) -> None:
    cache = caches[0]
    found = measured(cache, tmp_path / "a", "relation")
    assert found["recipe"] == ("the method's own", "none")
    assert found["recipe, otherwise"][1] == "given"
    assert found["state of the training"][1] == "val"
    assert found["normalisation"] == ("l2", "none")
    again = measured(cache, tmp_path / "a", "relation")  # The head is used again.
    assert again["state of the training"] == found["state of the training"]
    found = measured(
        cache, tmp_path / "b", "protonet-lf", normalise="auto", settings={"fusion.rule": "product"}
    )
    assert found["normalisation"][1] == "base and val"
    assert found["weights of modalities"][1] == "base"
    assert found["settings, otherwise"] == ({"fusion.rule": "product"}, "given")
    equal = measured(
        cache, tmp_path / "c", "protonet-lf", settings={"fusion.weights": "equal"}, normalise="none"
    )
    assert equal["weights of modalities"] == ({"frame": 0.5, "audio": 0.5}, "given")
    assert equal["normalisation"] == ("none", "given")
    whole = Protocol(n_way=0, k_shot=0, generalised=True)
    assert measured(cache, tmp_path / "d", "ridge-words", protocol=whole)["seen or unseen"][1] == "base"
    hoso = measured(cache, tmp_path / "e", "hoso")
    assert hoso["ratio of the two scores"] == ("in each task", "supports")
    assert measured(cache, tmp_path / "f", "gda")["alpha"][1] == "base"


def test_settings_that_a_tuning_chose_name_it_until_they_are_changed(
    caches: tuple[Path, Path], tmp_path: Path
) -> None:
    spec = spec_of("protonet", settings={"distance": "cosine", "scale": "20"})
    place = Place(cache=caches[0], dataset="toy", out=tmp_path / "run")
    tuned = {"distance": "cosine", "scale": "10"}  # The user has set another scale since.
    job = Job(
        spec=spec, place=place, episodes=4, tuned_settings=tuned, tuned_on="val", tuned_by="toy, s0: val"
    )
    found = by_name(run(job).metrics)
    assert found["settings, tuned"] == ({"distance": "cosine", "by": "toy, s0: val"}, "val")
    assert found["settings, otherwise"] == ({"scale": "20"}, "given")


def test_language_heads_declare_what_their_settings_were_chosen_on() -> None:
    for name, method in METHODS.items():
        if method.family == "language":
            assert method.load().decided, name
    assert WordHead.decided.keys() <= METHODS["gda"].load().decided.keys()


def test_details_of_runs_are_shown(caches: tuple[Path, Path], tmp_path: Path) -> None:
    measured(caches[0], tmp_path / "run", "protonet")
    shown = CliRunner().invoke(app, ["runs", str(tmp_path), "--details"])
    assert "what was chosen" in shown.stdout
    assert "normalisation" in shown.stdout
    listed = json.loads(CliRunner().invoke(app, ["runs", str(tmp_path), "--json"]).stdout)
    assert {choice["what"] for choice in listed[0]["choices"]} >= {"normalisation", "settings"}
