"""Fixed weights of modalities: what base classes choose, and that every way to a head's logits keeps them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import bank_of, moved, random_bank
from torch import Tensor
from torch.nn import functional as F

from fsmm.cache.bank import FeatureBank
from fsmm.cache.schema import StreamName
from fsmm.cache.table import TensorTable
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Head
from fsmm.heads.multimodal.fusion import EarlyFusion, LateFusion
from fsmm.heads.multimodal.weights import STEPS, HasWeights, ModalityWeights, choose, simplex
from fsmm.heads.registry import find
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.scoring.plan import direct

TASK = Protocol(n_way=4, n_query=5, small_classes="exclude")


def views_bank(spread: Mapping[str, float], classes: int = 12, clips: int = 20, seed: int = 0) -> FeatureBank:
    """Unit features of modalities whose clips lie this far around their class; infinity for noise alone."""
    chance, dim = torch.Generator().manual_seed(seed), 16
    label = torch.arange(classes).repeat_interleave(clips)
    features = {}
    for m, width in spread.items():
        x = torch.randn(len(label), dim, generator=chance)
        if width < math.inf:
            x = torch.randn(classes, dim, generator=chance)[label] + width * x
        features[m] = F.normalize(x, dim=-1)
    return bank_of(features, label)


def head_with(name: str, bank: FeatureBank, settings: Mapping[str, str] | None = None) -> Head[Any]:
    head = build_head(
        name, inputs_of(bank, way=TASK.n_way if isinstance(TASK.n_way, int) else 5), settings
    ).eval()
    if find(name)[0].fits_base:
        head.fit_base(bank)
    return head


def weighted(head: Head[Any], **share: float) -> Head[Any]:
    assert isinstance(head, HasWeights)
    head.weights = ModalityWeights(share=share)
    return head


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_the_grid_holds_every_division_into_equal_parts(modalities: int) -> None:
    grid = simplex(modalities)
    assert grid[0] == (1 / modalities,) * modalities
    assert len(set(grid[1:])) == len(grid) - 1 == math.comb(STEPS + modalities - 1, STEPS)
    every = itertools.product(range(STEPS + 1), repeat=modalities)
    assert set(grid[1:]) == {tuple(k / STEPS for k in point) for point in every if sum(point) == STEPS}


def test_equal_weights_stay_where_the_gain_is_within_its_interval() -> None:
    chance, grid = np.random.default_rng(0), simplex(2)
    accuracy = 0.7 + 0.02 * chance.normal(size=(len(grid), 12))
    assert choose(accuracy, grid)[0] == 0
    accuracy[grid.index((0.8, 0.2))] += 0.1
    accuracy[grid.index((0.6, 0.4))] += 0.1005
    accuracy[grid.index((1.0, 0.0))] += 0.1
    assert grid[choose(accuracy, grid)[0]] == (0.6, 0.4), (
        "the nearest to equal weights of those that are as good"
    )


@pytest.mark.parametrize("seed", range(20))
def test_what_is_chosen_is_never_less_accurate_on_base_than_equal_weights(seed: int) -> None:
    chance, grid = np.random.default_rng(seed), simplex(3)
    accuracy = 0.6 + 0.05 * chance.normal(size=(len(grid), 1)) + 0.1 * chance.normal(size=(len(grid), 8))
    chosen, best = choose(accuracy, grid)
    assert accuracy[best].mean() >= accuracy[chosen].mean() >= accuracy[0].mean()


@pytest.mark.parametrize("name", ["protonet-ec", "protonet-lf"])
def test_modalities_that_say_the_same_have_equal_weights(name: str) -> None:
    bank = views_bank({"frame": 1.0})
    bank.tables["audio"], bank.streams["audio"] = bank.tables["frame"], StreamName("audio", "net")
    head = head_with(name, bank)
    assert isinstance(head, HasWeights)
    assert head.fits_weights, "it is the default"
    head.fit_weights(bank, TASK)
    assert head.weights.are_equal
    assert head.weights.gain == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("name", ["protonet-ec", "protonet-lf", "amfar"])
def test_base_classes_tell_a_modality_that_says_nothing(name: str) -> None:
    key = "weights" if name == "amfar" else "fusion.weights"
    bank = views_bank({"frame": 1.0, "audio": math.inf})
    head = head_with(name, bank, {key: "base"})
    assert isinstance(head, HasWeights)
    assert head.fits_weights
    head.fit_weights(bank, TASK)
    assert head.weights.share["frame"] >= 0.8
    assert head.weights.gain is not None
    assert head.weights.gain > (head.weights.gain_interval or math.inf) > 0
    alike = views_bank({"frame": 1.0, "audio": 1.0})
    head = head_with(name, alike, {key: "base"})
    assert isinstance(head, HasWeights)
    head.fit_weights(alike, TASK)
    assert head.weights.are_equal


def test_any_number_of_modalities_is_weighed() -> None:
    for spread in ({"a": 1.0, "b": math.inf, "c": 1.0, "d": math.inf}, {"a": 1.0}):
        bank = views_bank(spread)
        if len(spread) == 1:
            assert not isinstance(head_with("protonet", bank), HasWeights)
            continue
        head = head_with("protonet-ec", bank, {"fusion.weights": "base"})
        assert isinstance(head, HasWeights)
        head.fit_weights(bank, TASK)
        assert sum(head.weights.share[m] for m in ("a", "c")) >= 0.8
    many = views_bank({f"m{i}": 1.0 for i in range(17)}, classes=5, clips=7)
    head = head_with("protonet-lf", many, {"fusion.weights": "base"})
    assert isinstance(head, HasWeights)
    head.fit_weights(many, TASK)
    assert head.weights.are_equal
    assert "17 modalities" in head.weights.note


def one_task(bank: FeatureBank) -> Any:
    return materialise(bank, next(Sampler(bank, TASK).batches(0, 6, 6)), TASK)


def distances(bank: FeatureBank, m: str, episodes: Any) -> Tensor:
    """Squared distances [B, Q, N] to class means, query by query."""
    mean, query = episodes.support[m].x[..., 0, :].mean(2), episodes.query[m].x[..., 0, :]
    return (query[:, :, None] - mean[:, None]).square().sum(-1)


def test_early_fusion_weighs_squared_distances() -> None:
    bank = views_bank({"frame": 1.0, "audio": 2.0})
    episodes = one_task(bank)
    found = weighted(head_with("protonet-ec", bank), frame=0.8, audio=0.2)(episodes)
    expected = -(1.6 * distances(bank, "frame", episodes) + 0.4 * distances(bank, "audio", episodes))
    torch.testing.assert_close(found, expected)


def test_late_fusion_weighs_posteriors() -> None:
    bank = views_bank({"frame": 1.0, "audio": 2.0})
    episodes = one_task(bank)
    p = {m: torch.softmax(-distances(bank, m, episodes), -1) for m in ("frame", "audio")}
    found = weighted(head_with("protonet-lf", bank), frame=0.8, audio=0.2)(episodes)
    torch.testing.assert_close(found.exp(), 0.8 * p["frame"] + 0.2 * p["audio"])
    product = weighted(head_with("protonet-lf", bank, {"fusion.rule": "product"}), frame=0.8, audio=0.2)(
        episodes
    )
    torch.testing.assert_close(product, 0.8 * p["frame"].log() + 0.2 * p["audio"].log())


def test_by_the_max_rule_the_most_certain_modality_decides() -> None:
    bank = views_bank({"frame": 1.0, "audio": 2.0})
    episodes = one_task(bank)
    head = head_with("protonet-lf", bank, {"fusion.rule": "max"})
    p = torch.stack([torch.softmax(-distances(bank, m, episodes), -1) for m in ("frame", "audio")])
    certain = p.amax(-1).argmax(0)
    expected = torch.gather(p.argmax(-1), 0, certain[None])[0]
    assert torch.equal(head(episodes).argmax(-1), expected)


def test_equal_weights_are_the_plain_mean_to_the_bit() -> None:
    bank = views_bank({"frame": 1.0, "audio": 2.0})
    episodes = one_task(bank)
    early, late = head_with("protonet-ec", bank), head_with("protonet-lf", bank)
    assert isinstance(early, EarlyFusion)
    assert isinstance(late, LateFusion)
    joined = torch.cat([episodes.query[m].x for m in ("frame", "audio")], -1)
    assert torch.equal(early.fuse(episodes).query["fused"].x, joined)
    each = torch.stack([F.log_softmax(late.heads[m](episodes.only([m])), -1) for m in ("frame", "audio")])
    assert torch.equal(late(episodes), (each.exp().sum(0) / 2).clamp(min=1e-12).log())


@pytest.mark.parametrize("name", ["protonet-ec", "protonet-lf", "amfar"])
def test_a_query_with_the_modality_of_no_weight_alone_is_decided_by_it(name: str) -> None:
    bank = views_bank({"frame": 0.3, "audio": 0.3})
    episodes = one_task(bank)
    frame = episodes.query["frame"]
    episodes.query["frame"] = type(frame)(
        torch.zeros_like(frame.x), torch.zeros_like(frame.present), torch.zeros_like(frame.length)
    )
    found = weighted(head_with(name, bank), frame=1.0, audio=0.0)(episodes)
    assert torch.equal(found.argmax(-1), (-distances(bank, "audio", episodes)).argmax(-1))


@pytest.mark.parametrize(
    "name", ["protonet-ec", "protonet-ea", "protonet-lf", "simpleshot-lf", "otam-ec", "amfar"]
)
@pytest.mark.parametrize("shots", [1, 3])
def test_shortcuts_keep_the_weights(name: str, shots: int) -> None:
    steps = 4 if find(name)[0].reads_time else 1
    bank = random_bank({"frame": (steps, 16), "audio": (steps, 12)}, classes=6, clips=12, seed=3)
    torch.manual_seed(0)
    head = moved(weighted(head_with(name, bank), frame=0.8, audio=0.2), 0.05)
    test = EpisodeTest(bank=bank, protocol=Protocol(n_way=4, k_shot=shots, n_query=5), episodes=100_000)
    index = next(Sampler(bank, test.protocol).batches(0, 6, 6))
    expected = direct(head, test)(index)
    ways = [way for way in head.shortcuts() if way.saves(test) > 0]
    assert ways
    for way in ways:
        found = way.prepare(test)(index)
        torch.testing.assert_close(
            found - found.mean(-1, keepdim=True),
            expected - expected.mean(-1, keepdim=True),
            rtol=1e-3,
            atol=1e-4,
        )


def test_absent_modalities_do_not_stop_the_fit() -> None:
    bank = views_bank({"frame": 1.0, "audio": math.inf})
    table = bank.tables["audio"]
    assert isinstance(table, TensorTable)
    gone = torch.arange(len(bank)) % 3 == 0
    x = table.x.masked_fill(gone[:, None, None], 0)
    bank.tables["audio"] = TensorTable(x, table.length * ~gone, ~gone)
    for name in ("protonet-ec", "protonet-lf", "amfar"):
        head = head_with(name, bank)
        assert isinstance(head, HasWeights)
        head.fit_weights(bank, TASK)
        assert head.weights.share["frame"] >= 0.8
