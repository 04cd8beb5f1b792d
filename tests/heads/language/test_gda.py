"""GDA against the textbook form of its estimator, made with whole covariance matrices."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from word_support import DIM, WAYS, WORD, shared_head, spoken_bank, word_episodes

from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.language.gda import ALPHAS


def gaussian_logits(q: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    w = mean @ precision
    return q @ w.T - (w * mean).sum(1) / 2 - math.log(len(mean))


def test_the_shrunk_estimator() -> None:
    task = word_episodes(shots=3)
    head = shared_head("gda", alpha=0.7)
    logits = head(task)
    for i in range(task.batch):
        s = F.normalize(task.support["frame"].x[i, :, :, 0], dim=-1)
        q = F.normalize(task.query["frame"].x[i, :, 0], dim=-1)
        away = (s - s.mean(1, keepdim=True)).flatten(0, 1)
        n = len(away)
        covariance = torch.cov(away.T)
        precision = DIM * torch.linalg.inv((n - 1) * covariance + covariance.trace() * torch.eye(DIM))
        assert task.words is not None
        text = 100 * q @ F.normalize(task.words[i], dim=-1).T
        assert torch.allclose(logits[i], text + 0.7 * gaussian_logits(q, s.mean(1), precision))


def test_the_pooled_estimator() -> None:
    task = word_episodes(shots=3, batch=1)
    logits = shared_head("gda", alpha=1e-3, covariance="pooled")(task)
    s = F.normalize(task.support["frame"].x[0, :, :, 0], dim=-1)
    q = F.normalize(task.query["frame"].x[0, :, 0], dim=-1)
    precision = torch.linalg.pinv(torch.stack([torch.cov(own.T) for own in s]).mean(0), hermitian=True)
    assert task.words is not None
    text = 100 * q @ F.normalize(task.words[0], dim=-1).T
    assert torch.allclose(logits[0], text + 1e-3 * gaussian_logits(q, s.mean(1), precision))


def test_one_support_a_class_is_a_nearest_mean() -> None:
    task = word_episodes(shots=1)
    head = shared_head("gda", alpha=1e6)  # words weigh nothing
    s, q = (F.normalize(x.x[..., 0, :], dim=-1) for x in (task.support["frame"], task.query["frame"]))
    assert torch.equal(head(task).argmax(-1), (q @ s[:, :, 0].transpose(1, 2)).argmax(-1))


def test_base_classes_choose_alpha() -> None:
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=WORD, way=WAYS, shot=5)
    head = build_head("gda", inputs).double()
    head.fit_base(spoken_bank())
    assert head.chosen()["alpha"] in ALPHAS


def test_new_classes_borrow_the_nearest_base_clips() -> None:
    base = spoken_bank()
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=WORD, way=WAYS)
    head = build_head("gda-new", inputs, {"neighbours": "5", "copies": "2", "alpha": "0.5"}).double()
    head.fit_base(base)
    task = word_episodes(width=WORD, batch=1)
    assert task.words is not None
    w = F.normalize(head.words(task.words[0]), dim=-1)
    x = F.normalize(base.tables["frame"].gather(torch.arange(len(base))).pooled(), dim=-1)
    near = torch.stack([x[(x @ own).topk(5).indices] for own in w])
    mean = (near.sum(1) + 2 * w) / 7
    each = []
    for own, clips in zip(w, near):
        s = (clips - own).T @ (clips - own) / 4
        each.append(DIM * torch.linalg.inv(4 * s + s.trace() * torch.eye(DIM)))
    q = F.normalize(task.query["frame"].x[0, :, 0], dim=-1)
    expected = float(head.words.scale) * q @ w.T + 0.5 * gaussian_logits(q, mean, torch.stack(each).mean(0))
    assert torch.allclose(head(task)[0], expected)


def test_classes_that_tasks_share_are_read_alike_alone_and_together() -> None:
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=WORD, way=WAYS)
    head = build_head("gda-new", inputs).double()
    head.fit_base(spoken_bank())
    task = word_episodes(width=WORD, batch=3)
    assert task.words is not None
    drawn = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1], [1, 0, 4, 2]])
    task = replace(task, words=task.words.flatten(0, 1)[drawn])
    weight, mean = head.gaussians(head.words(task.words))
    own, away = head.stand_ins(F.normalize(head.words(task.words), dim=-1))
    assert torch.allclose(mean, own)
    assert torch.allclose(weight, head.times_precision(mean, away))
    assert torch.allclose(head(task), torch.cat([head(task.slice(i, i + 1)) for i in range(3)]))


def test_kept_clips_are_of_every_class() -> None:
    base = spoken_bank(classes=5, per_class=20)
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=WORD)
    head = build_head("gda-new", inputs, {"clips": "10"}).double()
    head.fit_base(base)
    x = F.normalize(base.tables["frame"].gather(torch.arange(len(base))).pooled(), dim=-1)
    rows = torch.cdist(head.base, x).argmin(1)
    assert base.label[rows].bincount().tolist() == [2] * 5
