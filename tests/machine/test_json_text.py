"""JSON that every reader takes, whatever a figure is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsmm.machine.files import write_json
from fsmm.machine.json_text import json_text


def strict(text: str) -> Any:
    """The value of a text that is JSON by its standard, which has no words for NaN and the infinities."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


FIGURES = (math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf"), torch.tensor(math.nan))


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_that_json_cannot_state_is_null_at_any_depth(figure: Any) -> None:
    assert strict(json_text({"a": [figure, {"b": (figure, 1.5)}]})) == {"a": [None, {"b": [None, 1.5]}]}


def test_numbers_of_numpy_and_torch_stay_numbers() -> None:
    value = {
        "mean": np.float32(0.5),
        "count": np.int64(3),
        "rows": np.array([1.0, np.nan]),
        "x": torch.tensor([2, 3]),
    }
    assert strict(json_text(value)) == {"mean": 0.5, "count": 3, "rows": [1.0, None], "x": [2, 3]}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_VALUES)
def test_any_plain_value_gives_a_strict_document_that_says_the_same(value: Any) -> None:
    def expected(part: Any) -> Any:
        if isinstance(part, float):
            return part if math.isfinite(part) else None
        if isinstance(part, list):
            return [expected(inner) for inner in part]
        return {key: expected(inner) for key, inner in part.items()} if isinstance(part, dict) else part

    assert strict(json_text(value)) == expected(value)


def test_files_are_written_alike(tmp_path: Path) -> None:
    write_json(tmp_path / "run" / "metrics.json", {"best_val": math.nan, "out": tmp_path})
    assert strict((tmp_path / "run" / "metrics.json").read_text()) == {"best_val": None, "out": str(tmp_path)}
