"""CMN: the untrained key is the mean feature; the memory's merges follow the rule; padding changes nothing."""

from __future__ import annotations

import torch
from metric_support import inputs, random_episodes
from torch.nn import functional as F

from fsmm.cache.table import Stream
from fsmm.heads.temporal.cmn import CMN, CMNSettings


def test_keys_as_a_loop() -> None:
    torch.manual_seed(0)
    head = CMN(inputs(steps=5), CMNSettings(saliencies=3)).double()
    torch.nn.init.normal_(head.saliency)
    episodes = random_episodes(steps=5)
    stream = episodes.query["frame"]
    keys = head.encode(stream)
    for b, i in ((0, 0), (2, 7)):
        x = stream.x[b, i, : stream.length[b, i]]
        share = torch.softmax(head.norm(x @ head.saliency.t() * 12**0.5), 1)
        z = [
            sum((share[j, m] * (x[j] - head.saliency[m]) for j in range(len(x))), torch.zeros(12).double())
            for m in range(3)
        ]
        joined = F.normalize(torch.cat([F.normalize(v, dim=0) for v in z]), dim=0)
        torch.testing.assert_close(keys[b, i], F.normalize(head.key(joined), dim=0))


def test_the_untrained_key_is_close_to_the_mean_feature() -> None:
    torch.manual_seed(0)
    head = CMN(inputs(64, steps=5), CMNSettings())
    stream = random_episodes(steps=5, dim=64, dtype=torch.float32).query["frame"]
    # The cosine of two random directions in 64 dimensions has a standard deviation of 1/8.
    assert F.cosine_similarity(head.encode(stream), stream.pooled(), dim=-1).min() > 0.9


def _slow_write(key: torch.Tensor) -> list[list[torch.Tensor]]:
    """One episode's keys [N, K, D]: the memory of each class, written a support of every class at a time."""
    memory: list[list[torch.Tensor]] = [[] for _ in key]
    for shot in range(key.shape[1]):
        before = [list(m) for m in memory]
        for c in range(len(key)):
            u = key[c, shot]
            best = {d: max(((u @ k).item(), i) for i, k in enumerate(m)) for d, m in enumerate(before) if m}
            nearest = max(best, key=lambda d: best[d][0]) if best else None
            if nearest == c:
                i = best[c][1]
                memory[c][i] = F.normalize(before[c][i] + u, dim=0)
            else:
                memory[c].append(u)
    return memory


def test_the_memory_follows_the_rule() -> None:
    chance = torch.Generator().manual_seed(0)
    key = torch.randn(6, 4, 1, 5, generator=chance) + torch.randn(6, 4, 6, 5, generator=chance)
    key = F.normalize(key.double(), dim=-1)
    memory, filled = CMN(inputs(5), CMNSettings()).write(key, torch.ones(6, 4, 6, dtype=torch.bool))
    merged = 0
    for b in range(6):
        for c, expected in enumerate(_slow_write(key[b])):
            held = memory[b, c][filled[b, c]]
            merged += 6 - len(expected)
            torch.testing.assert_close(held, torch.stack(expected))
    assert merged > 0


def test_slots_are_the_nearest_neighbour() -> None:
    episodes = random_episodes(shots=3)
    head = CMN(inputs(), CMNSettings(write="slots")).double()
    s, q = head.encode(episodes.support["frame"]), head.encode(episodes.query["frame"])
    near = torch.einsum("bqd,bnkd->bqnk", q, s).amax(-1)
    torch.testing.assert_close(head(episodes), 10 * near)


def test_more_padding_changes_nothing() -> None:
    head = CMN(inputs(steps=5), CMNSettings()).double()
    stream = random_episodes(steps=5).query["frame"]
    longer = Stream(F.pad(stream.x, (0, 0, 0, 3)), stream.present, stream.length)
    torch.testing.assert_close(head.encode(longer), head.encode(stream))


def test_the_margin_loss() -> None:
    episodes = random_episodes()
    head = CMN(inputs(), CMNSettings()).double()
    near = head(episodes) / 10
    losses = []
    for b in range(3):
        for i, c in enumerate(episodes.query_label[b]):
            wrong = max(near[b, i, d].item() for d in range(4) if d != c)
            losses.append(max(0.0, wrong - near[b, i, c].item() + 0.5))
    assert abs(head.loss(episodes).total.item() - sum(losses) / len(losses)) < 1e-9
