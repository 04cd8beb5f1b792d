"""Matching Networks: attention as a loop; full context embeddings as torch's own LSTMs, and blind to class order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from metric_support import features, inputs, random_episodes
from torch import nn
from torch.nn import functional as F

from fsmm.heads.metric.matching import FullContextMatching, FullContextSettings, Matching, MatchingSettings


@pytest.mark.parametrize("distance", ["cosine", "l2", "dot"])
def test_attention_as_a_loop(distance: str) -> None:
    episodes = random_episodes()
    ours = Matching(inputs(), MatchingSettings(distance, scale=2.0))(episodes).exp()
    support, query = features(episodes)
    for b in range(3):
        for i, q in enumerate(query[b]):
            s = support[b].flatten(0, 1)
            far = {
                "cosine": 1 - F.cosine_similarity(s, q[None], dim=-1),
                "l2": (s - q).square().sum(-1),
                "dot": -(s * q).sum(-1),
            }[distance]
            torch.testing.assert_close(
                ours[b, i], torch.softmax(-2 * far, 0).view(4, 2).sum(1), atol=1e-8, rtol=1e-6
            )


def test_an_absent_support_draws_no_attention() -> None:
    episodes = random_episodes()
    stream = episodes.support["frame"]
    stream.present[:, 1, 1] = False
    stream.x[:, 1, 1] = 99.0  # whatever fusion may have put there
    ours = Matching(inputs(), MatchingSettings("l2"))(episodes).exp()
    support, query = features(episodes)
    far = (query[0, 0] - support[0].flatten(0, 1)).square().sum(-1)
    far[3] = torch.inf
    torch.testing.assert_close(ours[0, 0], torch.softmax(-far, 0).view(4, 2).sum(1), atol=1e-8, rtol=1e-6)


def test_full_context_as_torchs_bidirectional_lstm() -> None:
    torch.manual_seed(0)
    head = FullContextMatching(
        inputs(), FullContextSettings(scale=1.0, width=0, order="given", start=False)
    ).double()
    episodes = random_episodes()
    g = nn.LSTM(12, 12, bidirectional=True).double()
    g.load_state_dict(
        head.context.ahead.state_dict()
        | {f"{k}_reverse": v for k, v in head.context.back.state_dict().items()}
    )
    support, query = features(episodes)
    ours = head(episodes).exp()
    for b in range(3):
        s = support[b].flatten(0, 1)
        read = g(s[:, None])[0][:, 0]
        s = s + read[:, :12] + read[:, 12:]
        q, hidden, memory = query[b], torch.zeros_like(query[b]), torch.zeros_like(query[b])
        for _ in range(2):
            h = hidden + q
            hidden, memory = head.reader(q, (h + torch.softmax(h @ s.t(), 1) @ s, memory))
        near = F.normalize(hidden + q, dim=-1) @ F.normalize(s, dim=-1).t()
        torch.testing.assert_close(
            ours[b], torch.softmax(near, 1).unflatten(1, (4, 2)).sum(2), atol=1e-8, rtol=1e-6
        )


@pytest.mark.parametrize("width", [0, 6])
def test_the_untrained_head_is_the_plain_one(width: int) -> None:
    episodes = random_episodes()
    head = FullContextMatching(inputs(), FullContextSettings(scale=1.0, width=width)).double()
    torch.testing.assert_close(head(episodes), Matching(inputs(), MatchingSettings())(episodes))


def test_full_context_does_not_depend_on_the_order_of_classes() -> None:
    torch.manual_seed(0)
    head = FullContextMatching(inputs(), FullContextSettings(start=False)).double()
    episodes = random_episodes()
    order = torch.tensor([2, 0, 3, 1])
    turned = replace(episodes, support={"frame": episodes.support["frame"][:, order]})
    torch.testing.assert_close(head(turned), head(episodes)[..., order])
