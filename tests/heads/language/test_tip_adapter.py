"""Tip-Adapter and its trained form, against the formula and torch's own optimiser."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from word_support import WAYS, clips, shared_head, spoken_bank, word_episodes

from fsmm.episodes.batch import Episodes
from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.language.tip_adapter import search_grid


def formula(q: Tensor, keys: Tensor, text: Tensor, *, beta: float, alpha: float) -> Tensor:
    """100 cos(q, t_c) + alpha sum_i exp(-beta (1 - q.k_i)) for one task; keys: [N, K, D]."""
    q = F.normalize(q, dim=-1)
    near = torch.stack([torch.exp(-beta * (1 - q @ own.T)).sum(1) for own in keys], 1)
    return 100 * q @ F.normalize(text, dim=-1).T + alpha * near


def parts(task: Episodes, i: int) -> tuple[Tensor, Tensor, Tensor]:
    assert task.words is not None
    return task.query["frame"].x[i, :, 0], task.support["frame"].x[i, :, :, 0], task.words[i]


def test_the_formula() -> None:
    task = word_episodes()
    logits = shared_head("tip-adapter", beta=2.0, alpha=7.0)(task)
    for i in range(task.batch):
        q, s, text = parts(task, i)
        assert torch.allclose(logits[i], formula(q, F.normalize(s, dim=-1), text, beta=2.0, alpha=7.0))


def test_keys_are_trained_as_by_torch() -> None:
    task = word_episodes()
    logits = shared_head("tip-adapter-f", beta=2.0, alpha=7.0, steps=5)(task)
    for i in range(task.batch):
        q, s, text = parts(task, i)
        x = F.normalize(s, dim=-1)
        keys = nn.Parameter(x.clone())
        optimiser = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5)
        label = torch.arange(WAYS).repeat_interleave(s.shape[1])
        for _ in range(5):
            optimiser.zero_grad()
            F.cross_entropy(formula(x.flatten(0, 1), keys, text, beta=2.0, alpha=7.0), label).backward()
            optimiser.step()
            schedule.step()
        assert torch.allclose(logits[i], formula(q, keys.detach(), text, beta=2.0, alpha=7.0))


@pytest.mark.parametrize("name", ["tip-adapter", "tip-adapter-f"])
def test_an_absent_support_is_no_key(name: str) -> None:
    task = word_episodes(shots=3)
    s = task.support["frame"]
    present = s.present.clone()
    present[:, :, 2] = False
    holed = replace(task, support={"frame": clips(s.x[..., 0, :], present)})
    fewer = replace(task, support={"frame": clips(s.x[:, :, :2, 0], present[:, :, :2])})
    head = shared_head(name, beta=2.0, alpha=7.0)
    assert torch.allclose(head(holed), head(fewer))


def test_the_grid_is_the_published_one() -> None:
    grid = search_grid((7.0, 3.0), (200, 20))
    assert len(grid) == 4000
    assert grid[0] == (0.1, 0.1)
    assert grid[21] == pytest.approx((0.1 + 6.9 / 200, 0.1 + 2.9 / 20))


def test_base_classes_choose_what_is_not_set() -> None:
    base = spoken_bank()
    inputs = Inputs(streams={"frame": (1, 12)}, word_dim=6, way=4, shot=1)
    head = build_head("tip-adapter", inputs, {"beta": "3"}).double()
    head.fit_base(base)
    chosen = head.chosen()
    assert chosen["beta"] == 3.0
    assert chosen["alpha"] in [pair[1] for pair in search_grid()]
    assert set(chosen) == {"beta", "alpha", "scale", "word_ridge"}


def test_words_are_needed_in_one_sentence() -> None:
    with pytest.raises(UsageError, match="needs class words"):
        build_head("tip-adapter", Inputs(streams={"frame": (1, 12)}))
    with pytest.raises(UsageError, match="needs class words"):
        shared_head("tip-adapter")(replace(word_episodes(), words=None))
