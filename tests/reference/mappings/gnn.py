"""few-shot-gnn's MetricNN: official names are like gnn_obj.layer_w0.conv2d_1; conv weights are [out, in, 1, 1]."""

from __future__ import annotations

import torch
from case import ONLY, Case
from torch import Tensor
from torch.nn import functional as F

from fsmm.heads.graph.gnn import BLOCKS, GNN, GNNSettings
from fsmm.heads.head import Inputs

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def names(case: Case) -> dict[str, str]:
    """Our parameter or buffer -> the official one."""
    table: dict[str, str] = {}
    for block in range(BLOCKS + 1):
        theirs = f"layer_w{block}" if block < BLOCKS else "w_comp_last"
        for layer in range(4):
            for part in ("weight", "bias"):
                table[f"adjacency.{block}.linear.{layer}.{part}"] = f"{theirs}.conv2d_{layer + 1}.{part}"
            for part in NORM:
                table[f"adjacency.{block}.norm.{layer}.{part}"] = f"{theirs}.bn_{layer + 1}.{part}"
        for part in ("weight", "bias"):
            table[f"adjacency.{block}.out.{part}"] = f"{theirs}.conv2d_last.{part}"
    for block in range(BLOCKS):
        for part in ("weight", "bias"):
            table[f"mix.{block}.{part}"] = f"layer_l{block}.fc.{part}"
        for part in NORM:
            table[f"norm.{block}.{part}"] = f"layer_l{block}.bn.{part}"
    for part in ("weight", "bias"):
        table[f"out.{part}"] = f"layer_last.fc.{part}"
    if any(name.endswith("layer_last.bn.weight") for name in case.params):
        for part in NORM:
            table[f"out_norm.{part}"] = f"layer_last.bn.{part}"
    return {ours: f"gnn_obj.{theirs}" for ours, theirs in table.items()}


def build(case: Case) -> GNN:
    support, label = case.inputs["supports"], case.inputs["support_onehot"]
    omniglot = "omniglot" in case.meta["ds"]
    settings = GNNSettings(
        embed=0,
        rescale=False,
        metric=False,
        width=case.meta["nf"],
        variant="omniglot" if omniglot else "mini",
    )
    head = GNN(Inputs(streams={ONLY: (1, support.shape[-1])}, way=label.shape[-1]), settings).double()
    own = head.state_dict()
    head.load_state_dict(
        own | {ours: case.params[name].view_as(own[ours]) for ours, name in names(case).items()}
    )
    for net in head.adjacency:
        net.drop = [0.0] * len(net.drop)  # the fixtures were made without dropout
    return head


def logits(head: GNN, case: Case) -> Tensor:
    query, support = case.inputs["query"][:, None], case.inputs["supports"]
    everyone = torch.ones(support.shape[:2], dtype=torch.bool)
    return head.graphs(
        query=query,
        support=support,
        label=case.inputs["support_onehot"],
        query_present=everyone[:, :1],
        support_present=everyone,
    )[:, 0]


def outputs(case: Case) -> dict[str, Tensor]:
    given: dict[str, Tensor] = {}
    loss = torch.zeros(())
    for mode in ("eval", "train"):
        head = build(case).train(mode == "train")
        value = logits(head, case)
        loss = F.cross_entropy(value, case.inputs["query_labels"])
        given |= {f"{mode}_logits": value, f"{mode}_sigmoid": value.sigmoid(), f"{mode}_loss": loss}
    loss.backward()  # the gradients are those of training mode
    gradient = {names(case)[n]: p.grad for n, p in head.named_parameters()}
    for name in case.wanted("grad."):
        value = gradient[name]
        assert value is not None
        given[f"grad.{name}"] = value.view_as(case.expected[f"grad.{name}"])
    return given
