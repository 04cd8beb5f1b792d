"""The table of a study's expected time: the whole on two cores, and the dearest runs and trainings, each once."""

from __future__ import annotations

import pytest
from tests_support import script

COST = script("study_cost")


def test_a_run_that_two_blocks_ask_for_counts_once_and_what_is_done_not_at_all() -> None:
    rows = [
        {"key": "a", "block": "one", "label": "A", "done": False, "seconds": 30.0, "head": None},
        {"key": "a", "block": "two", "label": "A", "done": False, "seconds": 30.0, "head": None},
        {"key": "b", "block": "one", "label": "B", "done": False, "seconds": 10.0, "head": "h"},
        {"key": "c", "block": "one", "label": "C", "done": True, "seconds": None, "head": "h"},
    ]
    plan = {"rows": rows, "heads": {"h": 60.0}, "methods_not_measured": 2}
    found = COST.costs(plan)
    assert found[COST.WHOLE] == pytest.approx(60.0), "half of 100 s, but no less than the longest"
    assert list(found.items())[1:] == [("the training for one: B", 60.0), ("two: A", 30.0), ("one: B", 10.0)]
    assert COST.counts(plan) == "(2 runs and 1 trainings; 2 methods are not measured)"
    assert COST.counts({**plan, "methods_not_measured": 0}) == "(2 runs and 1 trainings)"
