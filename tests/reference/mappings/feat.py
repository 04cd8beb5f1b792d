"""feat: logits of the episode and of the regulariser; instances are interleaved, index = k * way + class."""

from __future__ import annotations

import torch
from case import Case, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.metric.feat import FEAT, FEATSettings

NAMES = {
    "w_qs.weight": "query.weight",
    "w_ks.weight": "key.weight",
    "w_vs.weight": "value.weight",
    "fc.weight": "out.weight",
    "fc.bias": "out.bias",
    "layer_norm.weight": "norm.weight",
    "layer_norm.bias": "norm.bias",
}


def outputs(case: Case) -> dict[str, Tensor]:
    meta, x = case.meta, case.inputs["x"]
    way, shot = meta["way"], meta["shot"]
    held = way * shot
    support = x[:held].unflatten(0, (shot, way)).transpose(0, 1)
    label = case.inputs["query_labels"]
    episodes = one_task(support, x[held:], label)
    settings = FEATSettings(
        "euclidean" if meta["euc"] else "cosine",
        temperature=meta["T1"],
        contrast_temperature=meta["T2"],
        balance=meta["balance"],
        attention_dropout=0.0,
        dropout=0.0,
        rescale=False,
        start=False,
    )
    head = FEAT(Inputs(streams={"frame": (1, x.shape[-1])}), settings).double()
    head.load_state_dict({f"attention.{NAMES[k.partition('.')[2]]}": v for k, v in case.params.items()})
    evaluated = head.eval()(episodes)[0]
    head.train()
    losses = head.loss(episodes)
    contrast, _ = head.contrast(episodes)
    # Our instances are ordered class by class within the supports; the official ones shot by shot.
    order = torch.cat([torch.arange(held).view(way, shot).t().flatten(), torch.arange(held, len(x))])
    ours = dict(head.named_parameters())
    grads = {
        f"grad.{n}": torch.autograd.grad(
            losses.total, ours[f"attention.{NAMES[n.partition('.')[2]]}"], retain_graph=True
        )[0]
        for n in case.wanted("grad.")
    }
    return {
        "eval_logits": evaluated,
        "train_logits": head(episodes)[0],
        "train_logits_reg": contrast[0][order],
        "train_loss": losses.total,
        **grads,
    }
