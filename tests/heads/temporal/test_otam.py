"""OTAM: class distances as means of clip distances, the three directions, precision, errors."""

from __future__ import annotations

import pytest
import torch
from temporal_support import cut, episode, head, order_kept

from fsmm.errors import UsageError
from fsmm.heads.parts.soft_alignment import alignment
from fsmm.heads.temporal.otam import OTAM

EVERY = [{"direction": d, "gamma": g} for d in ("one", "both", "reversed") for g in ("0.1", "0")]
IDS = [f"{s['direction']}-{s['gamma']}" for s in EVERY]


def clip_distance(q: torch.Tensor, s: torch.Tensor, direction: str, gamma: float) -> torch.Tensor:
    """One pair of clips [T, D], cut to their own lengths."""
    unit = torch.nn.functional.normalize
    m = (1 - unit(q, dim=-1) @ unit(s, dim=-1).T)[..., None]
    if direction == "one":
        return alignment(m, gamma)
    if direction == "both":
        return alignment(m, gamma) + alignment(m.transpose(0, 1), gamma)
    turned = m.transpose(0, 1)
    return (alignment(turned, gamma) + alignment(turned.flip(0, 1), gamma)) / 2


@pytest.mark.parametrize("settings", EVERY, ids=IDS)
def test_equals_a_loop_over_pairs_of_cut_clips(settings: dict[str, str]) -> None:
    task = episode(batch=2, queries=3)
    logits = head("otam", settings)(task)
    support, query = task.support["frame"], task.query["frame"]
    for b in range(2):
        for i in range(3):
            for c in range(3):
                q = query.x[b, i, : query.length[b, i]]
                each = [
                    clip_distance(
                        q,
                        support.x[b, c, k, : support.length[b, c, k]],
                        settings["direction"],
                        float(settings["gamma"]),
                    )
                    for k in range(2)
                ]
                assert logits[b, i, c].item() == pytest.approx(-torch.stack(each).mean().item(), abs=1e-9)


@pytest.mark.parametrize("side", ["support", "query"])
@pytest.mark.parametrize("settings", EVERY, ids=IDS)
def test_steps_beyond_a_clip_do_not_count(settings: dict[str, str], side: str) -> None:
    made, task = head("otam", settings), episode()
    assert torch.allclose(made(cut(task, side)), made(task))


def test_both_directions_do_not_care_which_clip_is_the_query() -> None:
    task = episode(batch=1, ways=4, shots=1, queries=4)
    made = head("otam", {"direction": "both"})
    assert isinstance(made, OTAM)
    s, q = task.support["frame"], task.query["frame"]
    forth = sum(made.path_costs(s, q))
    swapped = q[:, :, None], s[:, :, 0]
    back = sum(made.path_costs(*swapped))
    assert torch.allclose(forth, back.transpose(1, 2))


@pytest.mark.parametrize("settings", EVERY, ids=IDS)
def test_single_precision_agrees_and_bfloat16_keeps_the_ranking(settings: dict[str, str]) -> None:
    made, task = head("otam", settings), episode(batch=20)
    exact = made(task)
    assert float((made.float()(task.to("cpu", torch.float32)) - exact).abs().max()) < 1e-4 * float(
        exact.abs().max()
    )
    assert order_kept(head("otam", settings), task) > 0.97


@pytest.mark.parametrize("settings", EVERY, ids=IDS)
def test_gradients_of_the_features(settings: dict[str, str]) -> None:
    made, task = head("otam", settings), episode(batch=1, ways=2, shots=1, queries=2)

    def logits(x: torch.Tensor) -> torch.Tensor:
        task.support["frame"].x = x
        return made(task)

    assert torch.autograd.gradcheck(logits, (task.support["frame"].x.clone().requires_grad_(),))


def test_a_learned_embedding_can_be_trained() -> None:
    made, task = head("otam", {"embed": "6", "direction": "reversed"}), episode()
    made.loss(task).total.backward()
    assert all(float(p.grad.abs().max()) > 0 for p in made.parameters() if p.grad is not None and p.ndim == 2)


@pytest.mark.parametrize(("key", "value"), [("direction", "sideways"), ("gamma", "-1")])
def test_bad_settings_are_one_sentence(key: str, value: str) -> None:
    with pytest.raises(UsageError, match=key):
        head("otam", {key: value})
