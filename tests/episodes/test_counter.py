"""Laws of the counter-based generator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fsmm.episodes import counter


def splitmix64(state: int) -> int:
    """The published recurrence's output function, in plain Python integers."""
    mask = (1 << 64) - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_finaliser_is_splitmix64() -> None:
    # The sequence for seed 1234567 that the algorithm's test vectors give.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    golden = 0x9E3779B97F4A7C15
    state = np.array([(1234567 + (i + 1) * golden) % 2**64 for i in range(3)], np.uint64)
    assert counter.mix(state.copy()).tolist() == expected
    assert [splitmix64(int(s)) for s in state] == expected


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(1, 9))
def test_words_are_a_function_of_key_episode_and_slot(seed: int, episode: int, count: int) -> None:
    key = counter.key(seed, "x")
    alone = counter.words(key, np.array([episode]), count)
    among = counter.words(key, np.arange(max(episode - 2, 0), episode + 3), count + 4)
    assert (alone[0] == among[min(episode, 2), :count]).all()


def test_keys_of_other_purposes_and_seeds_differ() -> None:
    keys = {int(counter.key(seed, purpose)) for seed in range(50) for purpose in ("a", "b", "c")}
    assert len(keys) == 150


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 2**32))
def test_subsets_hold_no_element_twice(size: int, more: int, seed: int) -> None:
    words = counter.words(counter.key(seed, "t"), np.arange(40), size)
    drawn = counter.subset(words, np.full(40, size + more))
    assert all(len(set(row)) == size for row in drawn.tolist())
    assert drawn.min() >= 0
    assert drawn.max() < size + more


def test_subsets_of_their_own_sizes() -> None:
    sizes = np.arange(40) % 6
    words = counter.words(counter.key(3, "t"), np.arange(40), 5)
    drawn = counter.subset(words, np.full(40, 5), sizes)
    assert ((drawn >= 0).sum(1) == sizes).all()
    short = counter.subset(words, np.full(40, 9), sizes)
    assert all(len(set(row[row >= 0].tolist())) == size for row, size in zip(short, sizes))


@pytest.mark.parametrize(("population", "size"), [(5, 2), (6, 3), (4, 4)])
def test_every_subset_is_equally_likely(population: int, size: int) -> None:
    words = counter.words(counter.key(11, "t"), np.arange(60_000), size)
    drawn = counter.subset(words, np.full(60_000, population))
    codes = (1 << drawn.astype(np.int64)).sum(1)
    _, counts = np.unique(codes, return_counts=True)
    from math import comb

    assert len(counts) == comb(population, size)
    if len(counts) > 1:
        assert stats.chisquare(counts).pvalue > 1e-4


def test_outside_maps_onto_the_complement_in_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        n, k = 12, 4
        taken = rng.permutation(n)[:k]
        rest = [i for i in range(n) if i not in taken]
        drawn = np.arange(n - k, dtype=np.int32)[None]
        assert counter.outside(drawn.copy(), taken[None].astype(np.int32))[0].tolist() == rest


def test_orders_are_uniform_permutations() -> None:
    words = counter.words(counter.key(5, "order"), np.arange(48_000), 4)
    order = counter.order(words)
    code = (order * np.array([1, 4, 16, 64])).sum(1)
    _, counts = np.unique(code, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


def test_uniform_is_uniform_and_neighbouring_episodes_are_uncorrelated() -> None:
    u = counter.uniform(counter.words(counter.key(9, "u"), np.arange(50_000), 2))
    assert stats.kstest(u[:, 0], "uniform").pvalue > 1e-4
    # correlation of independent uniforms has standard error 1 / sqrt(n)
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 5 / np.sqrt(50_000)
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 5 / np.sqrt(50_000)
