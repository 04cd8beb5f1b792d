"""Features that are replaced by noise: which clips, what noise, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import UsageError
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec

PLAIN = Protocol(n_query=4)


def noisy(rate: float, side: str = "query") -> Protocol:
    return replace(PLAIN, noisy=(Missing("audio", rate, side),))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1)


@pytest.fixture(scope="module")
def bank(cache: Path) -> FeatureBank:
    return FeatureBank.load(cache, ["frame/net", "audio/net"], "novel", dataset="toy").normalised("l2")


def test_noise_of_unit_length_takes_the_place_of_the_chosen_clips_features_alone(bank: FeatureBank) -> None:
    index = Sampler(bank, PLAIN).draw(np.arange(200), 5, 1)
    clean = materialise(bank, index, PLAIN)
    found = materialise(bank, index, noisy(0.5))
    for side in ("support", "query"):
        for name in ("frame", "audio"):
            before, after = getattr(clean, side)[name], getattr(found, side)[name]
            assert torch.equal(before.present, after.present)
            assert torch.equal(before.length, after.length)
            if (side, name) != ("query", "audio"):
                assert torch.equal(before.x, after.x)
    before, after = clean.query["audio"], found.query["audio"]
    changed = (before.x != after.x).flatten(2).any(-1)
    there = before.present
    assert not (changed & ~there).any(), "what a clip does not have is not replaced"
    assert float(changed[there].float().mean()) == pytest.approx(0.5, abs=0.02)
    noise = after.x[changed]
    lengths = noise.norm(dim=-1)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)
    # Directions are uniform: the mean is near zero, and each axis has its share of the length.
    flat = noise.flatten(0, 1).double().numpy()
    assert np.abs(flat.mean(0)).max() < 6 / np.sqrt(flat.size)
    assert flat.var(0) == pytest.approx(np.full(flat.shape[1], 1 / flat.shape[1]), rel=0.1)


def test_noise_depends_on_seed_episode_and_clip_alone(bank: FeatureBank) -> None:
    sampler = Sampler(bank, PLAIN)
    many = materialise(bank, sampler.draw(np.arange(8), 5, 1), noisy(0.5)).query["audio"].x
    one = materialise(bank, sampler.draw(np.array([5]), 5, 1), noisy(0.5)).query["audio"].x
    assert torch.equal(many[5], one[0])


def test_a_noisy_test_is_scored_by_the_heads_own_forward(bank: FeatureBank) -> None:
    test = EpisodeTest(bank=bank, protocol=noisy(0.5), episodes=10)
    assert not test.withholds_nothing
    assert not test.complete


def test_a_head_of_the_noisy_modality_alone_guesses(cache: Path, tmp_path: Path) -> None:
    protocol = noisy(1.0)
    spec = RunSpec(method="protonet", protocol=protocol, modalities=("audio",))
    place = Place(cache=cache, dataset="toy", out=tmp_path / "run")
    made = run(Job(spec=spec, place=place, episodes=400))
    assert made.mean == pytest.approx(0.2, abs=0.02)
    assert "noisy audio=1@query" in made.metrics["protocol_text"]


def test_runs_without_noise_keep_their_digests() -> None:
    assert "noisy" not in RunSpec(method="protonet").content()["protocol"]
    kept = RunSpec(method="protonet", protocol=noisy(0.5)).content()["protocol"]
    assert Protocol.from_dict(kept) == noisy(0.5)
    with pytest.raises(UsageError, match="--noisy names 'audio' at query twice"):
        replace(PLAIN, noisy=(Missing("audio", 0.5, "query"), Missing("audio", 0.1, "query")))
