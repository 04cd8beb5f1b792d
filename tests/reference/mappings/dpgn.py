"""megvii-research/DPGN: supports class by class, then queries; official conv weights are [out, in, 1, 1]."""

from __future__ import annotations

import torch
from case import ONLY, Case
from torch import Tensor

from fsmm.heads.graph.blocks import Nodes
from fsmm.heads.graph.dpgn import DPGN, DPGNSettings, Generation, initial_edges
from fsmm.heads.head import Inputs
from fsmm.heads.parts.tensors import class_sum

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def names(generations: int) -> dict[str, str]:
    """Our parameter or buffer -> the official one."""
    table: dict[str, str] = {}

    def stack(ours: str, theirs: str) -> None:
        # two layers of (linear, norm) at 0, 1 and 3, 4 of the official sequence, then the output at 6
        for layer, place in ((0, 0), (1, 3)):
            table[f"{ours}.linear.{layer}.weight"] = f"{theirs}.{place}.weight"
            for part in NORM:
                table[f"{ours}.norm.{layer}.{part}"] = f"{theirs}.{place + 1}.{part}"

    def similarity(ours: str, theirs: str) -> None:
        stack(ours, f"{theirs}.point_sim_transform")
        for part in ("weight", "bias"):
            table[f"{ours}.out.{part}"] = f"{theirs}.point_sim_transform.6.{part}"

    similarity("first_edge", "initial_edge")
    for g in range(generations):
        similarity(f"point_edge.{g}", f"point_sim_generation_{g}")
        similarity(f"distribution_edge.{g}", f"distribution_sim_generation_{g}")
        stack(f"to_point.{g}", f"distribution2point_generation_{g}.point_node_transform")
        for part in ("weight", "bias"):
            table[f"to_distribution.{g}.{part}"] = f"point2distribution_generation_{g}.p2d_transform.0.{part}"
    return table


def build(case: Case) -> DPGN:
    meta, dim = case.meta, case.inputs["point_node"].shape[-1]
    point, distance, distribution = (bool(on) for on in meta["ind"])
    own = DPGNSettings(
        embed=0, rescale=False, metric=False, generations=meta["G"],
        gap=meta["metric"], dropout=meta["dropout"], weighed_generations=meta["nl"],
        generation_weight=meta["generation_weight"], distribution_weight=meta["dist_loss_coeff"],
        distance_weight=meta["l2_ce_weight"], use_point=point, use_distance=distance, use_distribution=distribution,
        transposed_distance_loss=True,
    )  # fmt: skip
    head = DPGN(Inputs(streams={ONLY: (1, dim)}, way=meta["way"], shot=meta["shot"]), own).double()
    state = head.state_dict()
    state |= {ours: case.params[theirs].view_as(state[ours]) for ours, theirs in names(meta["G"]).items()}
    head.load_state_dict(state)
    return head


def run(head: DPGN, case: Case, graph: Nodes) -> list[Generation]:
    given = case.inputs
    assert torch.allclose(initial_edges(graph, case.meta["way"]), given["edge_init"])
    place = torch.eye(graph.supports, dtype=graph.x.dtype)
    return head.run(
        graph,
        middle=given["middle_node"],
        point=given["point_node"],
        distribution=given["dist_node"],
        edge=given["edge_init"],
        place=place,
    )


def outputs(case: Case) -> dict[str, Tensor]:
    x = case.inputs["point_node"]
    label = torch.cat([case.inputs["support_labels"], case.inputs["query_labels"]], 1)
    graph = Nodes(x, torch.ones(x.shape[:2], dtype=torch.bool), case.inputs["support_labels"].shape[1])
    s, way = graph.supports, case.meta["way"]
    given: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        head = build(case).train(mode == "train")
        after = run(head, case, graph)
        given |= {
            f"{mode}_point_sims": torch.stack([g.point for g in after]),
            f"{mode}_node_l2": torch.stack([g.distance for g in after]),
            f"{mode}_dist_sims": torch.stack([g.distribution for g in after]),
            f"{mode}_query_scores": class_sum(after[-1].point[:, s:, :s], way),
        }
    losses = head.objective(after, label, graph, way)
    given |= {"train_loss": losses.total, "train_gen_losses": torch.stack(list(losses.parts.values()))}
    losses.total.backward()
    table = names(case.meta["G"])
    gradient = {table[n]: p.grad for n, p in head.named_parameters() if n in table}
    for name in case.wanted("grad."):
        value = gradient[name]
        assert value is not None
        given[f"grad.{name}"] = value.view_as(case.expected[f"grad.{name}"])
    return given
