"""What the demo dataset's classes and clips promise, before anything is rendered."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fsmm.cache.catalog import Catalog
from fsmm.cache.schema import CLASS_SPLITS
from fsmm.extract.datasets.demo import render as demo_render
from fsmm.extract.datasets.demo import sound as demo_sound
from fsmm.extract.datasets.demo.design import (
    MOTIONS,
    SCENES,
    SOUNDS,
    content_digit,
    events,
    order_split,
    orders,
)
from fsmm.extract.datasets.demo.labels import catalog_of
from fsmm.extract.datasets.demo.plan import CLIPS_A_CLASS, Clip, plan_clips

FACTORS = ("content", "motion", "sound")
FORMS = pytest.mark.parametrize("small", [False, True], ids=["full", "small"])


@pytest.fixture(scope="module", params=[False, True], ids=["full", "small"])
def form(request: pytest.FixtureRequest) -> tuple[list[Clip], Catalog]:
    clips = plan_clips(request.param, seed=3)
    return clips, catalog_of(clips, request.param, 3)


def values(split: str, factor: str, small: bool = False) -> list[str]:
    return [getattr(event, factor) for event in events(small) if event.split == split]


@FORMS
def test_sizes_of_the_splits(small: bool) -> None:
    count = Counter(event.split for event in events(small))
    assert min(count.values()) >= 5
    assert len({event.name for event in events(small)}) == sum(count.values()) >= (16 if small else 40)


@FORMS
@pytest.mark.parametrize("factor", FACTORS)
def test_no_value_of_a_factor_is_in_two_splits(factor: str, small: bool) -> None:
    sets = [set(values(split, factor, small)) for split in CLASS_SPLITS]
    assert not any(a & b for a, b in combinations(sets, 2))
    if not small:
        assert min(map(len, sets)) >= 5


@pytest.mark.parametrize("split", CLASS_SPLITS)
@pytest.mark.parametrize("factor", FACTORS)
def test_every_value_is_shared_by_several_classes(factor: str, split: str) -> None:
    assert min(Counter(values(split, factor)).values()) >= 2


@pytest.mark.parametrize("split", CLASS_SPLITS)
@pytest.mark.parametrize("factor", FACTORS)
def test_one_factor_known_perfectly_does_not_solve_an_episode(factor: str, split: str) -> None:
    """Whoever knows one factor can at best name as many of five classes as there are values of it."""
    per_value = values(split, factor)
    draws = np.random.default_rng(0)
    distinct = [len(set(draws.choice(per_value, 5, replace=False))) for _ in range(4000)]
    # Base has the most values: eight for 20 classes give .838, with a standard error of .002 over these draws.
    assert np.mean(distinct) / 5 < 0.88


@pytest.mark.parametrize("known", FACTORS)
@pytest.mark.parametrize("wanted", FACTORS)
def test_novel_factors_tell_little_about_each_other(known: str, wanted: str) -> None:
    """How much likelier two clips of one value of a factor share another factor than two of different values."""
    if known == wanted:
        return
    rows = list(zip(values("novel", known), values("novel", wanted)))
    pairs = [(a[0] == b[0], a[1] == b[1]) for a in rows for b in rows]
    alike = np.mean([k for k, w in pairs if w])
    unlike = np.mean([k for k, w in pairs if not w])
    assert alike - unlike < 0.15  # the table is fixed, so nothing is sampled: its largest value is 1/8


def pairs_by_difference(split: str | None, small: bool = False) -> Counter[str]:
    """Pairs of classes that differ in one factor only, counted by that factor, or ``order of`` it."""
    found: Counter[str] = Counter()
    for a, b in combinations([e for e in events(small) if split in (None, e.split)], 2):
        differing = [factor for factor in FACTORS if getattr(a, factor) != getattr(b, factor)]
        if len(differing) == 1:
            one, other = (getattr(event, differing[0]).split("-then-") for event in (a, b))
            found[("order of " if one[::-1] == other else "") + differing[0]] += 1
    return found


@pytest.mark.parametrize("split", CLASS_SPLITS)
def test_each_split_has_pairs_that_differ_in_one_thing_only(split: str) -> None:
    assert set(pairs_by_difference(split)) == {
        "content",
        "motion",
        "sound",
        "order of motion",
        "order of sound",
    }


def test_the_small_form_keeps_a_pair_of_each_kind() -> None:
    assert len(pairs_by_difference(None, small=True)) == 5


def test_every_motion_and_sound_named_is_made_and_used() -> None:
    assert set(MOTIONS) == set(demo_render._MOVES) == {event.motion for event in events()}
    assert set(SOUNDS) == set(demo_sound._SOUNDS) == {event.sound for event in events()}


def test_order_classes_differ_in_order_only() -> None:
    assert len(set(orders())) == 24
    assert {tuple(sorted(order)) for order in orders()} == {tuple(range(len(SCENES)))}
    by_split = {split: [o for o in orders() if order_split(o) == split] for split in CLASS_SPLITS}
    assert [len(found) for found in by_split.values()] == [12, 6, 6]
    for found in by_split.values():
        assert all(sum(x == y for x, y in zip(a, b)) <= 1 for a, b in combinations(found, 2))


def test_every_clip_shows_all_scenes_for_the_same_time(form: tuple[list[Clip], Catalog]) -> None:
    for clip in form[0]:
        assert Counter(n * 4 // clip.frames for n in range(clip.frames)) == dict.fromkeys(
            range(4), clip.frames // 4
        )
        assert 2 <= clip.seconds <= 4


def test_order_is_balanced_and_independent_of_the_event() -> None:
    clips = [clip for clip in plan_clips() if clip.event >= 0]
    count = Counter(clip.order for clip in clips)
    assert len(set(count.values())) == 1
    # Two clips of one order are of one event as often as two clips of different orders are: 29 of 1559 pairs.
    same = sum(a.event == b.event for a, b in combinations(clips, 2) if a.order == b.order)
    pairs = sum(n * (n - 1) // 2 for n in count.values())
    expected = pairs * (CLIPS_A_CLASS - 1) / (len(clips) - 1)
    assert abs(same - expected) < 4 * np.sqrt(expected)


def test_handwriting_is_of_the_digit_and_in_one_split_only(form: tuple[list[Clip], Catalog]) -> None:
    clips, catalog = form
    target = load_digits().target
    assert all(target[clip.sample] == content_digit(clip.content) for clip in clips)
    labelled = [clip for clip in clips if clip.event >= 0]
    for name in ("event", "content"):
        labels = catalog.labels(name)
        split_of = labels.splits["default"][labels.label[: len(labelled)]]
        in_split = [
            {clip.sample for clip, split in zip(labelled, split_of) if split == code} for code in (1, 2, 3)
        ]
        assert all(in_split)
        assert not any(a & b for a, b in combinations(in_split, 2))
    per_content = Counter((clip.content, clip.sample) for clip in clips)
    assert max(per_content.values()) == 1


def test_share_without_sound_is_as_declared_in_every_class(form: tuple[list[Clip], Catalog]) -> None:
    clips, catalog = form
    silent = [not clip.has_sound for clip in clips]
    assert float(catalog.attrs["share_without_sound"]) == pytest.approx(np.mean(silent), abs=5e-4)
    per_class = Counter(clip.event for clip in clips if not clip.has_sound and clip.event >= 0)
    assert len(per_class) == len({clip.event for clip in clips}) - 1
    assert len(set(per_class.values())) == 1
    tags = catalog.labels("tags")
    marked = tags.label[:, tags.class_names.index("silence")].astype(bool)
    labelled = np.array([clip.event >= 0 for clip in clips])
    np.testing.assert_array_equal(marked, np.array(silent) & labelled)


def test_label_sets_agree_with_the_clips(form: tuple[list[Clip], Catalog]) -> None:
    clips, catalog = form
    for row, clip in enumerate(clips):
        for factor in FACTORS:
            labels = catalog.labels(factor)
            label = labels.label[row]
            assert label == -1 if clip.event < 0 else labels.class_names[label] == getattr(clip, factor)
        order = catalog.labels("order")
        if clip.event >= 0:
            assert order.class_names[order.label[row]] == "-".join(SCENES[i] for i in clip.order)


def test_unlabelled_clips_have_no_label_in_any_set(form: tuple[list[Clip], Catalog]) -> None:
    clips, catalog = form
    unlabelled = np.array([clip.event < 0 for clip in clips])
    assert unlabelled.any()
    for labels in catalog.label_sets.values():
        none = ~labels.label.any(1) if labels.multi else labels.label == -1
        np.testing.assert_array_equal(none, unlabelled)


def test_every_class_of_every_label_set_has_clips_words_and_a_split(form: tuple[list[Clip], Catalog]) -> None:
    for labels in form[1].label_sets.values():
        assert labels.counts().min() >= 3
        assert set(np.unique(labels.splits["default"])) == {1, 2, 3}
        assert len(set(labels.words)) == len(labels.words)
        assert all(word.replace(",", "").replace(" ", "").isalpha() for word in labels.words)


def test_the_plan_is_a_function_of_form_and_seed() -> None:
    assert plan_clips(True, 5) == plan_clips(True, 5)
    ids = [{clip.clip_id for clip in plan_clips(small, seed)} for small in (False, True) for seed in (0, 1)]
    assert not any(a & b for a, b in combinations(ids, 2))
