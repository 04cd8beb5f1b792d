"""AMeFu-Net: DGAdaIN by hand, its two readings of the instance norm, displacement in time, absent guides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from multimodal_support import accuracy, gone, two, two_modal

from fsmm.cache.table import Stream
from fsmm.errors import UsageError
from fsmm.heads.multimodal.amefunet import AMeFuNet, AMeFuNetSettings, displaced, instance_norm


def head(**settings: Any) -> AMeFuNet:
    torch.manual_seed(0)
    return AMeFuNet(two(), AMeFuNetSettings(**settings)).double().eval()


def ramp(lengths: list[int], steps: int = 6, dim: int = 3) -> Stream:
    """Step t holds t + 1 (times feature number)."""
    length = torch.tensor(lengths)
    x = (1.0 + torch.arange(steps))[:, None] * (1.0 + torch.arange(dim))
    x = x.expand(len(lengths), -1, -1) * (torch.arange(steps) < length[:, None])[..., None]
    return Stream(x.double(), length > 0, length)


def test_guidance_is_the_published_formula() -> None:
    net, task = head(start="random"), two_modal()
    main, guide = task.query["frame"], task.query["audio"]
    long = Stream(torch.nn.functional.pad(guide.x, (0, 0, 0, 1)), guide.present, guide.length)
    found = net.guided(main, {"audio": long})
    affine = net.affine["audio"]
    for b, i in ((0, 0), (1, 4), (2, 7)):
        for t in range(int(torch.minimum(main.length, guide.length)[b, i])):
            f, z = main.x[b, i, t], long.x[b, i, t] * 8**0.5
            normal = (f - f.mean()) / (f.var(unbiased=False) + 1e-5).sqrt()
            scale = affine.scale.weight @ z + affine.scale.bias
            shift = affine.shift.weight @ z + affine.shift.bias
            assert torch.allclose(found.x[b, i, t], normal * (1 + scale) + shift)


def test_norm_over_time_erases_what_a_clip_shows_throughout() -> None:
    """Why the released reading is the default: in the other one the mean over time is zero whatever the clip holds."""
    task = two_modal()
    clip = task.query["frame"]
    over_time = Stream(instance_norm(clip, "channel"), clip.present, clip.length)
    assert float(over_time.pooled().abs().max()) < 1e-9
    per_frame = instance_norm(clip, "frame")[clip.mask()]
    assert torch.allclose(per_frame.mean(-1), torch.zeros(1).double(), atol=1e-9)
    # The mean of up to five normalised steps has an absolute mean of at least .36 if the steps are independent.
    assert float(Stream(instance_norm(clip, "frame"), clip.present, clip.length).pooled().abs().mean()) > 0.1


def test_norm_over_time_ignores_steps_that_do_not_exist() -> None:
    clip = ramp([4, 6, 1])
    short = Stream(clip.x[:1, :4], clip.present[:1], clip.length[:1])
    assert torch.allclose(instance_norm(clip, "channel")[0, :4], instance_norm(short, "channel")[0])
    assert float(instance_norm(clip, "channel")[0, 4:].abs().max()) == 0


@pytest.mark.parametrize(("offset", "seen"), [(0, [1, 2, 3, 4]), (1, [2, 3, 4, 4]), (-2, [1, 1, 1, 2])])
def test_displacement_repeats_the_ends(offset: int, seen: list[int]) -> None:
    moved = displaced(ramp([4]), offset)
    assert moved.x[0, :4, 0].tolist() == seen
    assert float(moved.x[0, 4:].abs().max()) == 0


def test_the_loss_averages_over_displacements() -> None:
    task = two_modal()
    each = [float(head(offsets=(o,), start="random").loss(task).total) for o in (0, 1, -1)]
    assert len(set(each)) == 3
    assert float(head(offsets=(0, 1, -1), start="random").loss(task).total) == pytest.approx(sum(each) / 3)


def test_an_absent_guide_leaves_the_main_modality_alone() -> None:
    task = two_modal()
    everyone = {side: torch.ones(s["audio"].present.shape, dtype=torch.bool) for side, s in
                (("support", task.support), ("query", task.query))}  # fmt: skip
    unguided = replace(
        task,
        support={**task.support, "audio": gone(task.support["audio"], everyone["support"])},
        query={**task.query, "audio": gone(task.query["audio"], everyone["query"])},
    )
    assert torch.allclose(head(start="random")(unguided), head(start="zero")(unguided))
    assert torch.allclose(head(start="zero")(task), head(start="zero")(unguided))


def test_the_guide_counts_from_the_start() -> None:
    """Classes that only the guide tells apart: the joint start sees them, the zero start does not."""
    task = two_modal(batch=40, spread=0.5)
    main = {
        side: Stream(torch.ones_like(s.x) * s.mask()[..., None], s.present, s.length)
        for side, s in (("support", task.support["frame"]), ("query", task.query["frame"]))
    }
    audible = replace(
        task,
        support={"frame": main["support"], "audio": task.support["audio"]},
        query={"frame": main["query"], "audio": task.query["audio"]},
    )
    # Chance is 1/4, and its standard error over 40 x 12 queries is .02: the bounds lie 17 and 7 of these above it.
    assert accuracy(head(start="joint")(audible), audible) > 0.6
    assert accuracy(head(start="zero")(audible), audible) < 0.4


def test_the_cosine_head_is_the_mean_over_supports() -> None:
    net, task = head(head="cosine", scale=1.0), two_modal()
    support, query = net.embed(task.support)[0], net.embed(task.query)[0]
    expected = torch.einsum("bqd,bnkd->bqnk", query, support).mean(-1)
    assert torch.allclose(net(task), expected)


def test_double_softmax_is_bounded() -> None:
    """Cross-entropy of posteriors lies between log(1 + (N-1)/e) and log(N-1+e), however wrong or right."""
    task = two_modal()
    value = float(head(double_softmax=True, scale=1000.0).loss(task).total)
    low = torch.log(1 + 3 * torch.exp(torch.tensor(-1.0)))
    assert float(low) <= value <= float(torch.log(3 + torch.exp(torch.tensor(1.0))))


@pytest.mark.parametrize(
    "settings", [{"norm": "batch"}, {"head": "svm"}, {"start": "warm"}, {"main": "flow"}]
)
def test_wrong_settings_are_one_sentence(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="Unknown"):
        head(**settings)


def test_a_task_of_other_modalities_is_refused() -> None:
    task = two_modal()
    other = replace(task, support={"flow": task.support["frame"]}, query={"flow": task.query["frame"]})
    with pytest.raises(UsageError, match="built for"):
        head()(other)
