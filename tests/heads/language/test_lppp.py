"""LP++ against its descent written with torch's autograd and optimiser, a task at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from word_support import WAYS, shared_head, word_episodes


@pytest.mark.parametrize("accumulate", [False, True])
def test_the_descent(accumulate: bool) -> None:
    task = word_episodes(shots=2)
    # A small start leaves samples wrong, so that there is something to descend on.
    logits = shared_head("lppp", start=0.02, steps=25, accumulate=accumulate)(task)
    label = torch.arange(WAYS).repeat_interleave(2)
    for i in range(task.batch):
        f = F.normalize(task.support["frame"].x[i, :, :, 0], dim=-1).flatten(0, 1)
        q = F.normalize(task.query["frame"].x[i, :, 0], dim=-1)
        assert task.words is not None
        text = F.normalize(task.words[i], dim=-1).T
        near = f @ text
        own = near[torch.arange(len(f)), label].view(WAYS, 2).mean(1)
        w = nn.Parameter(f.view(WAYS, 2, -1).sum(1))
        b = nn.Parameter(torch.zeros(WAYS).double())
        a = torch.full((WAYS,), 0.02 * 100 * float(own.mean())).double().requires_grad_()
        rate = 4 * len(f) / float(torch.linalg.eigvalsh(f.T @ f)[-1])
        blend_rate = len(f) / (4 * float(near.square().sum(0).max()))
        optimiser = torch.optim.SGD([w, b], lr=rate, momentum=0.9)
        for step in range(25):
            if not accumulate:
                a.grad = None
            optimiser.zero_grad()
            F.cross_entropy(f @ w.T + b + a * near, label).backward()
            optimiser.step()
            if (step + 1) % 10 == 0:
                assert a.grad is not None
                with torch.no_grad():
                    a -= blend_rate * a.grad
        assert torch.allclose(logits[i], (q @ w.T + b + a * (q @ text)).detach())
