"""em_dirichlet_*: parameters, shares and assignments after some rounds, and decisions; soft or hard, by the stem."""

from __future__ import annotations

from itertools import pairwise

import torch
from case import Case, by_class, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.parts.naming import cluster_names
from fsmm.heads.transductive.em_dirichlet import EMDirichlet, EMDirichletSettings


def outputs(case: Case) -> dict[str, Tensor]:
    meta, query = case.meta, case.inputs["query"]
    ways, few = query.shape[-1], "support" in case.inputs
    settings = EMDirichletSettings(
        assignment="hard" if case.stem.startswith("hard") else "soft",
        effective=meta["k_eff"] if few else 5,
        iterations=meta["iter"],
        search="bound",
        steps=meta["iter_mm"],
    )
    head = EMDirichlet(Inputs(streams={"frame": (1, ways)}, word_dim=ways), settings)
    support = query.new_empty(ways, 0, ways)
    if few:
        support = by_class(case.inputs["support"], case.inputs["support_labels"])
    present = torch.ones(1, *support.shape[:2], dtype=torch.bool)
    asked = torch.ones(1, len(query), dtype=torch.bool)

    rounds = list(head.rounds(support.flatten(0, 1)[None], present, query[None], asked))
    kept = [rounds[number] for number in meta["recorded_iterations"]]
    cluster = kept[-1].u.argmax(-1)
    decided = cluster[0]
    found = {
        "alpha": torch.cat([state.alpha for state in kept]),
        "v": torch.cat([state.v for state in kept]),
        "u": torch.cat([state.u for state in kept]),
        "prediction": decided,
    }
    if not few:
        for way, matching in (("graph", True), ("basic", False)):
            name = cluster_names(cluster, query[None], asked, matching=matching)
            found[f"matched_{way}"] = name[0, cluster[0]]
        decided = found["matched_graph"]
    if "criterion" in case.expected:
        alphas = [torch.ones_like(rounds[0].alpha), *(state.alpha for state in rounds)]
        found["criterion"] = torch.stack([(b - a).norm() / a.norm() for a, b in pairwise(alphas)])
    return found | {"accuracy": (decided == query_classes(case)).double().mean()[None]}
