"""Rules about groups: their draws are the allowed ones, all of them equally likely, and other runs are as they were."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from tests_support import bank_of

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.apart_sets import SetsFirst
from fsmm.episodes.apart_supports import SupportsFirst
from fsmm.episodes.binary import BinarySampler
from fsmm.episodes.draw import sampler_for
from fsmm.episodes.protocol import Protocol, TooFew
from fsmm.episodes.sampler import EpisodeIndex, Sampler
from fsmm.errors import UsageError


@pytest.fixture(autouse=True, scope="module")
def _few_rounds() -> Iterator[None]:
    """Impossible draws are given up sooner; the possible ones of small banks take a few rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsmm.episodes.apart_problems.ROUNDS", 600)
        yield


def grouped_bank(clips: list[list[str | None]]) -> FeatureBank:
    """A bank of classes of clips with these groups."""
    label = torch.tensor([c for c, groups in enumerate(clips) for _ in groups])
    bank = bank_of(torch.zeros(len(label), 1), label)
    bank.groups = np.array([group for groups in clips for group in groups], object)
    return bank


def crossed_bank(classes: int, groups: int, clips: int) -> FeatureBank:
    """Every group has as many clips of every class, as where each person does everything as often."""
    return grouped_bank([[f"s{g}" for g in range(groups) for _ in range(clips)] for _ in range(classes)])


def all_of(sampler: Any, episodes: int, first: int = 0) -> EpisodeIndex:
    return next(sampler.batches(first, episodes, episodes))


def shared_groups(bank: FeatureBank, index: EpisodeIndex, e: int) -> set[str]:
    """The groups that the supports and queries of an episode share."""
    sides = (bank.groups[index.support[e].flatten().numpy()], bank.groups[index.query[e].numpy()])
    return {g for g in sides[0] if g is not None} & {g for g in sides[1] if g is not None}


def allowed_draws(
    bank: FeatureBank, classes: tuple[int, ...], shots: int, queries: int
) -> set[tuple[Any, ...]]:
    """Every choice of supports and queries of these classes whose sides share no group, by going through them all."""
    label, each = bank.label.numpy(), []
    for c in classes:
        rows = np.flatnonzero(label == c).tolist()
        each.append(
            [
                (support, query)
                for support in itertools.combinations(rows, shots)
                for query in itertools.combinations([r for r in rows if r not in support], queries)
            ]
        )
    found = set()
    for draw in itertools.product(*each):
        held, asked = ({bank.groups[r] for part in draw for r in part[i]} - {None} for i in (0, 1))
        if not held & asked:
            found.add(draw)
    return found


def draws_of(index: EpisodeIndex) -> Counter[tuple[Any, ...]]:
    """How often each choice of supports and queries was drawn, with its classes in ascending order."""
    found: Counter[tuple[Any, ...]] = Counter()
    for e in range(len(index)):
        query, label = index.query[e].numpy(), index.query_label[e].numpy()
        parts = [
            (c, tuple(sorted(index.support[e, w].tolist())), tuple(sorted(query[label == w].tolist())))
            for w, c in enumerate(index.classes[e].tolist())
        ]
        found[tuple((s, q) for _, s, q in sorted(parts))] += 1
    return found


SMALL_CASES = {
    "groups of one class": ([["a", "a", "b", "c", "c", "c"]], 1, 2),
    "two shots of unequal groups": ([["a", "a", "a", "b", "b", "c", "d"]], 2, 2),
    "lone clips among grouped ones": ([["a", "a", None, None, "b", "b", "e"]], 2, 2),
    "persons who do everything": ([["a", "a", "b", "b", "c"], ["a", "b", "b", "c", "c"]], 1, 2),
    "some groups span classes": ([["a", "a", "b", None], ["a", "c", "c", "d", "d"], ["e", "e", "f"]], 1, 1),
    "a chain of classes": ([["a", "a", "b"], ["b", "c", "c"], ["c", "d", "d"]], 1, 1),
}


@pytest.mark.parametrize("name", SMALL_CASES)
def test_every_allowed_draw_is_equally_likely(name: str) -> None:
    """A chi-square test over all draws that a small bank allows, against going through them all."""
    clips, shots, queries = SMALL_CASES[name]
    bank, ways = grouped_bank(clips), len(clips)
    allowed = allowed_draws(bank, tuple(range(ways)), shots, queries)
    protocol = Protocol(n_way=ways, k_shot=shots, n_query=queries, shared_group=False, seed=5)
    found = draws_of(all_of(Sampler(bank, protocol), 60 * len(allowed)))
    assert set(found) == allowed, "every allowed draw, and no other"
    assert stats.chisquare([found[draw] for draw in allowed]).pvalue > 1e-3


@pytest.mark.parametrize(
    "name", ["two shots of unequal groups", "lone clips among grouped ones", "a chain of classes"]
)
@pytest.mark.parametrize("way", [SupportsFirst, partial(SetsFirst, tilt=0.5), partial(SetsFirst, tilt=0.2)])
def test_every_way_to_draw_is_uniform(name: str, way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmm.episodes.apart.WAYS", (way,))
    clips, shots, queries = SMALL_CASES[name]
    bank, ways = grouped_bank(clips), len(clips)
    allowed = allowed_draws(bank, tuple(range(ways)), shots, queries)
    protocol = Protocol(n_way=ways, k_shot=shots, n_query=queries, shared_group=False, seed=6)
    found = draws_of(all_of(Sampler(bank, protocol), 60 * len(allowed)))
    assert set(found) == allowed
    assert stats.chisquare([found[draw] for draw in allowed]).pvalue > 1e-3


banks = st.lists(
    st.lists(st.sampled_from([None, "a", "b", "c", "d", "e", "f"]), min_size=4, max_size=10),
    min_size=2,
    max_size=5,
).map(grouped_bank)


@settings(max_examples=30, deadline=None)
@given(banks, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_no_group_is_on_both_sides(bank: FeatureBank, ways: int, shots: int, queries: int, seed: int) -> None:
    assume(any(g is not None for g in bank.groups))
    protocol = Protocol(
        n_way=ways, k_shot=shots, n_query=queries, shared_group=False, small_classes="exclude", seed=seed
    )
    try:
        sampler = Sampler(bank, protocol)
        index = all_of(sampler, 8)
    except TooFew:
        return
    for e in range(len(index)):
        assert not shared_groups(bank, index, e)
        rows = [*index.support[e].flatten().tolist(), *index.query[e].tolist()]
        assert len(set(rows)) == len(rows)
        assert (bank.label[index.support[e]] == index.classes[e][:, None]).all()
        assert (bank.label[index.query[e]] == index.classes[e][index.query_label[e]]).all()
        assert (torch.bincount(index.query_label[e], minlength=ways) == queries).all()
    alone = all_of(sampler, 1, first=5)
    assert (alone.support[0] == index.support[5]).all()
    assert (alone.query[0] == index.query[5]).all()


@settings(max_examples=30, deadline=None)
@given(banks, st.integers(1, 2), st.integers(1, 3))
def test_a_class_is_refused_exactly_where_it_allows_no_draw(
    bank: FeatureBank, shots: int, queries: int
) -> None:
    assume(any(g is not None for g in bank.groups))
    protocol = Protocol(n_way=1, k_shot=shots, n_query=queries, shared_group=False, small_classes="exclude")
    some = [bool(allowed_draws(bank, (c,), shots, queries)) for c in range(len(bank.class_names))]
    if not any(some):
        with pytest.raises(TooFew):
            Sampler(bank, protocol)
        return
    assert Sampler(bank, protocol).excluded == [n for n, ok in zip(bank.class_names, some) if not ok]


def test_persons_who_do_everything_are_kept_apart_at_the_usual_size() -> None:
    """Eight persons, four clips a class, 5-way: the form of UTD-MHAD."""
    bank = crossed_bank(classes=9, groups=8, clips=4)
    for shots in (1, 5):
        index = all_of(Sampler(bank, Protocol(k_shot=shots, shared_group=False)), 200)
        assert not any(shared_groups(bank, index, e) for e in range(200))
        assert (
            stats.chisquare(np.bincount(index.support.flatten().numpy(), minlength=len(bank))).pvalue > 1e-6
        )


def test_many_groups_of_one_class_each_are_kept_apart_at_the_usual_size() -> None:
    """Twenty-five source videos a class, three to seven clips each: the form of UCF-101."""
    sizes = np.random.default_rng(0).integers(3, 8, (8, 25))
    bank = grouped_bank(
        [[f"{c}_g{g}" for g, n in enumerate(row) for _ in range(n)] for c, row in enumerate(sizes)]
    )
    for shots in (1, (1, 5)):
        for index in Sampler(bank, Protocol(k_shot=shots, shared_group=False)).batches(0, 100, 100):
            assert not any(shared_groups(bank, index, e) for e in range(len(index)))


def test_where_no_draw_exists_the_classes_are_named() -> None:
    triangle = grouped_bank([["a", "b"], ["b", "c"], ["a", "c"]])
    with pytest.raises(
        TooFew, match=r"Classes '0', '1' and '2' of episode 0 .*so that no 1-shot draw.*lower --n-query"
    ):
        all_of(Sampler(triangle, Protocol(n_way=3, n_query=1, shared_group=False)), 1)


def test_a_class_with_too_few_groups_is_named_with_its_counts() -> None:
    bank = grouped_bank([["a"] * 8 + ["b"] * 6, ["c", "d"] * 10])
    with pytest.raises(
        TooFew, match=r"Class '0' has 14 clips in 2 groups of 8 and 6; 1-shot with 10 queries.*to 8"
    ):
        Sampler(bank, Protocol(n_way=2, n_query=10, shared_group=False))
    alone = grouped_bank([["a"] * 8, ["c", "d"] * 10])
    with pytest.raises(
        TooFew, match=r"Class '0' has 8 clips in one group of 8; .*leave out --no-shared-group"
    ):
        Sampler(alone, Protocol(n_way=2, n_query=2, shared_group=False))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dirichlet": 1.0}, "leave out --dirichlet"),
        ({"small_classes": "short"}, "--small-classes refuse or exclude"),
    ],
)
def test_what_does_not_go_with_groups_kept_apart_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Sampler(crossed_bank(3, 4, 3), Protocol(n_way=2, n_query=2, shared_group=False, **change))


def test_rules_need_groups_and_supports() -> None:
    bank = grouped_bank([[None] * 20] * 5)
    for rule in ({"shared_group": False}, {"support_groups": ("a",)}, {"support_group_share": 0.5}):
        with pytest.raises(UsageError, match="name no groups"):
            Sampler(bank, Protocol(n_query=2, **rule))
        with pytest.raises(UsageError, match="Zero-shot"):
            Protocol(k_shot=0, **rule)


def test_unlabelled_clips_go_with_groups_kept_apart() -> None:
    index = all_of(Sampler(crossed_bank(5, 8, 4), Protocol(shared_group=False, unlabelled=7), 30), 20)
    assert index.unlabelled.shape == (20, 7)


CROSS_GROUP = [
    {"support_groups": ("s0", "s1")},
    {"query_groups": ("s2", "s5")},
    {"support_groups": ("s0",), "query_groups": ("s4", "s3", "s2")},
    {"support_group_share": 0.5},
]


@pytest.mark.parametrize("rule", CROSS_GROUP)
@pytest.mark.parametrize("dirichlet", [None, 0.5])
def test_supports_and_queries_come_from_the_groups_of_their_side(
    rule: dict[str, Any], dirichlet: float | None
) -> None:
    bank = crossed_bank(classes=6, groups=6, clips=4)
    protocol = Protocol(k_shot=(1, 3), n_query=5, dirichlet=dirichlet, small_classes="short", **rule)
    used: tuple[set[str], set[str]] = (set(), set())
    for index in Sampler(bank, protocol).batches(0, 300, 300):
        used[0].update(bank.groups[index.support.flatten().numpy()])
        used[1].update(bank.groups[index.query[index.query >= 0].numpy()])
    everything = {f"s{g}" for g in range(6)}
    if "support_group_share" in rule:
        assert len(used[0]) == len(used[1]) == 3
        assert used[0] | used[1] == everything
    else:
        named = [set(rule.get(f"{side}_groups", ())) for side in ("support", "query")]
        assert used == (named[0] or everything - named[1], named[1] or everything - named[0])


def test_draws_from_sides_are_uniform() -> None:
    bank = grouped_bank([["a", "a", "b", "c", "c"], ["a", "b", "b", "c", "c", None]])
    protocol = Protocol(
        n_way=1, k_shot=2, n_query=1, support_groups=("a", "b"), small_classes="exclude", seed=3
    )
    found = draws_of(all_of(Sampler(bank, protocol), 6000))
    assert len(found) == 3 * 2 + 3 * 3, "three pairs of supports a class; a lone clip is in no named group"
    each = np.array([count for (draw,), count in found.items() if draw[0][0] >= 5])
    assert stats.chisquare(each).pvalue > 1e-3


def test_a_share_of_the_groups_is_another_one_for_another_seed_and_the_same_in_another_split() -> None:
    def of(bank: FeatureBank, seed: int) -> frozenset[str]:
        protocol = Protocol(n_way=2, n_query=2, support_group_share=0.5, seed=seed)
        return frozenset(bank.groups[all_of(Sampler(bank, protocol), 200).support.flatten().numpy()])

    assert of(crossed_bank(3, 6, 4), 0) == of(crossed_bank(5, 6, 5), 0)
    assert len({of(crossed_bank(3, 6, 4), seed) for seed in range(10)}) > 3


def test_nonsense_about_groups_is_refused() -> None:
    bank = crossed_bank(5, 4, 4)
    with pytest.raises(UsageError, match="'s1' is named for supports and for queries"):
        Protocol(support_groups=("s0", "s1"), query_groups=("s1",))
    with pytest.raises(UsageError, match="not both"):
        Protocol(support_groups=("s0",), support_group_share=0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        Protocol(support_group_share=1.0)
    with pytest.raises(UsageError, match="s9"):
        Sampler(bank, Protocol(n_query=2, support_groups=("s9",)))
    with pytest.raises(
        TooFew, match=r"'0' has 4 clips in the groups of the supports and 12 in .*lower --k-shot"
    ):
        Sampler(bank, Protocol(k_shot=5, n_query=2, support_groups=("s0",)))
    with pytest.raises(TooFew, match=r"4 in those of the queries; 1-shot with 5 .*lower --n-query to 4"):
        Sampler(bank, Protocol(n_query=5, query_groups=("s0",)))


def multi_label_bank() -> FeatureBank:
    chance = np.random.default_rng(1)
    bank = crossed_bank(1, 4, 15)
    bank.label = torch.from_numpy((chance.random((60, 6)) < 0.4).astype(np.uint8))
    bank.class_names, bank.class_id = list("abcdef"), torch.arange(6)
    return bank


def test_multi_label_supports_and_queries_come_from_the_groups_of_their_side() -> None:
    bank = multi_label_bank()
    sampler = sampler_for(bank, Protocol(n_way=2, k_shot=2, n_query=2, support_groups=("s0", "s2")))
    index = all_of(sampler, 100)
    assert set(bank.groups[index.support.flatten().numpy()]) == {"s0", "s2"}
    assert set(bank.groups[index.query.flatten().numpy()]) == {"s1", "s3"}
    with pytest.raises(UsageError, match="Multi-label episodes share their queries"):
        BinarySampler(bank, Protocol(n_way=2, n_query=2, shared_group=False))
    with pytest.raises(TooFew, match=r"in the groups of the supports and on \d+ in those of the queries"):
        BinarySampler(bank, Protocol(n_way=2, k_shot=2, n_query=12, support_groups=("s0", "s2")))


def test_episodes_without_rules_are_what_they_were() -> None:
    """Digests of drawn rows, taken before there were rules about groups."""
    bank = bank_of(torch.zeros(120, 1), torch.arange(120) % 6)
    protocols = [
        Protocol(n_query=5),
        Protocol(n_way=(2, 4), k_shot=(1, 3), n_query=4, seed=3, dirichlet=0.7),
        Protocol(n_query=19, k_shot=2, small_classes="short", unlabelled=3),
    ]
    digest = hashlib.sha256()
    for protocol in protocols:
        for index in Sampler(bank, protocol, 9).batches(0, 50, 20):
            for part in (index.classes, index.support, index.query, index.query_label, index.unlabelled):
                digest.update(np.ascontiguousarray(part.numpy().astype(np.int64)).tobytes())
    multi = multi_label_bank()
    for index in BinarySampler(multi, Protocol(n_way=3, k_shot=2, n_query=2)).batches(0, 30, 30):
        for part in (index.classes, index.support, index.query, index.query_label):
            digest.update(np.ascontiguousarray(part.numpy().astype(np.int64)).tobytes())
    assert digest.hexdigest()[:16] == "c51b5494f3377889"
