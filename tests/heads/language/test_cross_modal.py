"""Cross-modal adaptation against torch's autograd and AdamW, a task at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from word_support import WAYS, clips, shared_head, word_episodes

STEPS = 6


@pytest.mark.parametrize("classifier", ["linear", "adapter"])
def test_the_descent(classifier: str) -> None:
    task = word_episodes(shots=2)
    head = shared_head("cross-modal", classifier=classifier, steps=STEPS, wise=0.3)
    found = head(task)
    label = torch.arange(WAYS)
    assert task.words is not None
    for i in range(task.batch):
        words = F.normalize(task.words[i], dim=-1)
        s = F.normalize(task.support["frame"].x[i, :, :, 0].flatten(0, 1), dim=-1)
        q = F.normalize(task.query["frame"].x[i, :, 0], dim=-1)
        weights = [nn.Parameter(words.clone())]
        if classifier == "adapter":
            weights += [nn.Parameter(head.down.clone()), nn.Parameter(head.up.clone())]

        def logits(x: torch.Tensor, weights: list[nn.Parameter] = weights) -> torch.Tensor:
            if len(weights) > 1:
                x = 0.2 * F.relu(F.relu(x @ weights[1].T) @ weights[2].T) + 0.8 * x
            return 100 * x @ weights[0].T

        optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for _ in range(STEPS):
            optimiser.zero_grad()
            of_clips = F.cross_entropy(logits(s), label.repeat_interleave(2))
            (of_clips / 2 + F.cross_entropy(logits(words), label) / 2).backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            weights[0].copy_(0.7 * weights[0] + 0.3 * words)
            assert torch.allclose(found[i], logits(q))


def test_without_supports_words_decide() -> None:
    task = word_episodes(shots=1)
    s = task.support["frame"]
    empty = replace(task, support={"frame": clips(s.x[..., 0, :], torch.zeros_like(s.present))})
    logits = shared_head("cross-modal", wise=1.0)(empty)
    assert task.words is not None
    near = F.normalize(task.query["frame"].x[..., 0, :], dim=-1) @ F.normalize(task.words, dim=-1).mT
    assert torch.allclose(logits, 100 * near)
