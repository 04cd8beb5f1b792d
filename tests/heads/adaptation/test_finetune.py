"""Fine-tuning: as fitting each episode by itself with torch.optim and autograd."""

from __future__ import annotations

import pytest
import torch
from metric_support import features, inputs, random_episodes
from torch.nn import functional as F

from fsmm.errors import UsageError
from fsmm.heads.adaptation.finetune import FineTune, FineTuneSettings


def _slow(given: FineTuneSettings, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """One episode: support [N, K, D], query [Q, D] -> logits [Q, N]."""
    ways, shots, dim = support.shape
    label = torch.arange(ways).repeat_interleave(shots)
    s, q = F.normalize(support.flatten(0, 1), dim=-1), F.normalize(query, dim=-1)
    w = s.unflatten(0, (ways, shots)).mean(1) if given.start == "prototypes" else torch.zeros(ways, dim).to(s)
    w = w.clone().requires_grad_()
    bias = torch.zeros(ways, dtype=s.dtype, requires_grad=True)
    kind: type[torch.optim.Optimizer] = torch.optim.SGD
    options = {"momentum": given.momentum, "dampening": given.dampening}
    if given.optimiser == "adam":
        kind, options = torch.optim.Adam, {}
    optimiser = kind([w, bias], lr=given.rate, weight_decay=given.decay, **options)

    def logits(x: torch.Tensor) -> torch.Tensor:
        if given.classifier == "linear":
            return x @ w.t() + bias
        return given.scale * x @ F.normalize(w, dim=-1).t() + 0 * bias

    for _ in range(given.steps):
        optimiser.zero_grad()
        F.cross_entropy(logits(s), label).backward()
        optimiser.step()
    return logits(q).detach()


@pytest.mark.parametrize("classifier", ["cosine", "linear"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("dim", [30, 5])
def test_as_each_episode_by_itself(classifier: str, optimiser: str, dim: int) -> None:
    given = FineTuneSettings(classifier=classifier, optimiser=optimiser, steps=25, rate=0.05)
    episodes = random_episodes(dim=dim)
    ours = FineTune(inputs(dim), given)(episodes)
    support, query = features(episodes)
    for b in range(3):
        torch.testing.assert_close(ours[b], _slow(given, support[b], query[b]), rtol=1e-8, atol=1e-10)


def test_a_linear_classifier_from_zero() -> None:
    given = FineTuneSettings(classifier="linear", start="zero", steps=40, rate=0.5)
    episodes = random_episodes(spread=0.3)
    support, query = features(episodes)
    ours = FineTune(inputs(), given)(episodes)
    torch.testing.assert_close(ours[1], _slow(given, support[1], query[1]), rtol=1e-8, atol=1e-10)
    # Class means lie some five apart and clips .3 around them; the bound allows 3 of 36 queries to be wrong.
    assert (ours.argmax(-1) == episodes.query_label).double().mean() > 0.9


def test_zero_steps_are_the_prototype_rule() -> None:
    episodes = random_episodes()
    support, query = features(episodes)
    mean = F.normalize(support, dim=-1).mean(2)
    expected = 10 * F.normalize(query, dim=-1) @ F.normalize(mean, dim=-1).transpose(1, 2)
    torch.testing.assert_close(FineTune(inputs(), FineTuneSettings(steps=0))(episodes), expected)


def test_a_cosine_cannot_start_at_zero() -> None:
    with pytest.raises(UsageError, match="prototypes"):
        FineTune(inputs(), FineTuneSettings(start="zero"))
