"""The blend by a held-out shot: its ratio against a search by hand, and the cases in which nothing can be held out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from word_support import WAYS, clips, shared_head, word_episodes

from fsmm.episodes.batch import Episodes
from fsmm.heads.adaptation.ridge import Ridge, RidgeSettings
from fsmm.heads.head import Inputs


def ridge() -> Ridge:
    return Ridge(Inputs(streams={"frame": (1, 12)}), RidgeSettings())


def by_hand(task: Episodes, shots: list[int], i: int) -> float:
    """The first ratio of the grid with the least log-loss of these held-out shots in task i."""
    x = task.support["frame"].x[..., 0, :]
    losses = torch.zeros(101).double()
    for shot in shots:
        kept = [k for k in range(x.shape[2]) if k != shot]
        few = clips(x[:, :, kept], torch.ones(len(x), WAYS, len(kept)).bool())
        held = clips(x[:, :, shot], torch.ones(len(x), WAYS).bool())
        visual = ridge()(replace(task, support={"frame": few}, query={"frame": held}))[i]
        assert task.words is not None
        text = 5 * F.normalize(x[i, :, shot], dim=-1) @ F.normalize(task.words[i], dim=-1).T
        for g in range(101):
            losses[g] += F.cross_entropy(g / 100 * visual + (1 - g / 100) * text, torch.arange(WAYS))
    return int(losses.argmin()) / 100


@pytest.mark.parametrize(("held", "shots"), [("first", [0]), ("each", [0, 1, 2])])
def test_the_ratio_is_that_of_the_held_out_shots(held: str, shots: list[int]) -> None:
    task = word_episodes(shots=3, batch=4)
    ratio = shared_head("hoso", held=held, scale=5).ratio(task)
    assert ratio.tolist() == pytest.approx([by_hand(task, shots, i) for i in range(4)])


def test_the_blend_is_of_the_two_scores() -> None:
    task = word_episodes(shots=3)
    head = shared_head("hoso")
    ratio = head.ratio(task)[:, None, None]
    assert torch.allclose(head(task), ratio * ridge()(task) + (1 - ratio) * head.task(task).text_logits)


def test_one_shot_takes_the_constant() -> None:
    assert shared_head("hoso", one_shot=0.3).ratio(word_episodes(shots=1)).tolist() == pytest.approx(
        [0.3, 0.3]
    )


def test_a_class_with_one_support_keeps_it() -> None:
    task = word_episodes(shots=3)
    s = task.support["frame"]
    present = s.present.clone()
    present[:, :, 1:] = False
    lone = replace(task, support={"frame": clips(s.x[..., 0, :], present)})
    head = shared_head("hoso", fold=False)
    assert head.ratio(lone).tolist() == pytest.approx([0.2, 0.2])
    only = replace(task, support={"frame": clips(s.x[:, :, :1, 0], present[:, :, :1])})
    assert torch.allclose(head(lone), head(only))


@pytest.mark.parametrize("visual", ["protonet", "simpleshot", "nearest", "linear-probe", "finetune"])
def test_any_visual_score(visual: str) -> None:
    logits = shared_head("hoso", visual=visual, text="gda-new")(word_episodes(shots=2))
    assert bool(torch.isfinite(logits).all())
