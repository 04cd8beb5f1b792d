"""simpleshot: Euclidean distances to class means under the three transforms."""

from __future__ import annotations

from case import Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.metric.simpleshot import SimpleShot, SimpleShotSettings
from fsmm.heads.parts.task import encoded_task


def outputs(case: Case) -> dict[str, Tensor]:
    support = by_class(case.inputs["support"], case.inputs["support_labels"])
    label = query_classes(case)
    episodes = one_task(support, case.inputs["query"], label)
    result = {}
    for transform in ("UN", "L2N", "CL2N"):
        head = SimpleShot(
            Inputs(streams={"frame": (1, support.shape[-1])}), SimpleShotSettings(transform.lower())
        ).double()
        head.mean.copy_(case.inputs["train_mean"])
        choice = head(episodes)[0].argmax(1)
        result[f"{transform}_distance"] = head.distances(encoded_task(episodes, head.encode))[0]
        result[f"{transform}_pred"] = case.inputs["support_labels"].unique()[choice]
        result[f"{transform}_acc"] = (choice == label).double().mean()
    return result
