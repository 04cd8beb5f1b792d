"""MPL: the two matches by loops, the released keys, the window, short clips, every weight learns."""

from __future__ import annotations

import pytest
import torch
from temporal_support import cut, episode, head, order_kept

from fsmm.heads.temporal.mpl import MPL, set_distance, step_distances


def made(**settings: str) -> MPL:
    found = head("mpl", settings)
    assert isinstance(found, MPL)
    return found


def test_a_support_takes_in_its_nearest_query() -> None:
    mpl, task = made(nearest="1", rescale="false"), episode(batch=1, short=False)
    clips = mpl.clips(task)
    enhanced = mpl.enhanced(clips)
    for c in range(3):
        for k in range(2):
            s = clips.support[0, c, k]
            each = [
                float(set_distance(step_distances(s[None, None], q[None, None])).squeeze())
                for q in clips.query[0]
            ]
            nearest = min(range(len(each)), key=each.__getitem__)
            assert torch.allclose(enhanced[0, c, k], s + clips.query[0, nearest])


def test_keys_come_from_the_partner_or_from_the_clip_itself() -> None:
    task = episode(batch=1, queries=2, short=False)
    for keys in ("partner", "released"):
        mpl = made(keys=keys)
        clips = mpl.clips(task)
        classes = clips.support.mean(2)
        match = mpl.key_match(classes, clips.query)
        of_query, of_class = mpl.matched_keys(classes, clips, match)
        for c in range(3):
            source = clips.query[0] if keys == "partner" else classes[0, c].expand(2, -1, -1)
            picked = [source[q][match.to_query[0, q, c]].mean(0) for q in range(2)]
            assert torch.allclose(of_class[0, c], torch.stack(picked).mean(0))
        for q in range(2):
            source = classes[0] if keys == "partner" else clips.query[0, q].expand(3, -1, -1)
            picked = [source[c][match.to_class[0, q, c]].mean(0) for c in range(3)]
            assert torch.allclose(of_query[0, q], torch.stack(picked).mean(0))


def test_a_window_keeps_matches_near() -> None:
    mpl = made(window="1")
    clips = mpl.clips(episode(short=False))
    match = mpl.key_match(clips.support.mean(2), clips.query)
    step = torch.arange(mpl.steps)
    assert int((match.to_query - step).abs().max()) <= 1 >= int((match.to_class - step).abs().max())


@pytest.mark.parametrize("side", ["support", "query"])
def test_steps_beyond_a_clip_do_not_count(side: str) -> None:
    mpl, task = made(), episode()
    assert torch.allclose(mpl(cut(task, side)), mpl(task))


@pytest.mark.parametrize("keys", ["partner", "released"])
def test_every_weight_learns(keys: str) -> None:
    mpl, task = made(keys=keys), episode()
    mpl.train().loss(task).total.backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in mpl.parameters())


def test_bfloat16_keeps_the_ranking() -> None:
    assert order_kept(made(), episode(batch=20)) > 0.9
