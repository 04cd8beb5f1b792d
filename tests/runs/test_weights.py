"""Runs whose modalities base episodes weigh: what they store and print, and what they do without base classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache

import fsmm
from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.cache.sample import Sample
from fsmm.commands.tables import show_run
from fsmm.episodes.protocol import Protocol
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.multimodal.weights import HasWeights, ModalityWeights
from fsmm.heads.registry import find
from fsmm.heads.settings import Recipe
from fsmm.runs.banks import Banks
from fsmm.runs.job import Place
from fsmm.runs.spec import RunSpec
from fsmm.runs.weights import fit_weights


def evaluate(cache: Path, weights: str, **given: Any) -> Any:
    return fsmm.episode_eval(
        "protonet",
        cache=cache,
        protocol=Protocol(n_query=5, **given),
        episodes=300,
        settings={"fusion.weights": weights},
        out=cache / weights,
    )


def test_a_run_stores_and_prints_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streams = {"frame/net": (1, 16), "audio/net": (1, 1)}
    cache = synthetic_cache(tmp_path, classes=24, streams=streams, noise=1.0)
    found = evaluate(cache, "base")
    weights = found.metrics["modality_weights"]
    assert weights["share"]["frame"] > weights["share"]["audio"]
    assert weights["gain"] > weights["gain_interval"] > 0
    equal = evaluate(cache, "equal")
    assert equal.metrics["modality_weights"]["share"] == {"frame": 0.5, "audio": 0.5}
    assert equal.metrics["modality_weights"]["gain"] is None
    assert found.mean > equal.mean
    assert evaluate(cache, "base", seed=1).metrics["modality_weights"] == weights, "they are of no run's seed"
    show_run(found.metrics)
    assert "minus equal ones" in " ".join(capsys.readouterr().out.split())


def test_weights_stay_equal_with_a_note_where_there_are_no_base_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = synthetic_cache(tmp_path, classes=9)
    catalog = Catalog.read(cache / "toy")
    labels = catalog.labels()
    catalog.label_sets["event"] = replace(labels, splits={"default": np.full(9, 3)})
    catalog.write(cache / "toy")
    found = evaluate(cache, "base")
    assert "no clips of base classes" in found.metrics["modality_weights"]["note"]
    assert found.mean == evaluate(cache, "equal").mean
    show_run(found.metrics)
    assert "equal; weights could not be fitted" in " ".join(capsys.readouterr().out.split())


STREAMS = {"frame/net": (2, 16), "audio/net": (1, 1)}


def spec_of(*modalities: str, method: str = "protonet", **given: Any) -> RunSpec:
    return RunSpec(method=method, modalities=modalities or None, protocol=Protocol(n_query=5, **given))


def fitted(cache: Path, spec: RunSpec) -> tuple[ModalityWeights | None, Banks]:
    banks = Banks(spec, Place(cache=cache))
    head = build_head(spec.method, inputs_of(banks.test))
    fit_weights(head, spec, banks)
    return (head.weights if isinstance(head, HasWeights) else None), banks


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The split and the number of clips of each bank that is read from the cache."""
    found: list[tuple[str, int]] = []
    original = Banks._read

    def noted(self: Banks, split: str, sample: Sample | None = None) -> FeatureBank:
        bank = original(self, split, sample)
        found.append((split, len(bank)))
        return bank

    monkeypatch.setattr(Banks, "_read", noted)
    return found


def test_base_clips_are_read_only_to_weigh_modalities(tmp_path: Path, read: list[tuple[str, int]]) -> None:
    cache = synthetic_cache(tmp_path, streams=STREAMS)
    assert fitted(cache, spec_of("frame"))[0] is None
    one = ("frame",)
    alone, _ = fitted(cache, spec_of(support_modalities=one, query_modalities=one))
    assert alone == ModalityWeights.equal(["frame", "audio"])
    assert {split for split, _ in read} == {"novel"}
    joined, _ = fitted(cache, spec_of())
    assert joined is not None
    assert joined.gain is not None
    assert [split for split, _ in read].count("base") == 1


@pytest.mark.parametrize("method", ["protonet-ec", "otam-ec", "simpleshot-lf"])
def test_a_large_base_split_is_sampled_alike_in_memory_or_not(
    tmp_path: Path, read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    cache = synthetic_cache(tmp_path, streams=STREAMS)
    monkeypatch.setattr("fsmm.runs.weights.CLIPS", 60)
    few, banks = fitted(cache, spec_of(method=method))
    part = banks.base_sample(Sample(clips=60, least=1))
    assert np.array_equal(part.counts(), [10] * 6)
    least = 1 + Recipe().query
    assert ("base", 6 * least) in read or find(method)[0].fits_base
    assert len(banks.base) == 6 * 24
    whole = banks.base_sample(Sample(clips=60, least=1))
    assert np.array_equal(whole.clip_row, part.clip_row)
    for m, table in part.tables.items():
        every = torch.arange(len(part))
        assert torch.equal(whole.tables[m].gather(every).x, table.gather(every).x)
    head = build_head(method, inputs_of(banks.test))
    fit_weights(head, spec_of(method=method), banks)
    assert isinstance(head, HasWeights)
    assert head.weights == few


def test_novel_labels_have_no_say(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path, streams=STREAMS)
    before, _ = fitted(cache, spec_of())
    catalog = Catalog.read(cache / "toy")
    labels = catalog.labels()
    novel = labels.label >= 12
    labels.label[novel] = np.random.default_rng(0).permutation(labels.label[novel])
    catalog.write(cache / "toy")
    assert fitted(cache, spec_of())[0] == before


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"split": "all"}, "the test has them, too"),
        ({"split": "base"}, "the test has them, too"),
        ({"k_shot": 0}, "without supports"),
    ],
)
def test_weights_stay_equal_where_base_classes_cannot_tell(
    tmp_path: Path, read: list[tuple[str, int]], given: dict[str, Any], sentence: str
) -> None:
    cache = synthetic_cache(tmp_path, streams=STREAMS)
    if given.get("split") == "all":
        catalog = Catalog.read(cache / "toy")
        catalog.label_sets["event"] = replace(catalog.labels(), splits={})
        catalog.write(cache / "toy")
    weights, _ = fitted(cache, spec_of(**given))
    assert weights is not None
    assert weights.are_equal
    assert sentence in weights.note
    assert len(read) == 1, "no clips but those of the test are read"


def test_weights_stay_equal_where_base_classes_are_too_few(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path, streams=STREAMS)
    catalog = Catalog.read(cache / "toy")
    codes = np.full(18, 3)
    codes[0] = 1
    catalog.label_sets["event"] = replace(catalog.labels(), splits={"default": codes})
    catalog.write(cache / "toy")
    weights, _ = fitted(cache, spec_of())
    assert weights is not None
    assert weights.are_equal
