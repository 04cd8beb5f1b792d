"""arn: second-order matrices, relation scores and their squared error; networks and matrices in double precision."""

from __future__ import annotations

import torch
from case import Case, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.temporal.arn import ARN, ARNSettings


def outputs(case: Case) -> dict[str, Tensor]:
    meta = case.meta
    support = case.inputs["support_maps"].transpose(1, 2).unflatten(0, (meta["way"], meta["shot"]))
    query = case.inputs["query_maps"].transpose(1, 2)
    label = query_classes(case)
    episodes = one_task(support, query, label)
    steps, channels = query.shape[1:]
    settings = ARNSettings(
        channels=channels,
        filters=case.params["layer1.0.bias"].shape[0],
        hidden=case.params["fc1.bias"].shape[0],
        sigma=meta["sigma"],
        project=False,
        attention=False,
        start=False,
    )
    head = ARN(Inputs(streams={"frame": (steps, channels)}), settings).double().eval()
    head.load_state_dict(
        {_ours(k): v for k, v in case.params.items() if not k.endswith("num_batches_tracked")}
    )
    loss = head.loss(episodes).total
    ours = dict(head.named_parameters())
    grads = {
        f"grad.{n}": torch.autograd.grad(loss, ours[_ours(n)], retain_graph=True)[0]
        for n in case.wanted("grad.")
    }
    (s,), (q,) = episodes.support.values(), episodes.query.values()
    return {
        "so_support": head.second_order(s)[0, 0, :1][None],
        "so_query": head.second_order(q)[0, :1][None],
        "relations": head(episodes)[0].sigmoid(),
        "mse_loss": loss,
        **grads,
    }


def _ours(official: str) -> str:
    """layer2.1.running_mean -> similarity.blocks.1.norm.running_mean; fc1 -> similarity.hidden, fc2 -> .out."""
    first, _, rest = official.partition(".")
    if first.startswith("fc"):
        return f"similarity.{'hidden' if first == 'fc1' else 'out'}.{rest}"
    part, _, name = rest.partition(".")
    return (
        f"similarity.blocks.{int(first.removeprefix('layer')) - 1}.{'conv' if part == '0' else 'norm'}.{name}"
    )
