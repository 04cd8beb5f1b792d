"""TA2N: the first stage as torch's own sampling, alignment by loops, lengths, first shot as reference, maps."""

from __future__ import annotations

import pytest
import torch
from temporal_support import STEPS, cut, episode, head, order_kept
from torch.nn import functional as F

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.temporal.ta2n import TA2N
from fsmm.heads.temporal.ta2n_maps import SpatialCoordination


def made(settings: dict[str, str] | None = None) -> TA2N:
    found = head("ta2n", settings)
    assert isinstance(found, TA2N)
    return found


def test_the_first_stage_is_linear_sampling_with_zeros_outside() -> None:
    ours, task = made(), episode(short=False)
    clip = task.query["frame"]
    with torch.no_grad():
        ours.theta.out.bias.copy_(torch.tensor([1.5, 1.0]))
    theta = ours.theta_of(clip)
    even = torch.linspace(-1, 1, STEPS, dtype=torch.float64)
    place = theta[..., :1] * even + theta[..., 1:]
    assert float(place.max()) > 1  # some positions lie beyond the clip
    grid = torch.stack([torch.zeros_like(place), place], -1)[:, :, :, None].flatten(0, 1)
    x = (clip.x * ours.gain).transpose(-1, -2)[..., None].flatten(0, 1)
    sampled = F.grid_sample(x, grid, align_corners=True, padding_mode="zeros")[..., 0].transpose(-1, -2)
    assert torch.allclose(ours.transformed(clip)[..., 0].flatten(0, 1), sampled)


def test_the_second_stage_equals_loops() -> None:
    ours, task = made(), episode(batch=1, ways=2, shots=1, queries=2)
    support, query = task.support["frame"], task.query["frame"]
    s, q = ours.transformed(support)[0, :, 0, ..., 0], ours.transformed(query)[0, ..., 0]
    logits = ours(task)[0]
    key, ask, value = ours.coordinate.key, ours.coordinate.query, ours.coordinate.value
    for n in range(2):
        for m in range(2):
            weight = torch.softmax(key(s[n]) @ ask(q[m]).T / 4, -1)
            left, right = s[n] + value(s[n]), q[m] + weight @ value(q[m])
            assert logits[m, n].item() == pytest.approx(
                float((F.cosine_similarity(left, right, dim=-1) - 1).sum())
            )


def test_supports_are_rebuilt_on_the_first_ones_time() -> None:
    ours, task = made(), episode(batch=1, ways=1, shots=3)
    support, query = task.support["frame"], task.query["frame"]
    x = ours.transformed(support)
    prototype, _ = ours.fused(x, support.present, ours.transformed(query))
    clips = x[0, 0, ..., 0]
    rebuilt = []
    for clip in clips:
        weight = torch.softmax(ours.fuse.key(clip) @ ours.fuse.query(clips[0]).T / 4, 0)
        rebuilt.append(weight.T @ ours.fuse.value(clip))
    assert torch.allclose(prototype[0, 0, ..., 0], torch.stack(rebuilt).mean(0))


def test_an_absent_first_shot_is_no_reference() -> None:
    task = episode(batch=1, shots=3)
    s = task.support["frame"]
    gone = torch.zeros_like(s.present)
    gone[:, :, 0] = True
    x = s.x.masked_fill(gone[..., None, None], 0.0)
    holed = Stream(x, ~gone, s.length.masked_fill(gone, 0))
    ours = made()
    rest = Stream(s.x[:, :, 1:], s.present[:, :, 1:], s.length[:, :, 1:])
    without, fewer = (
        ours(Episodes({"frame": support}, task.query, task.query_label, task.class_id))
        for support in (holed, rest)
    )
    assert torch.allclose(without, fewer)


@pytest.mark.parametrize("side", ["support", "query"])
def test_steps_beyond_a_clip_do_not_count(side: str) -> None:
    ours, task = made(), episode()
    other = cut(task, side)
    with torch.no_grad():
        ours.theta.out.bias.copy_(torch.tensor([5.0, 0.0]))  # positions stay within the clips
        ours.theta.out.weight.zero_()
    for stream in (other.support["frame"], other.query["frame"]):
        stream.x = stream.x * stream.mask()[..., None]  # streams are zero beyond their length
    assert torch.allclose(ours(other), ours(task))


def maps(chance: int = 0) -> tuple[TA2N, Episodes]:
    torch.manual_seed(chance)
    ours = (
        build_head("ta2n", Inputs(streams={"frame": (5, 3 * 16)}), {"map": "4", "rescale": "false"})
        .double()
        .eval()
    )
    assert isinstance(ours, TA2N)

    def clips(*shape: int) -> Stream:
        return Stream(
            torch.rand(*shape, 5, 48, dtype=torch.float64), torch.ones(shape).bool(), torch.full(shape, 5)
        )

    label = torch.tensor([[0, 1, 2]])
    return ours, Episodes({"frame": clips(1, 3, 2)}, {"frame": clips(1, 3)}, label, torch.arange(3)[None])


def test_maps_are_scored_and_trained() -> None:
    ours, task = maps()
    assert ours(task).shape == (1, 3, 3)
    ours.train().loss(task).total.backward()
    slope = ours.get_parameter("spatial.out.weight").grad
    assert slope is not None
    assert float(slope.abs().max()) > 0


def test_a_window_that_is_not_moved_sees_the_whole_frame() -> None:
    torch.manual_seed(0)
    spatial = SpatialCoordination(2, 4).double()
    spatial.perturbation.zero_()
    x = torch.rand(1, 1, 1, 3, 2, 16, dtype=torch.float64)
    offset = torch.zeros(1, 1, 1, 3, 2, dtype=torch.float64)
    assert torch.allclose(spatial.pooled(x, offset, 1), x.mean(-1))


def test_offsets_move_the_two_windows_apart() -> None:
    """A picture lit in one column: moving the support's window to it lights it up, and darkens the query's."""
    spatial = SpatialCoordination(1, 4).double()
    picture = torch.zeros(4, 4, dtype=torch.float64)
    picture[:, 0] = 1.0
    x = picture.view(1, 1, 1, 1, 1, 16)
    offset = torch.tensor([0.75, 0.0], dtype=torch.float64).view(1, 1, 1, 1, 2)
    one, other = (float(spatial.pooled(x, offset, sign)) for sign in (1, -1))
    assert one > 0.25 > other  # the mean of the whole picture, one lit column of four, is 1/4


def test_distance_norm_is_for_its_own_way() -> None:
    ours, task = head("ta2n", {"distance_norm": "true"}), episode(ways=3)
    with pytest.raises(UsageError, match="5-way"):
        ours(task)
    logits = ours(episode(ways=5))
    assert logits.shape[-1] == 5


def test_single_precision_agrees_and_bfloat16_keeps_the_ranking() -> None:
    ours, task = made(), episode(batch=20)
    exact = ours(task)
    assert float((ours.float()(task.to("cpu", torch.float32)) - exact).abs().max()) < 1e-4 * float(
        exact.abs().max()
    )
    assert order_kept(made(), task) > 0.9


@pytest.mark.parametrize("value", ["3", "5", "-1"])
def test_maps_must_fit_the_features(value: str) -> None:
    with pytest.raises(UsageError, match="map="):
        head("ta2n", {"map": value})
