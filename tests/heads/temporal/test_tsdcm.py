"""TS-DCM: descriptions by loops over channels, blindness to order, learned weights, directions of the base classes."""

from __future__ import annotations

import pytest
import torch
from temporal_support import DIM, STEPS, cut, episode, head, order_kept
from tests_support import random_bank

from fsmm.errors import UsageError
from fsmm.heads.temporal.tsdcm import TSDCM


def made(**settings: str) -> TSDCM:
    found = head("tsdcm", settings)
    assert isinstance(found, TSDCM)
    return found


def test_a_description_is_that_of_a_loop_over_channels() -> None:
    tsdcm = made(weigh="false", channels="0")
    x = torch.randn(STEPS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = tsdcm.described(x, x.mean(0), torch.ones(STEPS, dtype=torch.bool))
    a = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            a[i, j] = ((x[:, i] - x[:, j]).square().sum() / (2 * STEPS) + 1e-5) ** 0.4
    centred = a - a.mean(0) - a.mean(1)[:, None] + a.mean()
    expected = [centred[i, j] for i in range(3) for j in range(i, 3)]
    assert torch.allclose(found, torch.stack(expected))


def test_pooled_clips_are_blind_to_order() -> None:
    task = episode(short=False)
    before = made()(task)
    task.query["frame"].x = task.query["frame"].x.flip(-2)
    assert torch.allclose(made()(task), before)


@pytest.mark.parametrize("side", ["support", "query"])
@pytest.mark.parametrize("patches", ["0", "3"])
def test_steps_beyond_a_clip_do_not_count(side: str, patches: str) -> None:
    tsdcm, task = made(patches=patches), episode()
    assert torch.allclose(tsdcm(cut(task, side)), tsdcm(task))


def test_only_patches_have_weights_to_learn() -> None:
    assert not list(made().parameters())
    tsdcm, task = made(patches="3"), episode()
    tsdcm.loss(task).total.backward()
    assert tsdcm.generator is not None
    assert tsdcm.generator.weight.grad is not None
    assert float(tsdcm.generator.weight.grad.abs().max()) > 0


def test_directions_are_those_of_most_variance() -> None:
    bank = random_bank({"frame": (STEPS, DIM)}, classes=6, clips=10, short=False, dtype=torch.float64, seed=3)
    tsdcm = made(channels="4")
    tsdcm.fit_base(bank)
    x = bank.tables["frame"].gather(torch.arange(60)).x.flatten(0, 1)
    _, _, right = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    ours = tsdcm.directions @ tsdcm.directions.T
    assert torch.allclose(ours, right[:4].T @ right[:4], atol=1e-8)


def test_bfloat16_keeps_the_ranking() -> None:
    assert order_kept(made(), episode(batch=20)) > 0.9


def test_features_that_are_no_patches_are_one_sentence() -> None:
    with pytest.raises(UsageError, match="patches"):
        made(patches="4")
