"""MTFAN: its equations by slow loops, unequal lengths, and the start that equals set matching of the frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from metric_support import ONE, inputs, random_episodes
from torch import Tensor
from torch.nn import functional as F

from fsmm.errors import UsageError
from fsmm.heads.temporal.mtfan import MTFAN, Fragments, MTFANSettings, motions

STEPS, DIM = 5, 12


def head(**settings: Any) -> MTFAN:
    torch.manual_seed(0)
    return MTFAN(inputs(DIM, STEPS), MTFANSettings(**settings)).double().eval()


def both_ways(a: Tensor, b: Tensor) -> float:
    """Mean distance to the nearest of the other set, both ways: a [I, D], b [J, D]."""
    gap = 1 - F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
    return float(gap.amin(1).mean() + gap.amin(0).mean())


def one_way(a: Tensor, b: Tensor) -> float:
    gap = 1 - F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
    return float(gap.amin(1).mean())


def test_the_distance_adds_up_three_alignments() -> None:
    net = head(scale=1.0)
    task = random_episodes(shots=1, steps=STEPS, dim=DIM)
    query = net.fragments(net.encode(task.query[ONE]), None)
    classes = net.fragments(net.encode(task.support[ONE][:, :, 0]), None)
    found = net.distance(query, classes)
    for b, q, c in ((0, 0, 0), (1, 3, 2), (2, 11, 3)):
        qf, cf = query.frames[b, q][query.valid[b, q]], classes.frames[b, c][classes.valid[b, c]]
        qs, cs = query.segments[b, q], classes.segments[b, c]
        expected = both_ways(qf, cf) + both_ways(qs, cs) + one_way(qs, cf) + one_way(cs, qf)
        assert float(found[b, q, c]) == pytest.approx(expected)


def test_levels_add_up() -> None:
    task = random_episodes(steps=STEPS, dim=DIM)
    each = [head(levels=(level,))(task) for level in ("ff", "ss", "sf")]
    assert torch.allclose(head()(task), torch.stack(each).sum(0))


def test_segments_are_means_of_valid_frames() -> None:
    net, task = head(rescale=False), random_episodes(steps=STEPS, dim=DIM)
    clips = task.query[ONE]
    parts = net.fragments(net.encode(clips), None)
    single = clips.length == 1
    assert single.any()
    assert torch.allclose(
        parts.segments[single], clips.x[single][:, :1].expand(-1, net.settings.segments, -1)
    )
    for b, q in ((0, 0), (1, 5)):
        x = clips.x[b, q, : int(clips.length[b, q])]
        weight = torch.softmax(net.wanted @ net.key(x).T / net.wanted.shape[-1] ** 0.5, -1)
        assert torch.allclose(parts.segments[b, q], weight @ x)


def test_motion_is_the_difference_to_the_next_step() -> None:
    clips = random_episodes(steps=STEPS, dim=DIM).query[ONE]
    change, moving = motions(clips)
    for b, q in ((0, 1), (2, 2)):
        length = int(clips.length[b, q])
        assert moving[b, q].sum() == length - 1
        assert torch.equal(change[b, q, : length - 1], clips.x[b, q, 1:length] - clips.x[b, q, : length - 1])
        assert float(change[b, q, length - 1 :].abs().max()) == 0


def test_a_uniform_modulator_changes_nothing() -> None:
    task = random_episodes(steps=STEPS, dim=DIM)
    uniform = head(levels=("ff",))
    assert torch.allclose(uniform(task), head(levels=("ff",), modulate=False)(task))
    assert not torch.allclose(uniform(task), head(levels=("ff",), start=False)(task))


def test_modulation_depends_on_the_supports_of_the_task() -> None:
    net, task = head(start=False), random_episodes(steps=STEPS, dim=DIM)
    with torch.no_grad():
        net.modulator.weight.mul_(20)
    supports = task.support[ONE], task.support[ONE][torch.tensor([1, 2, 0])]
    gates = [net.task_gate(net.encode(clips)) for clips in supports]
    first, second = (net.fragments(net.encode(task.query[ONE]), gate).frames for gate in gates)
    assert not torch.allclose(first, second)


def test_modulation_is_a_gate_of_the_tasks_motion_and_the_frames_own() -> None:
    net, task = head(start=False, rescale=False), random_episodes(steps=STEPS, dim=DIM)
    support, query = task.support[ONE], task.query[ONE]
    found = net.fragments(net.encode(query), net.task_gate(net.encode(support))).frames
    change, moving = motions(support)
    for b, q in ((0, 1), (2, 7)):
        mean = net.motion(change[b][moving[b]]).mean(0)
        own, _ = motions(query[b, q])
        for t in range(int(query.length[b, q])):
            gate = torch.sigmoid(net.modulator(torch.cat([mean, own[t]])))
            assert torch.allclose(found[b, q, t], query.x[b, q, t] * (1 + gate))


def test_padding_steps_are_never_read() -> None:
    net, task = head(start=False), random_episodes(steps=STEPS, dim=DIM, batch=1)
    parts = net.fragments(net.encode(task.query[ONE]), net.task_gate(net.encode(task.support[ONE])))
    junk = Fragments(
        torch.where(parts.valid[..., None], parts.frames, torch.randn_like(parts.frames)), *parts[1:]
    )
    classes = net.fragments(net.encode(task.support[ONE][:, :, 0]), None)
    assert torch.allclose(net.distance(junk, classes), net.distance(parts, classes))


@pytest.mark.parametrize("settings", [{"levels": ("ff", "xx")}, {"levels": ()}, {"segments": 0}])
def test_wrong_settings_are_one_sentence(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        head(**settings)
