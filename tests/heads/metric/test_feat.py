"""FEAT: the masked attention equals one attention a class; the untrained head ranks by prototypes."""

from __future__ import annotations

import torch
from metric_support import features, inputs, random_episodes
from torch import nn
from torch.nn import functional as F

from fsmm.heads.metric.feat import FEAT, FEATSettings


def _head() -> FEAT:
    torch.manual_seed(0)
    head = FEAT(inputs(), FEATSettings(start=False, rescale=False)).double()
    return head.eval()


def test_the_regulariser_is_one_attention_a_class() -> None:
    head, episodes = _head(), random_episodes()
    support, query = features(episodes)
    logits, label = head.contrast(episodes)
    everyone = torch.ones(1, 1, 1, dtype=torch.bool)
    for b in range(3):
        centres = []
        for c in range(4):
            members = torch.cat([support[b, c], query[b][episodes.query_label[b] == c]])
            centres.append(head.attention(head.attention.project(members[None]), everyone)[0].mean(0))
        x = torch.cat([support[b].flatten(0, 1), query[b]])
        expected = -(x[:, None] - torch.stack(centres)[None]).square().sum(-1) / 16
        torch.testing.assert_close(logits[b], expected)
    assert label[:, :8].tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 3


def test_the_attention_is_torchs() -> None:
    head = _head()
    peer = nn.MultiheadAttention(12, 1, bias=False, batch_first=True).double()
    attention = head.attention
    with torch.no_grad():
        peer.in_proj_weight.copy_(
            torch.cat([attention.query.weight, attention.key.weight, attention.value.weight])
        )
        peer.out_proj.weight.copy_(attention.out.weight)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    mixed = peer(x, x, x)[0] + attention.out.bias
    expected = F.layer_norm(x + mixed, (12,), attention.norm.weight, attention.norm.bias)
    torch.testing.assert_close(
        attention(attention.project(x), torch.ones(1, 5, 5, dtype=torch.bool)), expected
    )


def test_classes_without_supports_are_not_attended_to() -> None:
    head, episodes = _head(), random_episodes()
    whole = episodes.support["frame"]
    whole.present[:, 3] = False
    first = head(episodes)
    whole.x[:, 3] = 50.0
    torch.testing.assert_close(head(episodes), first)


def test_the_untrained_head_ranks_by_normalised_prototypes() -> None:
    episodes = random_episodes(dim=64)
    support, query = features(episodes)
    mean = (F.normalize(support, dim=-1) * 8).mean(2)
    expected = -torch.cdist(F.normalize(query, dim=-1) * 8, F.layer_norm(mean, (64,)))
    head = FEAT(inputs(64), FEATSettings()).double().eval()
    assert torch.equal(head(episodes).argmax(-1), expected.argmax(-1))
