"""relationnet: relation scores of the map network in evaluation and (as released) with batch statistics."""

from __future__ import annotations

from dataclasses import replace

import torch
from case import Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.metric.relation import Relation, RelationSettings


def outputs(case: Case) -> dict[str, Tensor]:
    support = (
        by_class(case.inputs["support"], case.inputs["support_labels"])
        if ("support_labels" in case.inputs)
        else case.inputs["support"].unflatten(0, (case.meta["way"], case.meta["shot"]))
    )
    query = case.inputs["query"]
    label = query_classes(case)
    side = query.shape[-1]
    episodes = one_task(support.flatten(2), query.flatten(1), label)
    settings = RelationSettings(
        side=side,
        hidden=case.params["fc1.bias"].shape[0],
        filters=case.params["layer1.0.bias"].shape[0],
        padding=1 if case.meta["var"] == "omniglot" else 0,
        start=False,
    )
    head = loaded(case, settings, query[0].numel()).eval()
    result = {"eval_relations": head(episodes)[0].sigmoid(), "eval_mse": head.loss(episodes).total}
    # The released scripts never leave training mode: statistics of the task at hand.
    head = loaded(case, replace(settings, batch_statistics=True), query[0].numel()).eval()
    loss = head.loss(episodes).total
    result |= {"train_relations": head(episodes)[0].sigmoid(), "train_mse": loss}
    ours = dict(head.named_parameters())
    for official in case.wanted("grad."):
        result[f"grad.{official}"] = torch.autograd.grad(loss, ours[_ours(official)], retain_graph=True)[0]
    return result


def loaded(case: Case, settings: RelationSettings, dim: int) -> Relation:
    """Our head with the official parameters."""
    head = Relation(Inputs(streams={"frame": (1, dim)}), settings).double()
    state = {_ours(k): v for k, v in case.params.items() if not k.endswith("num_batches_tracked")}
    head.load_state_dict(state)
    return head


def _ours(official: str) -> str:
    """layer2.1.running_mean -> judge.blocks.1.norm.running_mean; fc1 -> judge.hidden; fc2 -> judge.out."""
    first, _, rest = official.partition(".")
    if first.startswith("fc"):
        return f"judge.{'hidden' if first == 'fc1' else 'out'}.{rest}"
    part, _, name = rest.partition(".")
    return f"judge.blocks.{int(first.removeprefix('layer')) - 1}.{'conv' if part == '0' else 'norm'}.{name}"
