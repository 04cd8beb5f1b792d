"""The plans of POT's sinkhorn_unbalanced (entropy regulariser) and sinkhorn, both converged."""

from __future__ import annotations

from case import ONLY, Case, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.parts.unit_steps import step_cosines
from fsmm.heads.temporal.uot import UOT, UOTSettings


def outputs(case: Case) -> dict[str, Tensor]:
    task = one_task(case.inputs["support"][:, None], case.inputs["query"])
    inputs = Inputs(streams={ONLY: tuple(case.inputs["query"].shape[1:])})
    given: dict[str, Tensor] = {}
    for name, penalty in (("unbalanced", float(case.meta["rho"])), ("balanced", float("inf"))):
        own = UOTSettings(softness=float(case.meta["eps"]), penalty=penalty, iterations=5000)
        head = UOT(inputs, own)
        support, query = head.encode(task.support[ONLY]), head.encode(task.query[ONLY])
        cost = 1 - step_cosines(support, query)
        plan = head.plan(cost, query.valid[:, :, None, None], support.valid[:, None])[0, :, :, 0]
        given["cost"] = cost[0, :, :, 0]
        given[f"plan_{name}"] = plan
        given[f"distance_{name}"] = (plan * given["cost"]).sum((-1, -2))
        given[f"mass_{name}"] = plan.sum((-1, -2))
    return given
