"""The graph and meta-learning heads learn: what they gain on new classes when a part of the features is nuisance.

Four of twelve features tell classes apart, eight are noise. A nearest class mean weighs all alike; a head that learned
on other classes should not.
"""

from __future__ import annotations

import pytest
import torch
from tests_support import bank_of

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.settings import update_settings
from fsmm.runs.evaluate import evaluate
from fsmm.runs.train import train

TELLING, NOISE, CLIPS = 4, 8, 20
PROTOCOL = Protocol(k_shot=1, n_query=5)


def classes(count: int, seed: int) -> FeatureBank:
    chance = torch.Generator().manual_seed(seed)
    label = torch.arange(count).repeat_interleave(CLIPS)
    telling = torch.randn(count, TELLING, generator=chance)[label]
    telling = telling + 0.4 * torch.randn(len(label), TELLING, generator=chance)
    noise = torch.randn(len(label), NOISE, generator=chance)
    return bank_of(torch.cat([telling, noise], 1) / (TELLING + NOISE) ** 0.5, label)


PUBLISHED = {"metric": "false", "embed": "0", "train.rate": "2e-3", "train.mix": "0"}
CASES = {
    "maml": {"hidden": "32", "rate": "0.1", "zero_head": "false", "train.rate": "3e-3", "train.steps": "200"},
    "leo": {"latent": "8", "train.rate": "2e-3", "train.steps": "200"},
    "tpn": {"embed": "8", "train.rate": "5e-3", "train.steps": "150"},
    "gnn": {**PUBLISHED, "train.steps": "200", "train.tasks": "4"},
    "egnn": {**PUBLISHED, "train.steps": "150"},
    "dpgn": {**PUBLISHED, "train.steps": "150"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_training_helps_on_new_classes(name: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = {
        "train.patience": "100",
        "train.ceiling": "1",
        "train.evaluate_episodes": "50",
        "train.evaluate_every": "50",
        **CASES[name],
    }
    base, val, novel = classes(40, 0), classes(10, 1), classes(15, 2)
    own = {k: v for k, v in given.items() if not k.startswith("train.")}
    head = build_head(name, Inputs(streams={"frame": (1, TELLING + NOISE)}, way=5), own)
    head.fit_base(base)
    plain = build_head("protonet", Inputs(streams={"frame": (1, TELLING + NOISE)}, way=5))
    before = evaluate(head, novel, PROTOCOL, 100).mean
    recipe = {k.removeprefix("train."): v for k, v in given.items() if k.startswith("train.")}
    train(head=head, base=base, val=val, protocol=PROTOCOL, recipe=update_settings(head.recipe, recipe, name))
    after = evaluate(head, novel, PROTOCOL, 100).mean
    assert after > before + 0.04
    assert after > evaluate(plain, novel, PROTOCOL, 100).mean + 0.04
