"""Normalisation: what each way computes, and that base and val classes alone choose among them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import bank_of, synthetic_cache

import fsmm
from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.runs.banks import Banks
from fsmm.runs.job import Place
from fsmm.runs.normalisation import choose_normalisation, of_classes, prepared
from fsmm.runs.spec import RunSpec

TASK = Protocol(n_query=5)


def two_steps() -> FeatureBank:
    """Clips of two steps, of which the second clip has only one."""
    x = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 0.0]]])
    return bank_of(x, torch.tensor([0, 1]), torch.tensor([2, 1]))


def features(bank: FeatureBank) -> list[list[list[float]]]:
    return bank.tables["frame"].gather(torch.arange(len(bank))).x.tolist()


def test_what_is_computed_for_heads_that_pool_and_for_heads_that_read_steps() -> None:
    bank = two_steps()
    pooled = {how: features(prepared(bank, how, pools=True)) for how in ("none", "l2", "per-step")}
    assert pooled["none"] == [[[1.5, 0.5]], [[0.0, 2.0]]]
    assert pooled["l2"][0][0] == pytest.approx([1.5 / math.sqrt(2.5), 0.5 / math.sqrt(2.5)])
    assert pooled["per-step"] == [[[0.5, 0.5]], [[0.0, 1.0]]]
    for how in ("l2", "per-step"):
        assert features(prepared(bank, how, pools=False)) == [
            [[1.0, 0.0], [0.0, 1.0]],
            [[0.0, 1.0], [0.0, 0.0]],
        ]
    means = {"frame": torch.tensor([1.0, 0.0])}
    assert features(prepared(bank, "centre-l2", pools=True, means=means))[0][0] == pytest.approx(
        [0.5 / math.sqrt(0.5), 0.5 / math.sqrt(0.5)]
    )
    centred = features(prepared(bank, "centre-l2", pools=False, means=means))
    assert centred[0][1] == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])
    assert centred[1][1] == [0.0, 0.0], "what is no step stays zero"


def test_some_classes_of_a_bank_keep_their_names_and_clips() -> None:
    bank = bank_of(torch.arange(8.0)[:, None], torch.tensor([3, 1, 0, 2, 1, 3, 2, 0]))
    part = of_classes(bank, np.array([1, 3]))
    assert part.class_names == ["1", "3"]
    assert part.class_id.tolist() == [1, 3]
    assert part.label.tolist() == [1, 0, 0, 1]
    assert part.tables["frame"].gather(torch.arange(4)).x.flatten().tolist() == [0, 1, 4, 5]


def banks(seed: int, *, common: float, width: float = 1.0) -> tuple[FeatureBank, FeatureBank]:
    """Base and val classes whose features have a large part in common."""
    chance = torch.Generator().manual_seed(seed)

    def some(classes: int, split: str) -> FeatureBank:
        label = torch.arange(classes).repeat_interleave(20)
        centre = torch.randn(classes, 1, 16, generator=chance)[label]
        x = common + centre + width * torch.randn(len(label), 3, 16, generator=chance)
        return bank_of(x, label, split=split)

    return some(12, "base"), some(6, "val")


def test_a_large_common_part_is_centred_away_and_otherwise_l2_stays() -> None:
    base, val = banks(0, common=6.0, width=2.0)
    found = choose_normalisation(base, val, TASK, pools=True, late=False)
    assert found.pick == "centre-l2"
    assert found.gain > 0.01
    assert (found.base_classes, found.val_classes) == (12, 6)
    assert set(found.scores) == {"none", "l2", "centre-l2", "per-step"}
    base, val = banks(1, common=0.0)
    plain = choose_normalisation(base, val, TASK, pools=False, late=True)
    assert plain.pick == "l2"
    assert "per-step" not in plain.scores, "it is l2 where steps are read"


def test_one_of_base_and_val_is_enough_and_none_is_not() -> None:
    base, val = banks(0, common=6.0, width=2.0)
    assert choose_normalisation(base, None, TASK, pools=True, late=False).val_classes == 0
    assert choose_normalisation(None, val, TASK, pools=True, late=False).base_classes == 0
    with pytest.raises(
        UsageError, match="--normalise auto chooses by base and val classes, and there are none"
    ):
        choose_normalisation(None, None, TASK, pools=True, late=False)


def test_a_run_says_what_was_chosen_and_the_test_classes_have_no_say(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path, classes=24, common=4.0, noise=2.0)
    protocol = Protocol(n_query=5)
    run = fsmm.episode_eval("protonet", cache=cache, protocol=protocol, episodes=200, normalise="auto")
    choice = run.metrics["normalise_choice"]
    assert run.metrics["normalise"] == choice["pick"] == "centre-l2"
    named = fsmm.episode_eval("protonet", cache=cache, protocol=protocol, episodes=200, normalise="centre-l2")
    assert run.mean == named.mean
    assert named.metrics["normalise_choice"] is None
    spec = RunSpec(method="protonet", normalise="auto", protocol=Protocol(n_query=5, split="val"))
    other = Banks(spec, Place(cache=cache))
    assert other.choice is not None
    assert dict(other.choice.scores) == choice["scores"], "whichever split is tested"


def test_steps_are_scaled_before_the_average_where_asked_for(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path, classes=9)
    place = Place(cache=cache)
    bank = Banks(RunSpec(method="protonet", normalise="per-step"), place).test
    raw = Banks(RunSpec(method="otam", normalise="none"), place).test
    x, length = raw.tables["frame"].gather(torch.arange(len(raw))).x, raw.tables["frame"].length
    unit = torch.nn.functional.normalize(x, dim=-1).sum(1) / length[:, None]
    torch.testing.assert_close(bank.tables["frame"].gather(torch.arange(len(bank))).x[:, 0], unit)
