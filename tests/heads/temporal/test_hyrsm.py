"""HyRSM: the untrained head is set matching, forms, queries alone, base classifier, coherence by loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from temporal_support import cut, episode, head, order_kept
from tests_support import bank_of
from torch.nn import functional as F

from fsmm.cache.bank import FeatureBank
from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.parts.set_matching import hausdorff
from fsmm.heads.temporal.hyrsm import HyRSM, frame_loss
from fsmm.heads.temporal.hyrsmpp import HyRSMPlusPlus


def bank(x: torch.Tensor) -> FeatureBank:
    """Base clips [n, T, D] of three classes in turn, whose ids are 4, 0 and 2."""
    return bank_of(x, torch.arange(len(x)) % 3, split="base", class_id=torch.tensor([4, 0, 2]))


def test_the_untrained_head_is_set_matching() -> None:
    torch.manual_seed(0)
    inputs = Inputs(streams={"frame": (5, 16)})
    made = (
        build_head("hyrsm", inputs, {"position_b": "0", "rectify": "never", "form": "videos"}).double().eval()
    )
    task = episode()
    s, q = task.support["frame"], task.query["frame"]
    distance = torch.stack(
        [
            hausdorff(
                1 - F.normalize(s.x[:, c, k], dim=-1)[:, None] @ F.normalize(q.x, dim=-1).transpose(-1, -2),
                s.mask()[:, c, k][:, None], q.mask(),
            )
            for c in range(3) for k in range(2)
        ], -1,
    )  # fmt: skip
    assert torch.allclose(made(task), -10 * distance.unflatten(-1, (3, 2)).mean(-1))


@pytest.mark.parametrize("method", ["hyrsm", "hyrsmpp"])
@pytest.mark.parametrize("form", ["videos", "prototypes", "auto"])
def test_steps_beyond_a_clip_do_not_count(method: str, form: str) -> None:
    made, task = head(method, {"form": form}), episode()
    for side in ("support", "query"):
        assert torch.allclose(made(cut(task, side)), made(task))


def test_the_form_follows_the_shots() -> None:
    one, two = episode(shots=1), episode(shots=2)
    auto, videos, prototypes = (head("hyrsm", {"form": f}) for f in ("auto", "videos", "prototypes"))
    assert torch.allclose(auto(one), videos(one))
    assert torch.allclose(auto(two), prototypes(two))
    assert not torch.allclose(auto(two), videos(two))
    assert torch.allclose(videos(one), prototypes(one))  # with one shot the two are the same computation


def test_sums_are_averages_times_steps() -> None:
    task = episode(short=False)
    assert torch.allclose(head("hyrsm", {"average": "false"})(task), 5 * head("hyrsm")(task))


def test_the_relu_stays_where_features_are_not_negative() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5, 16)
    for values, slope in ((x, 1.0), (x.abs(), 0.0)):
        made = build_head("hyrsm", Inputs(streams={"frame": (5, 16)}))
        made.fit_base(bank(values))
        assert made.state_dict()["within.below_zero"].item() == slope
    always = build_head("hyrsm", Inputs(streams={"frame": (5, 16)}), {"rectify": "always"})
    always.fit_base(bank(x))
    assert always.state_dict()["within.below_zero"].item() == 0.0


def test_base_rows_follow_class_ids() -> None:
    made, task = head("hyrsm"), episode(batch=1, ways=3, queries=4)
    assert isinstance(made, HyRSM)
    made.fit_base(bank(torch.randn(6, 5, 16)))
    label = torch.tensor([[2, 0, -1, 1]])
    task = replace(task, class_id=torch.tensor([[2, 4, 7]]), query_label=label)  # 7 is no base class
    support, query = made.base_rows(task.support["frame"], task)
    assert support.tolist() == [[[2, 2], [0, 0], [-1, -1]]]
    assert query.tolist() == [[-1, 2, -1, 0]]


def test_the_frames_loss_counts_valid_steps_only() -> None:
    made, task = head("hyrsm"), episode()
    assert isinstance(made, HyRSM)
    made.set_classes(torch.arange(3))
    made = made.double()
    support, query = task.support["frame"], task.query["frame"]
    clips = made.encode(support), made.encode(query)
    rows = made.base_rows(support, task)
    assert made.classifier is not None
    found = frame_loss(made.classifier, clips, rows)
    terms = []
    for stream, x, row in ((support, clips[0].frames, rows[0]), (query, clips[1].frames, rows[1])):
        log = torch.log_softmax(made.classifier(x), -1)
        picked = torch.gather(log, -1, row[..., None, None].expand(*log.shape[:-1], 1))[..., 0]
        terms.append(-picked[stream.mask()])
    assert found.item() == pytest.approx(torch.cat(terms).mean().item())
    losses = made.loss(task)
    assert losses.total.item() == pytest.approx((losses.parts["ce"] + 0.15 * losses.parts["frames"]).item())


@pytest.mark.parametrize("window", ["0", "1", "2"])
def test_incoherence_equals_loops(window: str) -> None:
    made = head("hyrsmpp", {"window": window, "balance": "3", "sigma": "7"})
    assert isinstance(made, HyRSMPlusPlus)
    task = episode(batch=2)
    related = made.relate(made.encode(task.support["frame"]), made.encode(task.query["frame"]))
    total = 0.0
    for x, mask in (
        (related.support, related.support_valid[:, None].expand(related.support.shape[:-1])),
        (related.query, related.query_valid),
    ):
        entries = []
        for clip, valid in zip(x.flatten(0, -3), mask.flatten(0, -2)):
            unit = F.normalize(clip[valid], dim=-1)
            d = 1 - unit @ unit.T
            for i in range(len(d)):
                for j in range(len(d)):
                    gap = abs(i - j)
                    margin = 1 - torch.exp(
                        torch.tensor(-((gap - int(window)) ** 2) / 7.0, dtype=torch.float64)
                    )
                    outside = 3 * torch.relu(margin - d[i, j])
                    entries.append(d[i, j] / (gap**2 + 1) if gap <= int(window) else outside)
        total += float(torch.stack(entries).mean())
    assert made.incoherence(related).item() == pytest.approx(total)


def test_widths_that_eight_heads_do_not_divide() -> None:
    made = build_head("hyrsm", Inputs(streams={"frame": (5, 14)}))
    assert made.get_submodule("within").heads == 7


@pytest.mark.parametrize("method", ["hyrsm", "hyrsmpp"])
def test_single_precision_agrees_and_bfloat16_keeps_the_ranking(method: str) -> None:
    made, task = head(method), episode(batch=20)
    exact = made(task)
    assert float((made.float()(task.to("cpu", torch.float32)) - exact).abs().max()) < 1e-4 * float(
        exact.abs().max()
    )
    assert order_kept(head(method), task) > 0.95


@pytest.mark.parametrize(("key", "value"), [("form", "both"), ("rectify", "maybe")])
def test_bad_settings_are_one_sentence(key: str, value: str) -> None:
    with pytest.raises(UsageError, match=key):
        head("hyrsm", {key: value})
