"""ARN: pooling forgets the order of steps and the padding; the network as torch's layers."""

from __future__ import annotations

import pytest
import torch
from metric_support import inputs, random_episodes
from torch import nn
from torch.nn import functional as F

from fsmm.cache.table import Stream
from fsmm.errors import UsageError
from fsmm.heads.temporal.arn import ARN, ARNSettings


def _head(**given: object) -> ARN:
    torch.manual_seed(0)
    head = ARN(inputs(16, 5), ARNSettings(**{"filters": 4, "start": False, **given})).double()
    for name, buffer in head.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        if name.endswith("running_mean"):
            buffer.uniform_(-1, 1)
    return head.eval()


def test_pooling_forgets_the_order_of_steps_and_the_padding() -> None:
    head = _head()
    x = torch.randn(4, 5, 16, dtype=torch.float64)
    there, length = torch.ones(4, dtype=torch.bool), torch.full((4,), 5)
    matrix = head.second_order(Stream(x, there, length))
    torch.testing.assert_close(head.second_order(Stream(x[:, torch.randperm(5)], there, length)), matrix)
    torch.testing.assert_close(head.second_order(Stream(F.pad(x, (0, 0, 0, 3)), there, length)), matrix)
    torch.testing.assert_close(matrix, matrix.transpose(1, 2))


def test_pooling_as_written() -> None:
    head = _head(project=False, attention=False)
    f = torch.randn(5, 16, dtype=torch.float64)
    g = f.t() @ f / 5
    expected = 2 / (1 + torch.exp(-100 * g / g.trace())) - 1
    ours = head.second_order(Stream(f[None], torch.ones(1, dtype=torch.bool), torch.tensor([5])))
    torch.testing.assert_close(ours[0], expected)


def test_the_network_as_torchs_layers() -> None:
    head, episodes = _head(), random_episodes(dim=16, steps=5)
    prototype, _ = head.prototypes(episodes.support["frame"])
    query = head.second_order(episodes.query["frame"])
    x = torch.stack([prototype[2, 1], query[2, 6]])[None]
    for number, block in enumerate(head.similarity.blocks):
        norm = block.norm
        y = F.relu(F.batch_norm(block.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias))
        x = F.max_pool2d(y if number == 0 else x + y, 2)
    score = head.similarity.out(F.relu(head.similarity.hidden(x.flatten(1))))
    torch.testing.assert_close(head(episodes)[2, 6, 1], score[0, 0])
    torch.testing.assert_close(prototype[2, 1], head.second_order(episodes.support["frame"])[2, 1].mean(0))


def test_it_learns() -> None:
    torch.manual_seed(0)
    head = ARN(inputs(8, 4), ARNSettings(start=False, filters=8, momentum=0.1)).train()
    optimiser = torch.optim.Adam(head.parameters(), 3e-3)
    losses = []
    for step in range(60):
        episodes = random_episodes(8, 3, 2, 3, 8, 4, 0.3, seed=step, dtype=torch.float32)
        loss = head.loss(episodes).total
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    # Without a step, the sums of ten losses differ by the drawing of tasks alone: each loss by 3 %, the sums by 1 %.
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


@pytest.mark.parametrize("channels", [8, 24])
def test_matrices_that_cannot_be_halved_four_times_are_refused(channels: int) -> None:
    with pytest.raises(UsageError, match="multiple of 16"):
        ARN(inputs(16, 5), ARNSettings(channels=channels))
