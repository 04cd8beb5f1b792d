"""How texts of the command line and values of a file become values of fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from fsmm.episodes.protocol import Missing, Range
from fsmm.errors import UsageError
from fsmm.runs.kinds import kind_of

Three = tuple[int, int, int]
Names = tuple[str, ...]


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        (str, "a", "a"),
        (int, 3, 3),
        (int, "3", 3),
        (float, 3, 3.0),
        (float, "0.5", 0.5),
        (bool, True, True),
        (Path, "~/x", Path.home() / "x"),
        (Literal["a", "b"], "b", "b"),
        (Range, "5", 5),
        (Range, 5, 5),
        (Range, "5-10", (5, 10)),
        (Range, [5, 10], (5, 10)),
        (Range | None, "5-10", (5, 10)),
        (Names, "a, b", ("a", "b")),
        (Names, ["a", "b"], ("a", "b")),
        (Names, "", ()),
        (Names | None, "", None),
        (Three, "16,4,12", (16, 4, 12)),
        (Three | None, [16, 4, 12], (16, 4, 12)),
        (tuple[Missing, ...], ["audio=0.5@query", "flow=1"], (Missing("audio", 0.5, "query"), Missing("flow", 1))),
        (tuple[Missing, ...], [{"modality": "audio", "rate": 0.5, "side": "query"}], (Missing("audio", 0.5, "query"),)),
        (Mapping[str, str], ["a=1", "b=x=y", "c="], {"a": "1", "b": "x=y", "c": ""}),
        (Mapping[str, str], {"a": 1, "b": True, "c": [1, 2]}, {"a": "1", "b": "true", "c": "1,2"}),
        (Mapping[str, str], {"a": None}, {"a": "none"}),
        (Mapping[str, Path], ["a=x/y"], {"a": Path("x/y")}),
        (Mapping[str, Names], ["a=x", "b=y", "a=z"], {"a": ("x", "z"), "b": ("y",)}),
        (Mapping[str, Names], {"a": ["x", "z"], "b": "y"}, {"a": ("x", "z"), "b": ("y",)}),
        (int | None, None, None),
    ],
)  # fmt: skip
def test_a_value_is_read_as_its_annotation_says(annotation: Any, given: Any, value: Any) -> None:
    assert kind_of(annotation).read("--option", given) == value


def test_the_text_none_is_none_where_the_default_is_something() -> None:
    assert kind_of(str | None, "auto").read("--words", "none") is None
    assert kind_of(str | None, None).read("--label-set", "none") == "none"
    assert kind_of(Literal["l2", "none"], "l2").read("--normalise", "none") == "none"


@pytest.mark.parametrize(
    ("annotation", "given", "sentence"),
    [
        (str, 3, "takes a text, not 3"),
        (int, "x", "takes a whole number, not 'x'"),
        (int, 2.5, "takes a whole number, not 2.5"),
        (int, True, "takes a whole number"),
        (float, "x", "takes a number, not 'x'"),
        (bool, "yes", "takes true or false"),
        (Path, 3, "takes a path"),
        (Literal["refuse", "exclude"], "refus", "Did you mean 'refuse'"),
        (Range, "many", "neither a number nor a range"),
        (Range, [1, 2, 3], "takes a whole number"),
        (Names, 3, "names separated by commas"),
        (Three, "3,2", "three whole numbers"),
        (Three, [1, 2, 2.5], "three whole numbers"),
        (Three, 3, "three whole numbers"),
        (tuple[Missing, ...], ["audio"], "not of the form modality=rate"),
        (tuple[Missing, ...], [{"modality": "audio"}], "tables of modality, rate, side"),
        (tuple[Missing, ...], [{"modality": "audio", "rate": 1, "sides": "both"}], "tables of modality"),
        (tuple[Missing, ...], 3, "takes texts such as"),
        (Mapping[str, str], ["speed"], "not of the form key=value"),
        (Mapping[str, str], ["=3"], "not of the form key=value"),
        (Mapping[str, str], 3, "takes a table"),
        (Mapping[str, Path], ["a="], "not of the form NAME=PATH"),
        (Mapping[str, Names], ["a"], "not of the form KEY=NAME"),
        (int, None, "takes a whole number"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_option(
    annotation: Any, given: Any, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        kind_of(annotation).read("--option", given)
    assert "\n" not in str(caught.value)
    assert "--option" in str(caught.value) or "missing rate" in str(caught.value)


@pytest.mark.parametrize("annotation", [bytes, tuple[float, ...], list[int], int | str])
def test_an_annotation_that_no_option_can_have_is_refused(annotation: Any) -> None:
    with pytest.raises(TypeError, match="no option can be made"):
        kind_of(annotation)
