"""What a tuning reads: base and val clips alone, divided into parts whose judges never train."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.runs.job import Place
from fsmm.runs.spec import RunSpec
from fsmm.studies.tuning.data import TuningData, joined, judging_protocol, parts_of, tuning_data

TASK = Protocol(n_way=3, k_shot=1, n_query=4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Base classes 0 to 5, val 6 to 11, novel 12 to 17; another split that makes base classes of three novel ones."""
    root = synthetic_cache(tmp_path_factory.mktemp("cache"), clips=6)
    catalog = Catalog.read(root / "toy")
    other = np.array([3, 3, 3, 1, 1, 1, 2, 2, 1, 1, 3, 3, 1, 1, 1, 2, 2, 2], np.int8)
    catalog.labels("event").splits["other"] = other
    catalog.write(root / "toy")
    return Place(cache=root, dataset="toy")


def read(place: Place, *splits: str, **given: Any) -> TuningData:
    return tuning_data(RunSpec(**{"method": "protonet", "protocol": TASK, **given}), place, splits)


def banks_in(value: Any, depth: int = 0) -> list[FeatureBank]:
    """Every bank that can be reached from a value through fields, tables and sequences."""
    if isinstance(value, FeatureBank):
        return [value]
    inner: list[Any] = []
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        inner = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, (list, tuple)):
        inner = list(value)
    return [bank for each in inner for bank in banks_in(each, depth + 1)] if depth < 6 else []


@pytest.mark.parametrize("normalise", ["l2", "centre-l2", "auto"])
def test_no_novel_clip_is_read_or_reached(
    place: Place, monkeypatch: pytest.MonkeyPatch, normalise: str
) -> None:
    asked = []
    whole = FeatureBank.load

    def load(cache: Any, streams: Any, split: str, **choice: Any) -> FeatureBank:
        asked.append(split)
        return whole(cache, streams, split, **choice)

    monkeypatch.setattr(FeatureBank, "load", load)
    data = read(place, "other", normalise=normalise)
    assert set(asked) == {"base", "val"}
    held = [*banks_in(data), *banks_in(parts_of(data, TASK, 2))]
    assert len(held) > 10
    for bank in held:
        assert bank.clip_row.max() < 12 * 6  # The clips of novel classes follow.
        assert bank.class_id.max() < 12


def test_folds_divide_the_base_classes_and_never_train_on_what_judges(place: Place) -> None:
    data = read(place)
    val, *folds = parts_of(data, TASK, 3)
    assert (val.name, len(val.base.class_names)) == ("default: val", 6)
    assert val.test is val.val
    judging = [name for part in folds for name in part.test.class_names]
    assert sorted(judging) == sorted(data.base.class_names)
    for part in folds:
        assert not set(part.base.class_names) & set(part.test.class_names)
        assert len(part.base.class_names) + len(part.test.class_names) == 6
        assert part.val is not None
        assert (
            part.val.class_names == data.val.class_names if data.val else False
        )  # Training stops on val classes.


def test_other_class_splits_divide_what_is_base_or_val_here(place: Place) -> None:
    val, other = parts_of(read(place, "other"), TASK, 0)
    assert val.split == "default"
    assert other.base.class_names == ["class 3", "class 4", "class 5", "class 8", "class 9"]
    assert other.test.class_names == ["class 6", "class 7"]


def test_folds_are_taken_where_val_classes_are_few(place: Place) -> None:
    assert len(parts_of(read(place), TASK, None)) == 1 + 2
    assert len(parts_of(read(place), TASK, 0)) == 1


def test_each_part_is_centred_by_its_own_training_clips(place: Place) -> None:
    raw, centred = (parts_of(read(place, normalise=how), TASK, 2)[1] for how in ("none", "centre-l2"))
    mean = raw.base.means()["frame"]
    rows = torch.arange(len(raw.test))
    expected = raw.test.tables["frame"].gather(rows).x - mean
    found = centred.test.tables["frame"].gather(rows).x
    assert torch.allclose(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)


def test_joined_banks_hold_the_clips_of_both(place: Place) -> None:
    data = read(place, method="otam", modalities=("frame",))
    assert data.val is not None
    both = joined(data.base, data.val)
    rows = torch.arange(len(data.val)) + len(data.base)
    assert torch.equal(
        both.tables["frame"].gather(rows).x, data.val.tables["frame"].gather(rows - len(data.base)).x
    )
    assert [both.class_names[c] for c in both.label[rows]] == [
        data.val.class_names[c] for c in data.val.label
    ]


def test_a_judge_asks_as_much_as_its_classes_have(place: Place) -> None:
    (val,) = parts_of(read(place), TASK, 0)
    protocol = judging_protocol(replace(TASK, n_way=9, n_query=50), val.test)
    assert (protocol.n_way, protocol.n_query) == (6, 5)
    assert protocol.seed != TASK.seed


@pytest.mark.parametrize(
    ("splits", "folds", "given", "sentence"),
    [
        ((), None, {"protocol": replace(TASK, split="base")}, "cannot serve --split base"),
        (("nowhere",), None, {}, "Unknown class split 'nowhere'"),
        ((), 4, {}, "6 base classes cannot be divided into 4 folds of two"),
    ],
)
def test_what_has_no_meaning_is_refused(
    place: Place, splits: tuple[str, ...], folds: int | None, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        parts_of(read(place, *splits, **given), TASK, folds)
