"""GNN: its shortcuts in evaluation, its start, its variants."""

from __future__ import annotations

import pytest
import torch
from graph_support import inputs, parts, perturbed, random_task, with_absent_support
from torch import nn

from fsmm.errors import UsageError
from fsmm.heads.graph import gnn
from fsmm.heads.graph.gnn import GNN, GNNSettings


def make(**given: object) -> GNN:
    torch.manual_seed(0)
    head = perturbed(GNN(inputs(), GNNSettings(**{"embed": 6, "width": 8, **given})))
    assert isinstance(head, GNN)
    return head


def stochastic_off(head: GNN) -> GNN:
    """Training mode, but batch norm with running statistics and no dropout: the plain path without shortcuts."""
    head.train()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    for net in head.adjacency:
        net.drop = [0.0] * len(net.drop)
    return head


@pytest.mark.parametrize("variant", ["mini", "omniglot"])
@pytest.mark.parametrize(("metric", "heads"), [(True, 0), (False, 0), (True, 2)])
def test_the_shortcuts_of_evaluation_change_nothing(variant: str, metric: bool, heads: int) -> None:
    task = random_task(shots=2)
    given = {"variant": variant, "metric": metric, "heads": heads}
    assert torch.allclose(make(**given)(task), stochastic_off(make(**given))(task))


def test_groups_of_channels_change_what_is_learned_and_not_the_start() -> None:
    task = random_task(shots=2)
    plain, grouped = (GNN(inputs(), GNNSettings(heads=heads)).double().eval() for heads in (0, 3))
    assert torch.allclose(plain(task), grouped(task), atol=1e-6)
    assert not torch.allclose(make(heads=2)(task), make(heads=3)(task))
    absent, gone = with_absent_support(task)
    assert torch.allclose(make(heads=2)(absent), make(heads=2)(gone))


def test_more_groups_than_channels_are_refused() -> None:
    with pytest.raises(UsageError, match="more than the 9 channels"):
        make(heads=100)


def test_the_start_is_a_softmax_vote_over_the_supports() -> None:
    head = GNN(inputs(), GNNSettings(metric_scale=3.0, output_scale=2.0)).double().eval()
    task = random_task(shots=2)
    support, query = parts(task)
    distance = torch.cdist(query, support.flatten(1, 2)).square()
    vote = torch.softmax(-3.0 * distance, -1).unflatten(-1, (3, 2)).sum(-1)
    assert torch.allclose(head(task), 2.0 * vote, atol=1e-6)


def test_an_absent_support_is_no_support() -> None:
    absent, gone = with_absent_support(random_task(shots=3))
    head = make()
    assert torch.allclose(head(absent), head(gone))


def test_dropout_of_the_omniglot_variant_acts_in_training_only() -> None:
    head, task = make(variant="omniglot"), random_task()
    assert torch.equal(head(task), head(task))
    head.train()
    assert not torch.equal(head(task), head(task))


def test_fewer_classes_than_built_for_and_more() -> None:
    head = make()
    assert head(random_task(ways=2)).shape[-1] == 2
    with pytest.raises(UsageError, match="built for 3 classes and got 4"):
        head(random_task(ways=4))


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(UsageError, match="Known: mini, omniglot"):
        make(variant="other")


def test_queries_in_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    head, task = make().eval(), random_task()
    whole = head(task)
    monkeypatch.setattr(gnn, "PART_BYTES", 1)
    assert torch.allclose(head(task), whole, rtol=1e-12)
