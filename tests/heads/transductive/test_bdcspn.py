"""BD-CSPN: as a slow loop over classes; absent queries take no part."""

from __future__ import annotations

import pytest
import torch
from metric_support import features, inputs, random_episodes, some_queries, without_queries
from torch.nn import functional as F

from fsmm.heads.transductive.bdcspn import BDCSPN, BDCSPNSettings


def _slow(given: BDCSPNSettings, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    ways = len(support)
    s, q = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
    moved = q + s.flatten(0, 1).mean(0) - q.mean(0) if given.shift else q
    first = s.mean(1)
    choice = F.cosine_similarity(moved[:, None], first[None], dim=-1).argmax(1)
    prototypes = []
    for c in range(ways):
        mine = moved[choice == c]
        if given.top:
            mine = mine[
                F.cosine_similarity(mine, first[c][None], dim=-1).argsort(descending=True)[: given.top]
            ]
        members = torch.cat([s[c], mine]) if given.propagate else s[c]
        weight = (given.scale * F.cosine_similarity(members, first[c][None], dim=-1)).exp()
        prototypes.append((weight[:, None] * members).sum(0) / weight.sum() if given.propagate else first[c])
    scored = moved if given.score_shifted else q
    return given.scale * F.cosine_similarity(scored[:, None], torch.stack(prototypes)[None], dim=-1)


@pytest.mark.parametrize(
    "given",
    [
        BDCSPNSettings(),
        BDCSPNSettings(shift=False),
        BDCSPNSettings(propagate=False),
        BDCSPNSettings(top=2),
        BDCSPNSettings(scale=1.0, score_shifted=False),
    ],
)
def test_as_a_loop_over_classes(given: BDCSPNSettings) -> None:
    episodes = random_episodes(spread=1.5)
    support, query = features(episodes)
    ours = BDCSPN(inputs(), given)(episodes)
    for b in range(3):
        torch.testing.assert_close(ours[b], _slow(given, support[b], query[b]))


def test_an_absent_query_is_as_if_it_were_not_asked() -> None:
    episodes = random_episodes()
    gone = torch.zeros(3, 12, dtype=torch.bool)
    gone[:, 7:] = True
    head = BDCSPN(inputs(), BDCSPNSettings())
    torch.testing.assert_close(head(without_queries(episodes, gone))[:, :7], head(some_queries(episodes, 7)))
