"""PAL: attention as torch's MultiheadAttention; the contrast term as a loop; absent supports are not attended to."""

from __future__ import annotations

import torch
from metric_support import features, inputs, random_episodes, without_queries
from torch import nn
from torch.nn import functional as F

from fsmm.heads.metric.pal import PAL, PALSettings


def test_as_torchs_attention() -> None:
    torch.manual_seed(0)
    head = PAL(inputs(), PALSettings(scale=1.0, rescale=False, start=False)).double()
    peer = nn.MultiheadAttention(12, 1, batch_first=True).double()
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([head.query.weight, head.key.weight, head.value.weight]))
        peer.in_proj_bias.copy_(torch.cat([head.query.bias, head.key.bias, head.value.bias]))
        peer.out_proj.load_state_dict(head.out.state_dict())
    episodes = random_episodes()
    support, query = features(episodes)
    s = support.flatten(1, 2)
    s = s + peer(s, s, s)[0]
    q = query + peer(query, s, s)[0]
    mean = s.view_as(support).mean(2)
    norms = q.norm(dim=-1)[:, :, None] * mean.norm(dim=-1)[:, None] + 0.01
    torch.testing.assert_close(head(episodes), q @ mean.transpose(1, 2) / norms)


def test_the_contrast_term_as_a_loop() -> None:
    head = PAL(inputs(), PALSettings()).double()
    gone = torch.zeros(3, 12, dtype=torch.bool)
    gone[1, :4] = True
    episodes = without_queries(random_episodes(), gone)
    score = head(episodes).sigmoid()
    terms = []
    for b in range(3):
        for c in range(4):
            mine = score[b, episodes.query_label[b] == c, c].sum()
            everyone = score[b, episodes.query_label[b] >= 0, c].sum()
            if (episodes.query_label[b] == c).any():
                terms.append(-torch.log(mine / (everyone + 0.1)))
    torch.testing.assert_close(head.loss(episodes).parts["contrast"], torch.stack(terms).mean())


def test_absent_supports_are_not_attended_to() -> None:
    torch.manual_seed(0)
    head = PAL(inputs(), PALSettings(start=False)).double()
    episodes = random_episodes()
    stream = episodes.support["frame"]
    stream.present[:, 2, 1] = False
    first = head(episodes)
    stream.x[:, 2, 1] = 50.0
    torch.testing.assert_close(head(episodes), first)


def test_the_untrained_head_is_the_cosine_prototype_rule() -> None:
    episodes = random_episodes()
    support, query = features(episodes)
    near = F.normalize(query, dim=-1) @ F.normalize(support.mean(2), dim=-1).transpose(1, 2)
    torch.testing.assert_close(PAL(inputs(), PALSettings(epsilon=0.0)).double()(episodes), 10 * near)
