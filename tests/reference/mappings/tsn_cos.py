"""tsn_cos: cosine (+0.01 below) of time-averaged features to every support, averaged over a class's supports."""

from __future__ import annotations

import torch
from case import Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.metric.protonet import ProtoNet, ProtoNetSettings


def outputs(case: Case) -> dict[str, Tensor]:
    settings = ProtoNetSettings("cosine", scale=1.0, per_support=True, epsilon=case.meta["cos_eps"])
    return prototype_outputs(case, settings)


def prototype_outputs(case: Case, settings: ProtoNetSettings) -> dict[str, Tensor]:
    """Logits, loss and gradients with respect to the inputs, of a ProtoNet without weights."""
    given = {k: case.inputs[k].clone().requires_grad_() for k in ("support", "query")}
    support = by_class(given["support"], case.inputs["support_labels"])
    label = query_classes(case)
    episodes = one_task(support, given["query"], label)
    head = ProtoNet(Inputs(streams={"frame": (support.shape[2], support.shape[3])}), settings)
    loss = head.loss(episodes).total
    grads = {
        f"grad.{n}": torch.autograd.grad(loss, given[n], retain_graph=True)[0] for n in case.wanted("grad.")
    }
    return {"logits": head(episodes)[0], "loss": loss, **grads}
