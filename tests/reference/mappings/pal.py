"""pal: logits, loss and gradients with the official multi-head attention's weights (stacked query, key, value)."""

from __future__ import annotations

import torch
from case import Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.metric.pal import PAL, PALSettings


def outputs(case: Case) -> dict[str, Tensor]:
    given = {k: case.inputs[k].clone().requires_grad_() for k in ("support", "query")}
    support = by_class(given["support"], case.inputs["support_labels"])
    label = query_classes(case)
    episodes = one_task(support, given["query"], label)
    settings = PALSettings(scale=1.0, epsilon=case.meta["cos_eps"], rescale=False, start=False)
    head = PAL(Inputs(streams={"frame": (support.shape[2], support.shape[3])}), settings).double()
    ours = dict(head.named_parameters())
    with torch.no_grad():
        for official, value in case.params.items():
            for name, part in zip(_ours(official), value.chunk(len(_ours(official)))):
                ours[name].copy_(part)
    loss = head.loss(episodes).total
    grads = {}
    for name in case.wanted("grad."):
        wanted = [given[name]] if name in given else [ours[n] for n in _ours(name)]
        grads[f"grad.{name}"] = torch.cat(torch.autograd.grad(loss, wanted, retain_graph=True))
    return {"logits": head(episodes)[0], "loss": loss, **grads}


def _ours(official: str) -> list[str]:
    """mha.in_proj_weight -> the weights of query, key and value; mha.out_proj.bias -> out.bias."""
    kind = "weight" if official.endswith("weight") else "bias"
    return [f"{part}.{kind}" for part in (("out",) if "out_proj" in official else ("query", "key", "value"))]
