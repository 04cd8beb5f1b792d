"""alphatim: the weights after every step of Adam, final logits and probabilities, Shannon's entropies on the way."""

from __future__ import annotations

from case import Case, tim_outputs
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.transductive.alpha_tim import AlphaTIM, AlphaTIMSettings


def outputs(case: Case) -> dict[str, Tensor]:
    def head(iterations: int) -> AlphaTIM:
        meta = case.meta
        support, marginal, conditional = meta["alpha_values"]
        support_weight, marginal_weight, conditional_weight = meta["loss_weights"]
        settings = AlphaTIMSettings(
            alpha_support=support,
            alpha_marginal=marginal,
            alpha_conditional=conditional,
            cross_entropy="shannon" if meta["entropies"][0] == "Shannon" else "alpha-released",
            iterations=iterations,
            rate=meta["lr"],
            temperature=float(meta["temp"]),
            support_weight=support_weight,
            marginal_weight=marginal_weight,
            conditional_weight=conditional_weight,
        )
        return AlphaTIM(Inputs(streams={"frame": (1, case.inputs["query"].shape[-1])}), settings)

    return tim_outputs(case, head)
