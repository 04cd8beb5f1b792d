"""timgd: as alphatim, with Shannon's entropies and the cross-entropy's weight as the case gives it."""

from __future__ import annotations

from case import Case, tim_outputs
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.transductive.tim import TIM, TIMSettings


def outputs(case: Case) -> dict[str, Tensor]:
    def head(iterations: int) -> TIM:
        support_weight, marginal_weight, conditional_weight = case.meta["loss_weights"]
        settings = TIMSettings(
            solver="gd",
            iterations=iterations,
            rate=case.meta["lr"],
            temperature=float(case.meta["temp"]),
            support_weight=support_weight,
            marginal_weight=marginal_weight,
            conditional_weight=conditional_weight,
        )
        return TIM(Inputs(streams={"frame": (1, case.inputs["query"].shape[-1])}), settings)

    return tim_outputs(case, head)
