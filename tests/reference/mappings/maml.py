"""learn2learn's MAML over a linear (weight, bias) or one-hidden-layer (0.*, 2.*) network, both orders."""

from __future__ import annotations

import torch
from case import ONLY, Case, by_class, one_task
from torch import Tensor

from fsmm.heads.adaptation.maml import MAML, MAMLSettings
from fsmm.heads.head import Inputs


def names(case: Case) -> dict[str, str]:
    """Our parameter -> the official one."""
    theirs = {"first": "0.", "last": "2."} if case.meta["hid"] else {"last": ""}
    return {f"{ours}.{part}": prefix + part for ours, prefix in theirs.items() for part in ("weight", "bias")}


def build(case: Case, first_order: bool) -> MAML:
    meta = case.meta
    own = MAMLSettings(hidden=meta["hid"], rate=meta["lr"], train_steps=meta["steps"], test_steps=meta["steps"],
                       first_order=first_order, level=0.0, zero_head=False)  # fmt: skip
    head = MAML(Inputs(streams={ONLY: (1, case.inputs["support"].shape[-1])}, way=meta["way"]), own).double()
    state = {ours: case.params[theirs] for ours, theirs in names(case).items()}
    head.load_state_dict(state | {"factor": torch.ones(())})
    return head


def outputs(case: Case) -> dict[str, Tensor]:
    support = by_class(case.inputs["support"], case.inputs["support_labels"])
    episodes = one_task(support, case.inputs["query"], case.inputs["query_labels"])
    given: dict[str, Tensor] = {}
    for order in ("so", "fo"):
        head = build(case, order == "fo").train()
        loss = head.loss(episodes).total
        loss.backward()
        for ours, theirs in names(case).items():
            value = head.get_parameter(ours).grad
            assert value is not None
            given[f"grad.{order}.{theirs}"] = value
        given |= {"query_logits": head(episodes)[0], "query_loss": loss}
    return given
