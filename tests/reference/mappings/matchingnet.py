"""matchingnet: attention probabilities, loss and gradients, with and without full context embeddings."""

from __future__ import annotations

import torch
from case import Case, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.metric.matching import FullContextMatching, FullContextSettings, Matching, MatchingSettings


def outputs(case: Case) -> dict[str, Tensor]:
    meta = case.meta
    x = case.inputs["x"].clone().requires_grad_()
    held = meta["way"] * meta["shot"]
    label = case.inputs["query_labels"]
    episodes = one_task(x[:held].unflatten(0, (meta["way"], meta["shot"])), x[held:], label)
    inputs = Inputs(streams={"frame": (1, x.shape[-1])})
    if meta["fce"]:
        settings = FullContextSettings(
            meta["distance"],
            scale=1.0,
            width=0,
            unrolling=meta["unrolling_steps"],
            order="given",
            start=False,
        )
        head: FullContextMatching | Matching = FullContextMatching(inputs, settings).double()
    else:
        head = Matching(inputs, MatchingSettings(meta["distance"]))
    ours = dict(head.named_parameters())
    names = {official: ours[_ours(official)] for official in case.params}
    with torch.no_grad():
        for official, parameter in names.items():
            parameter.copy_(case.params[official])
    logits = head(episodes)[0]
    loss = head.loss(episodes).total
    grads = {
        f"grad.{n}": torch.autograd.grad(loss, x if n == "x" else names[n], retain_graph=True)[0]
        for n in case.wanted("grad.")
    }
    return {"y_pred": logits.exp(), "loss": loss, **grads}


def _ours(official: str) -> str:
    """g.* is the bidirectional LSTM of the supports, f.* the attention LSTM of the queries."""
    kind = official.rpartition(".")[2]
    if official.startswith("f."):
        return f"reader.{kind}"
    if kind.endswith("_reverse"):
        return f"context.back.{kind.removesuffix('_reverse')}"
    return f"context.ahead.{kind}"
