"""MAML against plain gradient descent written out task by task."""

from __future__ import annotations

from math import log

import pytest
import torch
from graph_support import inputs, parts, perturbed, random_task, with_absent_support
from tests_support import bank_of
from torch.nn import functional as F

from fsmm.errors import UsageError
from fsmm.heads.adaptation.maml import MAML, MAMLSettings, classify
from fsmm.heads.build import build_head, inputs_of


def make(**given: object) -> MAML:
    torch.manual_seed(0)
    head = perturbed(MAML(inputs(), MAMLSettings(**given)))
    assert isinstance(head, MAML)
    return head


@pytest.mark.parametrize("hidden", [0, 6])
def test_adaptation_equals_gradient_descent_task_by_task(hidden: int) -> None:
    head = make(hidden=hidden, rate=0.3, test_steps=4)
    task = random_task()
    support, query = parts(task)
    label = torch.arange(3).repeat_interleave(2)
    for b in range(2):
        layers = [torch.nn.Linear(10, hidden), torch.nn.ReLU()] if hidden else []
        net = torch.nn.Sequential(*layers, torch.nn.Linear(hidden or 10, 3)).double()
        state = list(head.parameters())
        with torch.no_grad():
            for mine, theirs in zip(net.parameters(), state):
                mine.copy_(theirs)
        descent = torch.optim.SGD(net.parameters(), 0.3)
        for _ in range(4):
            descent.zero_grad()
            F.cross_entropy(net(support[b].flatten(0, 1) * head.factor), label).backward()
            descent.step()
        assert torch.allclose(head(task)[b], net(query[b] * head.factor))


@pytest.mark.parametrize("width", [64, 2304])
def test_inner_steps_descend_whatever_the_width(width: int) -> None:
    """Base clips set the scale: the support loss falls over the published steps for narrow and wide features alike."""
    torch.manual_seed(0)
    x = (
        F.normalize(torch.randn(60, width) + 1.0, dim=-1) * 1.4
    )  # a large common part, as pooled features have
    clips = bank_of(x, torch.arange(5).repeat_interleave(12))
    head = build_head("maml", inputs_of(clips))
    assert isinstance(head, MAML)
    head.fit_base(clips)
    support, label = (x[::12] * head.factor)[None], torch.arange(5)[None]
    losses = []
    for steps in range(11):
        logits = classify(head.adapt(support, label, torch.ones(1, 5), steps, 5), support)
        losses.append(float(F.cross_entropy(logits[0], label[0]).detach()))
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(log(5))  # a head at zero guesses among five classes
    assert losses[-1] < 0.5 * losses[0]


def test_one_step_from_a_zero_head_is_a_nearest_class_mean() -> None:
    head = MAML(inputs(), MAMLSettings(test_steps=1)).double().eval()
    task = random_task(shots=3)
    support, query = parts(task)
    mean = support.mean(2)
    product = query @ (mean - mean.mean(1, keepdim=True)).transpose(1, 2)
    assert torch.equal(head(task).argmax(-1), product.argmax(-1))


def test_steps_differ_between_training_and_evaluation() -> None:
    task = random_task()
    head = make(train_steps=2, test_steps=7, rate=0.2)
    assert torch.allclose(head.train()(task), make(train_steps=7, test_steps=2, rate=0.2).eval()(task))


def test_second_order_gradient_by_finite_differences() -> None:
    """The exact derivative goes through the inner steps; the first-order one does not."""
    task = random_task(batch=1)
    slopes = {}
    for first_order in (False, True):
        head = make(first_order=first_order, rate=0.5, train_steps=2).train()
        head.loss(task).total.backward()
        assert head.last.weight.grad is not None
        slopes[first_order] = head.last.weight.grad[1, 4].item()
    values = []
    for step in (1e-5, -1e-5):
        head = make(rate=0.5, train_steps=2).train()
        with torch.no_grad():
            head.last.weight[1, 4] += step
        values.append(head.loss(task).total.item())
    exact = (values[0] - values[1]) / 2e-5
    assert slopes[False] == pytest.approx(exact, rel=1e-5)
    assert slopes[True] != pytest.approx(exact, rel=1e-3)


def test_an_absent_support_is_no_support() -> None:
    absent, gone = with_absent_support(random_task(shots=3))
    head = make(rate=0.2)
    assert torch.allclose(head(absent), head(gone))


def test_fewer_classes_than_built_for_and_more() -> None:
    head = make()
    assert head(random_task(ways=2)).shape[-1] == 2
    with pytest.raises(UsageError, match="built for 3 classes and got 4"):
        head(random_task(ways=4))
