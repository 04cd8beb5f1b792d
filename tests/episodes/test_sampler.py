"""Laws of the sampler: what an episode holds, and what it does not depend on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.dirichlet import chosen_classes, dirichlet_weights, largest_remainders, shared_counts
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import EpisodeIndex, Sampler, TooFew


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> FeatureBank:
    from tests_support import synthetic_cache

    cache = synthetic_cache(tmp_path_factory.mktemp("c"), classes=24, clips=25, streams={"frame/net": (1, 4)})
    return FeatureBank.load(cache, split="novel")


def draw(bank: FeatureBank, protocol: Protocol, first: int, count: int, size: int) -> dict[int, EpisodeIndex]:
    """Episode number -> a batch of that episode alone, however it was drawn."""
    found = {}
    for batch in Sampler(bank, protocol).batches(first, count, size):
        for i, number in enumerate(batch.episode.tolist()):
            parts = (
                batch.episode,
                batch.classes,
                batch.support,
                batch.query,
                batch.query_label,
                batch.unlabelled,
            )
            found[number] = EpisodeIndex(*(part[i : i + 1] for part in parts))
    return found


def facts(index: EpisodeIndex) -> tuple[object, ...]:
    """What an episode is, without the padding that a batch may add."""
    real = index.query_label[0] >= 0
    return (
        index.classes.tolist(),
        index.support.tolist(),
        index.query[0][real].tolist(),
        index.query_label[0][real].tolist(),
    )


protocols = st.builds(
    Protocol,
    n_way=st.sampled_from([2, 5, 8, (3, 6)]),
    k_shot=st.sampled_from([0, 1, 5, (1, 4)]),
    n_query=st.integers(1, 15),
    seed=st.integers(0, 1000),
    dirichlet=st.sampled_from([None, None, 0.3, 5.0]),
    query_classes=st.sampled_from([None, None, 1, 2]),
    small_classes=st.sampled_from(["refuse", "short"]),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(protocols, st.integers(0, 10**6), st.integers(1, 30))
def test_an_episode_does_not_depend_on_how_it_was_batched(
    bank: FeatureBank, protocol: Protocol, first: int, size: int
) -> None:
    together = draw(bank=bank, protocol=protocol, first=first, count=24, size=size)
    assert sorted(together) == list(range(first, first + 24))
    alone = draw(bank=bank, protocol=protocol, first=first + 7, count=1, size=1)[first + 7]
    assert facts(together[first + 7]) == facts(alone)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(protocols)
def test_an_episode_holds_what_its_protocol_says(bank: FeatureBank, protocol: Protocol) -> None:
    for index in Sampler(bank, protocol).batches(0, 30, 30):
        ways = index.classes.shape[1]
        for e in range(len(index)):
            classes, support = index.classes[e], index.support[e]
            real = index.query_label[e] >= 0
            query, label = index.query[e][real], index.query_label[e][real]
            rows = torch.cat([support.flatten(), query]).tolist()
            assert len(set(rows)) == len(rows), "no clip twice in an episode"
            assert len(set(classes.tolist())) == ways
            assert (bank.label[support] == classes[:, None]).all()
            assert (bank.label[query] == classes[label]).all()
            spare = 25 - support.shape[1]
            given = min(protocol.query_classes or ways, ways)
            assert len(query) == min(protocol.n_query * ways, spare * given)
            if protocol.query_classes is not None:
                assert len(label.unique()) <= protocol.query_classes
            if not protocol.uneven_queries:
                assert (torch.bincount(label, minlength=ways) == protocol.n_query).all()


def test_another_seed_or_episode_is_another_task(bank: FeatureBank) -> None:
    seen = {
        repr(facts(episode))
        for seed in range(3)
        for episode in draw(bank=bank, protocol=Protocol(seed=seed), first=0, count=50, size=50).values()
    }
    assert len(seen) == 150


def test_what_is_withheld_does_not_change_what_is_drawn(bank: FeatureBank) -> None:
    from fsmm.episodes.protocol import Missing

    plain = draw(bank=bank, protocol=Protocol(seed=4), first=0, count=10, size=10)
    held = draw(
        bank=bank,
        protocol=Protocol(seed=4, missing=(Missing("frame", 0.5),), query_modalities=("frame",)),
        first=0,
        count=10,
        size=10,
    )
    assert [facts(e) for e in plain.values()] == [facts(e) for e in held.values()]


def test_classes_clips_and_pairs_are_uniform(bank: FeatureBank) -> None:
    """Chi-square tests over 20,000 2-way 1-shot 1-query episodes of 8 classes x 25 clips."""
    index = next(Sampler(bank, Protocol(n_way=2, n_query=1, seed=1)).batches(0, 20_000, 20_000))
    pairs = index.classes.numpy()
    ordered = np.bincount(pairs[:, 0] * 8 + pairs[:, 1], minlength=64).reshape(8, 8)
    off = ordered[~np.eye(8, dtype=bool)]
    assert np.diag(ordered).sum() == 0
    assert stats.chisquare(off).pvalue > 1e-4
    assert stats.chisquare(np.bincount(index.support.flatten().numpy(), minlength=len(bank))).pvalue > 1e-4
    assert stats.chisquare(np.bincount(index.query.flatten().numpy(), minlength=len(bank))).pvalue > 1e-4
    # within a class, (support, query) is a uniform ordered pair of distinct clips
    first = np.argsort(bank.label.numpy(), kind="stable").reshape(8, 25)
    place = np.empty(len(bank), int)
    place[first.ravel()] = np.tile(np.arange(25), 8)
    query_of = np.take_along_axis(index.query.numpy(), np.argsort(index.query_label.numpy(), 1), 1)
    code = place[index.support.numpy()[:, :, 0]] * 25 + place[query_of]
    counts = np.bincount(code.ravel(), minlength=625).reshape(25, 25)
    assert np.diag(counts).sum() == 0
    assert stats.chisquare(counts[~np.eye(25, dtype=bool)]).pvalue > 1e-4


def test_neighbouring_episodes_are_independent(bank: FeatureBank) -> None:
    index = next(Sampler(bank, Protocol(n_way=1, n_query=1, seed=2)).batches(0, 40_000, 40_000))
    chosen = index.classes[:, 0].numpy()
    table = np.bincount(chosen[:-1] * 8 + chosen[1:], minlength=64).reshape(8, 8)
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_query_order_says_nothing_about_the_class(bank: FeatureBank) -> None:
    index = next(Sampler(bank, Protocol(n_way=4, n_query=2, seed=3)).batches(0, 12_000, 12_000))
    table = np.stack([np.bincount(column, minlength=4) for column in index.query_label.numpy().T])
    assert stats.chi2_contingency(table).pvalue > 1e-4


def dirichlet_counts(*, episode: np.ndarray, left: np.ndarray, total: int, alpha: float) -> np.ndarray:
    """The numbers of queries of each class under one key."""
    return shared_counts(dirichlet_weights(np.uint64(7), episode, left.shape[1], alpha), left, total)


@pytest.mark.parametrize("alpha", [1e-9, 1e-6, 1e-3, 0.01, 0.2])
def test_however_small_alpha_is_shares_are_as_uneven_as_it_says(alpha: float) -> None:
    """The expected sum of squared shares of N classes is (alpha + 1) / (N alpha + 1), and all classes are alike."""
    counts = dirichlet_counts(
        episode=np.arange(20_000), left=np.full((20_000, 5), 1000), total=1000, alpha=alpha
    )
    share = counts / counts.sum(1, keepdims=True)
    assert np.square(share).sum(1).mean() == pytest.approx((alpha + 1) / (5 * alpha + 1), abs=0.01)
    np.testing.assert_allclose(share.mean(0), 0.2, atol=0.015)


def test_what_one_class_cannot_give_goes_to_one_other() -> None:
    counts = dirichlet_counts(episode=np.arange(500), left=np.full((500, 5), 60), total=75, alpha=1e-6)
    np.testing.assert_array_equal(np.sort(counts, 1), np.tile([0, 0, 0, 15, 60], (500, 1)))


def test_every_choice_of_the_classes_that_have_queries_is_as_likely() -> None:
    """Chi-square over the ten pairs of five classes; two classes share 75 queries as 38 and 37."""
    chosen = chosen_classes(np.uint64(3), np.arange(20_000), np.full((20_000, 5), 100), 2)
    assert (chosen.sum(1) == 2).all()
    counts = np.unique(chosen @ (1 << np.arange(5)), return_counts=True)[1]
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > 1e-4
    shared = shared_counts(chosen.astype(float), np.full((20_000, 5), 100), 75)
    np.testing.assert_array_equal(np.sort(shared, axis=1), np.tile([0, 0, 0, 37, 38], (20_000, 1)))


def test_classes_without_queries_do_not_help_out() -> None:
    """The chosen classes have 3 and 20 clips to give: they give 23 of 75."""
    counts = shared_counts(np.array([[1.0, 0, 1, 0, 0]]), np.array([[3, 20, 20, 20, 20]]), 75)
    np.testing.assert_array_equal(counts, [[3, 0, 20, 0, 0]])


def test_dirichlet_tends_to_balance_and_to_one_class() -> None:
    episode = np.arange(500)
    left = np.full((500, 5), 1000)
    even = dirichlet_counts(episode=episode, left=left, total=75, alpha=1e7)
    assert (even == 15).all()
    spread = dirichlet_counts(episode=episode, left=left, total=75, alpha=1.0)
    assert (spread.sum(1) == 75).all()
    # Dirichlet(1) over 5 classes: each share has mean 1/5 and variance (1/5)(4/5)/6
    share = spread / 75
    assert abs(share.mean(0) - 0.2).max() < 5 * np.sqrt(0.16 / 6 / 500)
    assert share.var() == pytest.approx(0.16 / 6, rel=0.15)
    peaked = (dirichlet_counts(episode=episode, left=left, total=75, alpha=0.05).max(1) > 70).mean()
    expected = (np.random.default_rng(0).dirichlet([0.05] * 5, 200_000).max(1) > 70.5 / 75).mean()
    assert peaked == pytest.approx(expected, abs=5 * np.sqrt(0.25 / 500))


def test_dirichlet_respects_what_a_class_can_give() -> None:
    left = np.tile([[3, 20, 20, 20, 20]], (300, 1))
    counts = dirichlet_counts(episode=np.arange(300), left=left, total=75, alpha=0.2)
    assert (counts <= left).all()
    assert (counts.sum(1) == 75).all()


def test_small_classes_are_refused_left_out_or_sampled_short(
    tmp_path: Path, make_cache: Callable[..., Path]
) -> None:
    bank = FeatureBank.load(make_cache(classes=24, clips=6, streams={"frame/net": (1, 4)}))
    with pytest.raises(TooFew, match=r"has 6 clips; 1-shot with 15 queries needs 16.*lower --n-query to 5"):
        Sampler(bank, Protocol())
    with pytest.raises(TooFew, match="8 more have fewer than 16 clips"):
        Sampler(bank, Protocol(small_classes="exclude"))
    short = Sampler(bank, Protocol(small_classes="short"))
    batch = next(short.batches(0, 5, 5))
    assert batch.query.shape == (5, 25)
    with pytest.raises(TooFew, match="has 8 usable classes; 9-way"):
        Sampler(bank, Protocol(n_way=9, n_query=3))


def test_all_ways_takes_every_class(bank: FeatureBank) -> None:
    batch = next(Sampler(bank, Protocol(n_way=0, n_query=2)).batches(0, 3, 3))
    assert all(sorted(row) == list(range(8)) for row in batch.classes.tolist())


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("seed", -1, "must not be negative"),
        ("n_query", 0, "at least one query"),
        ("dirichlet", 0.0, "positive"),
        ("query_classes", 0, "at least one class"),
        ("query_classes", 6, "as few as 5 classes"),
        ("n_way", (6, 3), "ascend"),
        ("k_shot", -1, "at least 0"),
        *(
            (name, 10**20, "it must be at most 1,000,000")
            for name in ("n_way", "k_shot", "n_query", "unlabelled")
        ),
    ],
)
def test_protocols_refuse_nonsense(field: str, value: object, words: str) -> None:
    from fsmm.errors import UsageError

    with pytest.raises(UsageError, match=words):
        replace(Protocol(), **{field: value})


def test_protocols_survive_json() -> None:
    import json

    from fsmm.episodes.protocol import Missing

    protocol = Protocol(
        n_way=(3, 5), missing=(Missing("audio", 0.25, "query"),), support_modalities=("frame",)
    )
    assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol
    assert len({p.describe() for p in (protocol, Protocol(), Protocol(k_shot=0))}) == 3
    assert list(itertools.islice(protocol.to_dict(), 1)) == ["n_way"]


@pytest.mark.parametrize("classes", [2, 5, 12])
def test_largest_remainders_are_the_published_counts(classes: int) -> None:
    """Round; while the sum is off, floor or ceil the number whose fraction is nearest to a half."""
    share = 40 * np.random.default_rng(0).dirichlet([0.4] * classes, 200)
    expected = []
    for row in share.copy():
        while (gap := np.round(row).sum() - 40) != 0:
            place = min(range(classes), key=lambda j: abs(row[j] % 1 - 0.5))
            row[place] = np.floor(row[place]) if gap > 0 else np.ceil(row[place])
        expected.append(np.round(row))
    np.testing.assert_array_equal(largest_remainders(share, np.full((200, 1), 40)), expected)
