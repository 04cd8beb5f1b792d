"""STRM: the untrained head is TRX, every enrichment counts, the second classifier by loops, the released quirk."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from temporal_support import DIM, STEPS, cut, episode, head, order_kept

from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.temporal.strm import STRM

SMALL = {"width": "7"}


def test_the_untrained_head_is_trx_on_twice_placed_frames() -> None:
    """Residual branches begin at zero: what remains is TRX after the three position codes of the enrichments."""
    torch.manual_seed(0)
    strm = (
        build_head("strm", Inputs(streams={"frame": (STEPS, DIM)}), {**SMALL, "position": "0"})
        .double()
        .eval()
    )
    trx = (
        build_head("trx", Inputs(streams={"frame": (STEPS, DIM)}), {**SMALL, "position": "0"}).double().eval()
    )
    own = {name: weight for name, weight in strm.state_dict().items() if name.startswith("tuples.")}
    trx.load_state_dict(own)
    task = episode(short=False)
    assert torch.allclose(strm(task), trx(task))


@pytest.mark.parametrize(
    "part", ["patches.gain", "patches.mix", "frames.along_time", "frames.along_features"]
)
def test_every_enrichment_reaches_the_logits(part: str) -> None:
    made, task = head("strm", {**SMALL, "patches": "2"}), episode()
    before = made(task)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.startswith(part):
                weight.add_(0.5)
    assert not torch.allclose(made(task), before)


def test_the_second_classifier_equals_loops() -> None:
    made, task = head("strm", SMALL), episode(batch=1, queries=3, short=False)
    assert isinstance(made, STRM)
    support, query = (made.enriched(s) for s in (task.support["frame"], task.query["frame"]))
    found = made.auxiliary_logits(support, query)[0] * made.gain / made.settings.scale
    for i in range(3):
        for c in range(3):
            each = []
            for size, near in zip((2, 3), made.near):

                def embed(x: torch.Tensor, near: torch.nn.Module = near, size: int = size) -> torch.Tensor:
                    u = torch.stack(
                        [torch.cat([x[t] for t in chosen]) for chosen in combinations(range(STEPS), size)]
                    )
                    return torch.relu(near.get_submodule("out")(u))

                s = torch.cat([embed(support.x[0, c, k]) for k in range(2)])
                each.append(torch.cdist(embed(query.x[0, i]), s).amin(1).mean())
            assert found[i, c].item() == pytest.approx(-torch.stack(each).mean().item(), rel=1e-6)


def test_clips_of_other_lengths_are_brought_to_the_heads_steps() -> None:
    made, task = head("strm", SMALL), episode()
    for side in ("support", "query"):
        other = cut(task, side)
        for name in ("support", "query"):
            s = getattr(other, name)["frame"]
            s.x = s.x * s.mask()[..., None]  # streams are zero beyond their length
        assert torch.allclose(made(other), made(task))


def test_frozen_projections_are_not_trained() -> None:
    task = episode()
    for frozen in ("true", "false"):
        made = head("strm", {**SMALL, "frozen_auxiliary": frozen})
        made.loss(task).total.backward()
        reached = {name.split(".")[0] for name, p in made.named_parameters() if p.grad is not None}
        assert ("near" in reached) == (frozen == "false")
        assert {"patches", "frames", "tuples"} <= reached


def test_the_loss_is_the_sum_of_its_parts() -> None:
    losses = head("strm", {**SMALL, "auxiliary": "0.3"}).loss(episode())
    assert losses.total.item() == pytest.approx((losses.parts["ce"] + 0.3 * losses.parts["auxiliary"]).item())


def test_single_precision_agrees_and_bfloat16_keeps_the_ranking() -> None:
    made, task = head("strm", {"width": "64"}), episode(batch=20)
    exact = made(task)
    assert float((made.float()(task.to("cpu", torch.float32)) - exact).abs().max()) < 1e-4 * float(
        exact.abs().max()
    )
    assert order_kept(head("strm", {"width": "64"}), task) > 0.95


def test_patches_must_divide_the_features() -> None:
    with pytest.raises(UsageError, match="patches"):
        head("strm", {"patches": "3"})
