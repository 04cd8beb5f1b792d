"""Relation Network: the split layer is one over the concatenation; norms see one task; maps as torch's layers."""

from __future__ import annotations

import pytest
import torch
from metric_support import features, inputs, random_episodes
from torch import nn
from torch.nn import functional as F

from fsmm.errors import UsageError
from fsmm.heads.metric.relation import Relation, RelationSettings, VectorJudge
from fsmm.heads.parts.task_norm import TaskNorm


def _shaken(head: Relation) -> Relation:
    """Weights that are not at their start, statistics that are not 0 and 1."""
    torch.manual_seed(0)
    for p in head.parameters():
        nn.init.normal_(p, std=0.2)
    for name, buffer in head.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return head.double().eval()


def test_vectors_are_judged_as_a_concatenation() -> None:
    head = _shaken(Relation(inputs(), RelationSettings(hidden=6)))
    judge = head.judge
    assert isinstance(judge, VectorJudge)
    assert head.cosine is not None
    episodes = random_episodes()
    support, query = features(episodes)
    weight = torch.cat([judge.of_class.weight, judge.of_query.weight], 1)
    for b, i, c in ((0, 0, 0), (1, 5, 2), (2, 11, 3)):
        total, q = support[b, c].sum(0), query[b, i]
        hidden = F.linear(torch.cat([total, q]) * 12**0.5, weight, judge.of_class.bias)
        norm = judge.norm
        hidden = (hidden - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
        score = judge.out(F.relu(hidden)) + head.cosine.scale * F.cosine_similarity(total, q, dim=0)
        torch.testing.assert_close(head(episodes)[b, i, c], score[0] + head.cosine.offset)


@pytest.mark.parametrize(("side", "padding"), [(5, 1), (10, 0)])
def test_maps_pass_torchs_layers(side: int, padding: int) -> None:
    given = RelationSettings(side=side, padding=padding, filters=4, hidden=3, start=False)
    head = _shaken(Relation(inputs(2 * side**2), given))
    episodes = random_episodes(batch=2, ways=2, dim=2 * side**2)
    support, query = features(episodes)
    x = torch.cat([support[1, 0].sum(0).view(2, side, side), query[1, 3].view(2, side, side)])[None]
    for block in head.judge.blocks:
        norm = block.norm
        x = F.batch_norm(block.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias)
        x = F.max_pool2d(F.relu(x), 2)
    judge = head.judge
    score = judge.out(F.relu(judge.hidden(x.flatten(1))))
    torch.testing.assert_close(head(episodes)[1, 3, 0], score[0, 0])


def test_batch_statistics_are_those_of_one_task() -> None:
    ours, peer = TaskNorm(3, 1.0).double(), nn.BatchNorm2d(3, momentum=1.0).double()
    x = torch.randn(4, 6, 3, 2, 2, dtype=torch.float64) * 3 + 1
    expected, means, variances = [], [], []
    for task in x:
        expected.append(peer(task))
        means.append(peer.running_mean.clone())
        variances.append(peer.running_var.clone())
    torch.testing.assert_close(ours(x), torch.stack(expected))
    torch.testing.assert_close(ours.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(ours.running_var, torch.stack(variances).mean(0))
    ours.eval()
    torch.testing.assert_close(ours(x)[:1], ours(x[:1]))


def test_the_released_scripts_statistics_stay_within_a_task() -> None:
    head = _shaken(Relation(inputs(), RelationSettings(batch_statistics=True)))
    episodes = random_episodes()
    torch.testing.assert_close(head(episodes)[1:2], head(episodes.slice(1, 2)))


def test_an_untrained_relation_ranks_as_the_cosine_does() -> None:
    episodes = random_episodes()
    support, query = features(episodes)
    near = F.normalize(query, dim=-1) @ F.normalize(support.mean(2), dim=-1).transpose(1, 2)
    head = Relation(inputs(), RelationSettings()).double().eval()
    assert torch.equal(head(episodes).argmax(-1), near.argmax(-1))


def test_it_learns_a_relation_that_the_cosine_misses() -> None:
    """Only the sign of one feature tells the classes apart; the others are loud noise."""
    torch.manual_seed(0)
    head = Relation(inputs(6), RelationSettings(hidden=16, momentum=0.1)).train()
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)

    def batch(seed: int) -> object:
        episodes = random_episodes(16, 2, 1, 4, 6, seed=seed, dtype=torch.float32)
        sign = torch.tensor([1.0, -1.0])
        episodes.support["frame"].x[..., 0] = sign[:, None, None]
        episodes.query["frame"].x[..., 0] = sign[episodes.query_label][..., None]
        for stream in (episodes.support["frame"], episodes.query["frame"]):
            stream.x[..., 1:] = 2 * torch.randn(stream.x[..., 1:].shape)
        return episodes

    def accuracy() -> float:
        head.eval()
        episodes = batch(10_000)
        right = head(episodes).argmax(-1) == episodes.query_label
        head.train()
        return right.float().mean().item()

    before = accuracy()
    for step in range(150):
        optimiser.zero_grad()
        head.loss(batch(step)).total.backward()
        optimiser.step()
    # Chance is 1/2, and its standard error over 16 x 8 queries is .04: one bound is seven of these above, one nine.
    assert before < 0.8
    assert accuracy() > 0.9


def test_features_that_cannot_be_folded_are_refused() -> None:
    with pytest.raises(UsageError, match="side 5"):
        Relation(inputs(12), RelationSettings(side=5))
    with pytest.raises(UsageError, match="too small"):
        Relation(inputs(25), RelationSettings(side=5, padding=0))
