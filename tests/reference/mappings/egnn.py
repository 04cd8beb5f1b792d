"""fewshot-egnn's GraphNetwork: supports class by class, then queries; official conv weights are [out, in, 1, 1]."""

from __future__ import annotations

import torch
from case import ONLY, Case
from torch import Tensor

from fsmm.heads.graph.blocks import Nodes
from fsmm.heads.graph.egnn import EGNN, EGNNSettings, initial_edges, one_graph_a_query
from fsmm.heads.head import Inputs
from fsmm.heads.parts.tensors import class_sum

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def names(layers: int) -> dict[str, str]:
    """Our parameter or buffer -> the official one."""
    table: dict[str, str] = {}
    for i in range(layers):
        for ours, theirs, depth in (
            ("node_net", f"edge2node_net{i}.network", 2),
            ("edge_net", f"node2edge_net{i}.sim_network", 4),
        ):
            for j in range(depth):
                table[f"{ours}.{i}.linear.{j}.weight"] = f"{theirs}.conv{j}.weight"
                for part in NORM:
                    table[f"{ours}.{i}.norm.{j}.{part}"] = f"{theirs}.norm{j}.{part}"
        for part in ("weight", "bias"):
            table[f"edge_net.{i}.out.{part}"] = f"node2edge_net{i}.sim_network.conv_out.{part}"
    return table


def build(case: Case) -> EGNN:
    meta, dim = case.meta, case.inputs["node"].shape[-1]
    own = EGNNSettings(embed=0, rescale=False, metric=False, layers=meta["L"], node_width=meta["nf"],
                       edge_width=meta["ef"], dropout=meta["dropout"])  # fmt: skip
    head = EGNN(Inputs(streams={ONLY: (1, dim)}, way=meta["way"]), own).double()
    state = head.state_dict()
    table = names(meta["L"])
    head.load_state_dict(
        state | {ours: case.params[theirs].view_as(state[ours]) for ours, theirs in table.items()}
    )
    return head


def outputs(case: Case) -> dict[str, Tensor]:
    x, start = case.inputs["node"], case.inputs["init_edge"]
    support_label, query_label = case.inputs["support_labels"], case.inputs["query_labels"]
    graph = Nodes(x, torch.ones(x.shape[:2], dtype=torch.bool), support_label.shape[1])
    assert torch.equal(initial_edges(graph, case.meta["way"], query_self=True), start)
    given: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        head = build(case).train(mode == "train")
        edges = head.layers(graph, start)
        given |= {f"{mode}_edge_layer{i}": edge for i, edge in enumerate(edges)}
        given[f"{mode}_query_scores"] = scores(edges[-1][:, 0], graph, case)
    losses = head.edge_loss([e[:, 0] for e in edges], torch.cat([support_label, query_label], 1), graph)
    given |= {"train_loss": losses.total, "train_layer_losses": torch.stack(list(losses.parts.values()))}
    losses.total.backward()
    table = names(case.meta["L"])
    gradient = {table[n]: p.grad for n, p in head.named_parameters()}
    for name in case.wanted("grad."):
        value = gradient[name]
        assert value is not None
        given[f"grad.{name}"] = value.view_as(case.expected[f"grad.{name}"])
    alone = one_graph_a_query(graph)
    edge = build(case).eval().layers(alone, initial_edges(alone, case.meta["way"], query_self=False))[-1]
    given["eval_nontransductive_query_scores"] = scores(edge[:, 0], alone, case).view_as(
        given["eval_query_scores"]
    )
    return given


def scores(similar: Tensor, graph: Nodes, case: Case) -> Tensor:
    return class_sum(similar[:, graph.supports :, : graph.supports], case.meta["way"])
