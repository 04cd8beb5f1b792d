"""tsn_euclid: minus the squared distance of time-averaged features to class means."""

from __future__ import annotations

import torch
from case import Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.metric.protonet import ProtoNet, ProtoNetSettings


def outputs(case: Case) -> dict[str, Tensor]:
    given = {k: case.inputs[k].clone().requires_grad_() for k in ("support", "query")}
    support = by_class(given["support"], case.inputs["support_labels"])
    label = query_classes(case)
    episodes = one_task(support, given["query"], label)
    head = ProtoNet(Inputs(streams={"frame": (support.shape[2], support.shape[3])}), ProtoNetSettings())
    loss = head.loss(episodes).total
    grads = {
        f"grad.{n}": torch.autograd.grad(loss, given[n], retain_graph=True)[0] for n in case.wanted("grad.")
    }
    return {"logits": head(episodes)[0], "loss": loss, **grads}
