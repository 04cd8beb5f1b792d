"""SloshNet beyond its official numbers: intended attention stays within a clip, the released one does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from metric_support import ONE, inputs, random_episodes, some_queries
from torch import nn

from fsmm.cache.table import Stream
from fsmm.errors import UsageError
from fsmm.heads.temporal.sloshnet import LongTerm, ShortTerm, SloshNet, SloshNetSettings
from fsmm.heads.temporal.trx import TRX, TRXSettings

STEPS, DIM = 5, 16


def head(**settings: Any) -> SloshNet:
    torch.manual_seed(0)
    return SloshNet(inputs(DIM, STEPS), SloshNetSettings(**{"width": 24, **settings})).double().eval()


def test_the_untrained_head_is_trx_on_the_features() -> None:
    net, task = head(), random_episodes(steps=STEPS, dim=DIM)
    own = TRXSettings(cardinalities=(2,), width=24, level=True, rescale=True, scale=10.0)
    plain = TRX(inputs(DIM, STEPS), own).double().eval()
    plain.tuples.load_state_dict(net.tuples.state_dict())
    assert torch.allclose(net(task), plain(task))


def test_long_term_attention_is_one_block_over_time() -> None:
    torch.manual_seed(0)
    path = LongTerm(DIM, SloshNetSettings(heads=4, hidden=20, start=False)).double()
    own = nn.MultiheadAttention(DIM, 4, batch_first=True).double()
    with torch.no_grad():
        for mine, theirs in ((own.in_proj_weight, path.qkv.weight), (own.in_proj_bias, path.qkv.bias),
                             (own.out_proj.weight, path.out.weight), (own.out_proj.bias, path.out.bias)):  # fmt: skip
            mine.copy_(theirs)
    maps = torch.randn(1, 3, STEPS, DIM, 2, 2, dtype=torch.float64)
    valid = torch.arange(STEPS) < torch.tensor([[5, 2, 4]])[..., None]
    found = path(maps, valid)
    for v, h, w in ((0, 0, 0), (1, 1, 0), (2, 1, 1)):
        x = maps[0, v, :, :, h, w][None]
        normal = path.before(x)
        x = x + own(normal, normal, normal, key_padding_mask=~valid[:, v])[0]
        hidden = path.widen(path.between(x))
        x = x + path.narrow(hidden * torch.sigmoid(1.702 * hidden))
        assert torch.allclose(found[0, v, :, :, h, w], x[0])


def test_the_short_term_gate_reads_the_step_ahead_only() -> None:
    torch.manual_seed(0)
    path = ShortTerm(DIM, 16, start=False).double()
    maps = torch.randn(2, STEPS, DIM, 1, 1, dtype=torch.float64)
    other = maps.clone()
    other[:, 3] += 1
    valid = torch.ones(2, STEPS, dtype=torch.bool)
    moved = (path(maps, valid) - path(other, valid)).abs().amax((0, 2, 3, 4)) > 1e-9
    assert moved.tolist() == [False, False, True, True, False]


def test_short_clips_are_as_if_nothing_followed() -> None:
    net = head(start=False)
    clips = random_episodes(steps=STEPS, dim=DIM).query[ONE]
    long = net.seen(clips)
    for b, q in ((0, 0), (0, 3), (2, 5)):
        length = int(clips.length[b, q])
        here = slice(b, b + 1), slice(q, q + 1)
        alone = Stream(clips.x[here][:, :, :length], clips.present[here], clips.length[here])
        assert torch.allclose(long.x[b, q, :length], net.seen(alone).x[0, 0])


def test_the_released_attention_mixes_clips_and_the_intended_does_not() -> None:
    task = random_episodes(steps=STEPS, dim=DIM)
    for released in (True, False):
        net = head(released=released, start=False)
        same = torch.allclose(net(task)[:, :2], net(some_queries(task, 2)))
        assert same is not released


def test_the_released_attention_keeps_tasks_apart_and_has_no_shortcut() -> None:
    task, net = random_episodes(steps=STEPS, dim=DIM), head(released=True, start=False)
    alone = torch.cat([net(task.slice(i, i + 1)) for i in range(task.batch)])
    assert torch.allclose(net(task), alone)
    assert not list(net.shortcuts())


@pytest.mark.parametrize("dim", [6, 7, 16])
def test_any_width(dim: int) -> None:
    task = random_episodes(steps=STEPS, dim=dim)
    net = SloshNet(inputs(dim, STEPS), SloshNetSettings(width=8, start=False)).double().eval()
    assert torch.isfinite(net(task)).all()


def test_a_side_that_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="side=3"):
        head(side=3)
