"""What is searched: every setting with a range of its own, or those that are named, within what their types allow."""

from __future__ import annotations

import pytest

from fsmm.errors import UsageError
from fsmm.heads.registry import METHODS
from fsmm.heads.settings import make_settings
from fsmm.runs.spec import RunSpec
from fsmm.studies.grid.identity import check_settings
from fsmm.studies.tuning.space import Dimension, defaults, space_of


def space(method: str, *search: str, modalities: int = 1, **settings: str) -> dict[str, Dimension]:
    spec = RunSpec(method=method, settings=settings)
    return {each.key: each for each in space_of(spec, search, modalities=modalities)}


@pytest.mark.parametrize("name", METHODS)
def test_every_end_of_every_range_is_a_setting_of_the_head(name: str) -> None:
    spec = RunSpec(method=name)
    try:
        found = space_of(spec, (), modalities=2)
    except UsageError:
        pytest.skip("nothing has a range of its own")
    for dimension in found:
        ends = dimension.choices or (dimension.text(dimension.low), dimension.text(dimension.high))
        for end in ends:
            check_settings(RunSpec(method=name, settings={dimension.key: end}), [dimension.key])
            assert dimension.value(end) is not None
    usual = defaults(spec, found, modalities=2)
    own = {key: text for key, text in usual.items() if "." not in key}
    assert make_settings(METHODS[name].load().Settings, own, name) == METHODS[name].load().Settings()


def test_types_and_defaults_suggest_ranges() -> None:
    found = space("relation")
    assert str(found["train.rate"]).endswith("(log)")
    assert found["train.steps"].whole
    assert set(space("protonet-lf", modalities=2)) >= {"fusion.rule", "fusion.temperature", "fusion.weights"}
    assert "fusion.rule" not in space("protonet", modalities=2)  # EC joins no posteriors
    assert not any(key.startswith("train.") for key in space("protonet"))


def test_set_fixes_and_search_gives_a_range() -> None:
    assert "scale" not in space("protonet", scale="3")
    only = space("protonet", "scale=1:50")
    assert only == {"scale": Dimension(key="scale", low=1, high=50, log=True)}
    both = space("protonet", "scale=2,3,5", "all")
    assert both["scale"].choices == ("2", "3", "5")
    assert set(both) == set(space("protonet"))
    assert space("relation", "train.weight_decay=0:0.1")["train.weight_decay"].log is False


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ("scal=1:2", "Did you mean 'scale'"),
        ("scale=-1:2", "scale=-1 is not allowed"),
        ("scale=3:2", "the lower end must lie below the upper one"),
        ("scale=3", "fixes one"),
        ("scale=a,b", "is not a float"),
        ("scale=1:2:cubic", "is no range of scale"),
        ("distance=1:2", "is no range of distance"),
        ("train.rate=0.1:1", "Unknown setting"),
        ("distance=cosine,cosin", "cosin"),
    ],
)
def test_a_range_that_has_no_meaning_is_one_sentence(search: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        space("protonet", search)


def test_a_setting_is_not_both_fixed_and_searched_and_something_must_be_left() -> None:
    with pytest.raises(UsageError, match="leave one out"):
        space("protonet", "scale=1:2", scale="3")
    with pytest.raises(UsageError, match="left to search"):
        space("nearest", distance="cosine")
