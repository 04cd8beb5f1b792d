"""LEO against the paper's loop written out for one task, and its training-free start."""

from __future__ import annotations

import pytest
import torch
from graph_support import DIM, inputs, parts, perturbed, random_task, with_absent_support
from tests_support import bank_of
from torch import Tensor
from torch.nn import functional as F

from fsmm.heads.adaptation.leo import LEO, LEOSettings


def make(**given: object) -> LEO:
    torch.manual_seed(0)
    head = perturbed(LEO(inputs(), LEOSettings(**{"latent": 4, "principal": False, **given})))
    assert isinstance(head, LEO)
    return head


def slowly(head: LEO, support: Tensor, query: Tensor) -> Tensor:
    """Logits [Q, N] of one task in evaluation, by loops and autograd."""
    ways, shots, _ = support.shape
    own = head.settings
    codes = [head.encoder(x) for x in support.flatten(0, 1)]
    related = []
    for a in codes:
        pairs = []
        for b in codes:
            h = torch.cat([a, b])
            for i, layer in enumerate(head.relation):
                h = layer(h) if i == 2 else layer(h).relu()
            pairs.append(h)
        related.append(torch.stack(pairs).mean(0))
    mean = torch.stack(related).unflatten(0, (ways, shots)).mean(1)[:, : own.latent]
    code = mean[:, None].expand(-1, shots, -1).detach().requires_grad_()
    label = torch.arange(ways).repeat_interleave(shots)

    def loss(weights: Tensor) -> Tensor:
        logits = torch.stack([(support.flatten(0, 1) @ weights[n].T).mean(1) for n in range(ways)], 1)
        return F.cross_entropy(logits, label, reduction="sum")

    for _ in range(own.inner_steps):
        (slope,) = torch.autograd.grad(loss(head.decoder(code)[..., :DIM]), code)
        code = (code - head.inner_rate * slope).detach().requires_grad_()
    weights = head.decoder(code)[..., :DIM].detach().requires_grad_()
    for _ in range(own.finetuning_steps):
        (slope,) = torch.autograd.grad(loss(weights), weights)
        weights = (weights - head.finetuning_rate * slope).detach().requires_grad_()
    return torch.stack([(query @ weights[n].T).mean(1) for n in range(ways)], 1)


@pytest.mark.parametrize("shots", [1, 3])
def test_adaptation_equals_the_loop(shots: int) -> None:
    head = make(inner_steps=3, finetuning_steps=2, finetuning_rate=0.1)
    task = random_task(shots=shots)
    support, query = parts(task)
    for b in range(2):
        assert torch.allclose(head(task)[b], slowly(head, support[b], query[b]))


def test_training_is_random_and_evaluation_is_not() -> None:
    head, task = make(), random_task()
    assert torch.equal(head(task), head(task))
    head.train()
    assert not torch.equal(head(task), head(task))


def test_an_absent_support_is_no_support() -> None:
    absent, gone = with_absent_support(random_task(shots=3))
    head = make(inner_steps=0, finetuning_steps=3, finetuning_rate=0.2)
    assert torch.allclose(head(absent), head(gone))


def test_regularisers_are_what_they_say() -> None:
    head, task = make(kl=2.0, penalty=3.0, l2=0.5, orthogonality=7.0, dropout=0.0), random_task()
    head.train()
    torch.manual_seed(5)
    losses = head.loss(task)
    matrices = [head.encoder.weight, head.decoder.weight, *[layer.weight for layer in head.relation]]
    l2 = 0.5 * 0.5 * sum(w.square().sum() for w in matrices)
    rows = head.decoder.weight.T
    cosine = F.cosine_similarity(rows[:, None], rows[None], dim=-1)
    orthogonality = 7.0 * (cosine - torch.eye(4)).square().mean()
    expected = (
        losses.parts["ce"] + 2.0 * losses.parts["kl"] + 3.0 * losses.parts["penalty"] + l2 + orthogonality
    )
    assert torch.allclose(losses.total, expected)


def test_kl_is_the_log_ratio_of_two_normals() -> None:
    from fsmm.heads.adaptation.leo import _sample

    mean, spread = torch.randn(2, 3, 1, 4).double(), torch.rand(2, 3, 1, 4).double()
    torch.manual_seed(2)
    code, kl = _sample(mean, spread, torch.randn_like)
    normal = torch.distributions.Normal
    expected = normal(mean, spread.exp() - 1).log_prob(code) - normal(0.0, 1.0).log_prob(code)
    assert torch.allclose(kl, expected.mean())


def test_the_principal_start_decodes_the_class_mean_along_the_base_components() -> None:
    """Without adaptation, first logits are the inner products of query and class mean inside the components' span."""
    base = torch.randn(40, DIM, generator=torch.Generator().manual_seed(1))
    head = LEO(inputs(), LEOSettings(latent=4, inner_steps=0, finetuning_steps=0, logit_scale=2.5))
    head.fit_base(bank_of(base, torch.arange(40) % 4))
    head = head.double().eval()
    axes = torch.linalg.svd(base.double() - base.double().mean(0)).Vh[:4]
    task = random_task(shots=3)
    support, query = parts(task)
    expected = 2.5 * (query @ axes.T) @ (support.mean(2) @ axes.T).transpose(1, 2)
    assert torch.allclose(head(task), expected, atol=1e-5)
