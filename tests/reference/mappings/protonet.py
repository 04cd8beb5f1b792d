"""protonet: squared distances to class means below a linear encoder (bias-free in the official case)."""

from __future__ import annotations

import torch
from case import Case, one_task
from torch import Tensor
from torch.nn import functional as F

from fsmm.heads.head import Inputs
from fsmm.heads.metric.protonet import ProtoNet, ProtoNetSettings


def outputs(case: Case) -> dict[str, Tensor]:
    support, query = case.inputs["support"], case.inputs["query"]
    weight = case.params["encoder.weight"]
    head = ProtoNet(
        Inputs(streams={"frame": (1, support.shape[-1])}), ProtoNetSettings(embed=weight.shape[0])
    ).double()
    assert head.encoder is not None
    with torch.no_grad():
        head.encoder.weight.copy_(weight)
        head.encoder.bias.copy_(case.params.get("encoder.bias", torch.zeros(weight.shape[0])))
    label = torch.arange(query.shape[0]).repeat_interleave(query.shape[1])
    episodes = one_task(support, query.flatten(0, 1), label)
    logits = head(episodes)[0]
    loss = head.loss(episodes).total
    names = dict(head.named_parameters())
    grads = {
        f"grad.{n}": torch.autograd.grad(loss, names[n], retain_graph=True)[0] for n in case.wanted("grad.")
    }
    right = (logits.argmax(1) == label).double().mean()
    return {"sqdist": -logits, "log_p": F.log_softmax(logits, 1), "loss": loss, "acc": right, **grads}
