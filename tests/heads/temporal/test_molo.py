"""MoLo beyond its official numbers: short clips, the plain start, the meaning of its options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from metric_support import ONE, inputs, random_episodes

from fsmm.cache.table import Stream
from fsmm.errors import UsageError
from fsmm.heads.head import Inputs
from fsmm.heads.parts.distances import cosine
from fsmm.heads.parts.set_matching import hausdorff
from fsmm.heads.temporal.molo import MoLo, MoLoSettings

STEPS, DIM = 5, 16


def head(**settings: Any) -> MoLo:
    torch.manual_seed(0)
    return MoLo(inputs(DIM, STEPS), MoLoSettings(**{"classes": 8, **settings})).double().eval()


def test_the_untrained_appearance_is_set_matching_of_the_frames() -> None:
    """Without position codes and rectification the first branch compares the frames themselves."""
    net = head(position_b=0.0, rectify=False, motion=0.0)
    task = random_episodes(shots=1, steps=STEPS, dim=DIM)
    query, support = task.query[ONE], task.support[ONE][:, :, 0]
    by = DIM**0.5 * (DIM / 2048.0) ** 0.5
    for b, q, c in ((0, 0, 0), (1, 3, 2)):
        x, z = query.x[b, q, : query.length[b, q]] * by, support.x[b, c, : support.length[b, c]] * by
        gap = 1 - cosine(x, z, 0.01)
        expected = -8 * hausdorff(gap, torch.ones(len(x)).bool(), torch.ones(len(z)).bool())
        assert torch.allclose(net(task)[b, q, c], expected)


def test_the_untrained_motion_is_the_change_between_frames() -> None:
    """Its three layers begin as isometries: lengths of changes survive up to the halved ReLU."""
    net = head(reduce=1)
    x = torch.randn(3, STEPS, DIM, 1, 1, dtype=torch.float64)
    change = (x[:, 1:] - x[:, :-1])[..., 0, 0]
    up = change @ net.motion.reduce.weight[:, :, 1, 0, 0].T @ net.motion.up.weight[:, :, 0, 0].T
    assert torch.allclose(net.motion(x), up.relu())
    assert torch.allclose(up.norm(dim=-1), change.norm(dim=-1))


def test_a_still_clip_has_no_motion() -> None:
    net = head()
    still = torch.randn(2, 1, DIM, 1, 1, dtype=torch.float64).expand(-1, STEPS, -1, -1, -1)
    assert float(net.motion(still).abs().max()) < 1e-12


def test_short_clips_are_as_if_nothing_followed() -> None:
    net = head(start=False)
    clips = random_episodes(steps=STEPS, dim=DIM).query[ONE]
    chosen = clips.length == 3
    assert chosen.any()
    whole = net.encode(Stream(clips.x[chosen], clips.present[chosen], clips.length[chosen]))
    cut = net.encode(Stream(clips.x[chosen][:, :3], clips.present[chosen], clips.length[chosen]))
    for long, short in zip(whole, cut):
        count = short.frames.shape[-2]
        assert torch.allclose(long.frames[:, :count], short.frames)
        assert torch.allclose(long.whole, short.whole)
        assert not long.valid[:, count:].any()


def test_maps_are_pooled_for_appearance() -> None:
    """With maps of constant content the appearance branch sees what pooled features would show it."""
    torch.manual_seed(0)
    maps = MoLo(Inputs(streams={ONE: (STEPS, DIM * 9)}), MoLoSettings(side=3, classes=8)).double().eval()
    plain = head()
    plain.appearance.load_state_dict(maps.appearance.state_dict())
    clips = random_episodes(steps=STEPS, dim=DIM).query[ONE]
    spread = Stream(clips.x.repeat_interleave(9, -1), clips.present, clips.length)
    assert torch.allclose(maps.encode(spread)[0].frames, plain.encode(clips)[0].frames)


def test_the_motion_weight_is_linear() -> None:
    task = random_episodes(steps=STEPS, dim=DIM)
    low, mid, high = (head(start=False, motion=m)(task) for m in (0.0, 0.5, 1.0))
    assert torch.allclose(mid, (low + high) / 2)
    assert not torch.allclose(low, high)


def test_the_loss_is_the_sum_of_its_parts() -> None:
    task = replace(random_episodes(steps=STEPS, dim=DIM), class_id=torch.tensor([[3, 1, 2, 7]] * 3))
    parts = head().loss(task)
    total = parts.parts["ce"] + 0.05 * parts.parts["contrast"] + 0.1 * parts.parts["class"]
    assert float(parts.total) == pytest.approx(float(total))


def test_a_side_that_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="side=3"):
        head(side=3)
