"""TPN-pytorch's LabelPropagation on 64 x 5 x 5 maps: supports, then queries, one task."""

from __future__ import annotations

import torch
from case import ONLY, Case
from torch import Tensor
from torch.nn import functional as F

from fsmm.heads.graph.blocks import Nodes
from fsmm.heads.graph.tpn import TPN, TPNSettings
from fsmm.heads.head import Inputs

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def names(case: Case) -> dict[str, str]:
    """Our parameter or buffer -> the official one."""
    layers = {"convolution.0": "layer1.0", "convolution.1": "layer2.0", "first": "fc3", "last": "fc4"}
    table = {f"{a}.{part}": f"{b}.{part}" for a, b in layers.items() for part in ("weight", "bias")}
    for layer in (0, 1):
        table |= {f"norm.{layer}.{part}": f"layer{layer + 1}.1.{part}" for part in NORM}
    table = {f"relation.{ours}": f"relation.{theirs}" for ours, theirs in table.items()}
    learned = [name for name in case.params if name.rpartition(".")[2] == "alpha"]
    return table | ({"alpha": learned[0]} if learned else {})


def build(case: Case) -> TPN:
    meta, maps = case.meta, case.inputs["support"]
    own = TPNSettings(
        neighbours=meta["k"],
        alpha=meta["alpha"],
        learn_alpha=any(name.rpartition(".")[2] == "alpha" for name in case.params),
        rescale=False,
        sigma=0.0,
        hidden=len(case.params["relation.fc3.bias"]),
        side=maps.shape[-1],
    )
    head = TPN(Inputs(streams={ONLY: (1, maps[0].numel())}), own).double()
    state = head.state_dict()
    state["alpha"] = torch.tensor(meta["alpha"], dtype=torch.float64)
    state |= {ours: case.params[theirs].view_as(state[ours]) for ours, theirs in names(case).items()}
    head.load_state_dict(state)
    return head


def outputs(case: Case) -> dict[str, Tensor]:
    support, query = case.inputs["support"].flatten(1), case.inputs["query"].flatten(1)
    x = torch.cat([support, query])[None]
    graph = Nodes(x, torch.ones(x.shape[:2], dtype=torch.bool), len(support))
    truth = torch.cat([case.inputs["support_onehot"], case.inputs["query_onehot"]])
    given: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        head = build(case).train(mode == "train")
        spread = head.propagate(graph, case.inputs["support_onehot"][None])
        loss = F.cross_entropy(spread.label[0], truth.argmax(-1))
        given |= {f"{mode}_F": spread.label[0], f"{mode}_W": spread.weight[0], f"{mode}_S": spread.smooth[0],
                  f"{mode}_sigma": spread.sigma[0], f"{mode}_query_scores": spread.label[0, len(support):],
                  f"{mode}_loss": loss}  # fmt: skip
    loss.backward()
    gradient = {names(case).get(n, n): p.grad for n, p in head.named_parameters()}
    for name in case.wanted("grad."):
        value = gradient[name]
        assert value is not None
        given[f"grad.{name}"] = value.view_as(case.expected[f"grad.{name}"])
    return given
