"""laplacianshot: affinity, unary, assignments and energies for every knn, with and without rectification."""

from __future__ import annotations

import torch
from case import Case, by_class, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.parts.task import encoded_task
from fsmm.heads.transductive.laplacianshot import LaplacianShot, LaplacianShotSettings


def outputs(case: Case) -> dict[str, Tensor]:
    support = by_class(case.inputs["support"], case.inputs["support_labels"])
    episodes = one_task(support, case.inputs["query"])
    result = {}
    knn = case.meta["knn"]
    for name, rectify in (("plain", False), ("rect", True)):
        for neighbours in knn if isinstance(knn, list) else [knn]:
            settings = LaplacianShotSettings(
                transform=str(case.meta.get("norm", "CL2N")).lower(),
                weight=case.meta["lmd"],
                knn=neighbours,
                rectify=rectify,
                empty="drop",
                iterations=case.meta["max_iter"],
            )
            head = LaplacianShot(Inputs(streams={"frame": (1, support.shape[-1])}), settings).double()
            head.mean.copy_(case.inputs["train_mean"])
            task = encoded_task(episodes, head.encode)
            unary, neighbour, weight = head.problem(task)
            assignment, energy = head.bound_updates(unary, neighbour, weight, task.query_present)
            queries = unary.shape[1]
            affinity = torch.zeros(1, queries, queries, dtype=unary.dtype).scatter(-1, neighbour, weight)
            made = {
                "W": affinity[0],
                "unary": unary[0],
                "Y": assignment[0],
                "energy": energy[:, 0][~energy[:, 0].isnan()],
                "pred": case.inputs["support_labels"].unique()[head(episodes)[0].argmax(1)],
            }
            result |= {f"{name}_knn{neighbours}_{key}": value for key, value in made.items()}
    return result
