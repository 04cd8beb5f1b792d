"""Where clips come from, and what becomes of it when data sets are united."""

from __future__ import annotations

import numpy as np
import pytest

from fsmm.cache.origin import UNSEEN, ClipSources, Origin, united_sources

ONE, OTHER = Origin("folder", "/a", "/a"), Origin("folder", "/b", "/b")


def test_an_origin_is_its_kind_root_and_options() -> None:
    small = Origin("demo", options={"form": "small", "seed": "0"})
    full = Origin("demo", options={"form": "full", "seed": "0"})
    assert small.is_same(Origin("demo", folder="/elsewhere", options={"seed": "0", "form": "small"}))
    assert not small.is_same(full)
    assert not small.is_same_elsewhere(full)
    assert not ONE.is_same(OTHER)
    assert ONE.is_same_elsewhere(OTHER)
    assert small.text() == "demo (form small, seed 0)"
    assert Origin.from_json(small.to_json()) == small


@pytest.mark.parametrize(
    "text", ["", "[]", '{"kind": 1}', '{"kind": "a", "options": {"x": 2}}', '{"sort": "x"}']
)
def test_a_text_that_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        Origin.from_json(text)


def test_a_clip_is_gone_when_no_origin_lists_it() -> None:
    sources = ClipSources([ONE, OTHER], [0, 0, 1], np.array([[1, 0], [0, 1], [0, 0]]))
    assert sources.gone.tolist() == [False, False, True]
    assert ClipSources.of(ONE, 3).gone.tolist() == [False] * 3


def test_a_union_lists_what_any_part_lists_and_keeps_the_first_state() -> None:
    first = ClipSources([ONE], [0, 0], [[True], [False]], [10, UNSEEN], [5, UNSEEN])
    second = ClipSources([OTHER, ONE], [0, 1], [[True, False], [False, True]], [20, 30], [6, 7])
    united = united_sources(3, [(first, np.array([0, 1])), (second, np.array([2, 1]))])
    assert united.origins == [ONE, OTHER]
    assert united.origin.tolist() == [0, 0, 1]
    assert united.listed.tolist() == [[True, False], [True, False], [False, True]]
    assert united.size.tolist() == [10, 30, 20]
    assert united.mtime_ns.tolist() == [5, 7, 6]


def test_an_unknown_origin_yields_to_a_known_one() -> None:
    known = ClipSources([ONE], [0, 0], [[False], [True]])
    for parts in ([0, 1], [1, 0]):
        both = [(known, np.array([0, 1])), (ClipSources.unknown(2), np.array([0, 1]))]
        united = united_sources(2, [both[i] for i in parts])
        assert united.origins == [ONE]
        assert united.gone.tolist() == [True, False]
    partly = united_sources(3, [(ClipSources.unknown(3), np.arange(3)), (known, np.array([0, 1]))])
    assert [origin.is_known for origin in partly.origins] == [True, False]
    assert partly.origin.tolist() == [0, 0, 1]
    assert partly.gone.tolist() == [True, False, False]
