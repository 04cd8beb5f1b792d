"""R00Kie-Liu/TA2N: 7x7 feature maps in; supports class by class. 1x1 convolutions are linear maps here."""

from __future__ import annotations

import torch
from case import ONLY, Case, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.parts.losses import cross_entropy
from fsmm.heads.temporal.ta2n import TA2N, TA2NSettings

WEIGHT_ONLY = {
    "fuse.key": "keynet_multi",
    "fuse.query": "querynet_multi",
    "fuse.value": "valuenet_multi",
    "coordinate.key": "secondstage.keynet",
    "coordinate.query": "secondstage.querynet",
    "coordinate.value": "secondstage.valuenet",
}
LAYERS = {
    "localiser.first": "firststage.locnet.0",
    "localiser.second": "firststage.locnet.4",
    "theta.hidden": "firststage.locnet.10",
    "theta.out": "firststage.locnet.12",
    "spatial.first": "secondstage.mvnet.0",
    "spatial.second": "secondstage.mvnet.4",
    "spatial.hidden": "secondstage.mvnet.10",
    "spatial.out": "secondstage.mvnet.12",
    "norm": "protypicalNet.norm_layer",
}
NORMS = {
    "localiser.first_norm": "firststage.locnet.1",
    "localiser.second_norm": "firststage.locnet.5",
    "spatial.first_norm": "secondstage.mvnet.1",
    "spatial.second_norm": "secondstage.mvnet.5",
}


def names() -> dict[str, str]:
    """Our parameter or buffer -> the official one."""
    table = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in WEIGHT_ONLY.items()}
    for part in ("weight", "bias"):
        table |= {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in (LAYERS | NORMS).items()}
    for part in ("running_mean", "running_var", "num_batches_tracked"):
        table |= {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in NORMS.items()}
    return table | {"spatial.perturbation": "secondstage.perturb(non-state)"}


def clips(maps: Tensor) -> Tensor:
    """[n, C, T, H, W] -> [n, T, C*H*W]."""
    return maps.transpose(1, 2).flatten(2)


def outputs(case: Case) -> dict[str, Tensor]:
    meta = case.meta
    support = clips(case.inputs["support"]).unflatten(0, (meta["way"], -1))
    query = clips(case.inputs["query"])
    episodes = one_task(support, query, case.inputs["query_labels"].long())
    own = TA2NSettings(map=meta["H"], dropout=0.0, rescale=False, distance_norm=True)
    head = TA2N(Inputs(streams={ONLY: tuple(query.shape[1:])}, way=meta["way"]), own).double().eval()
    state = head.state_dict()
    head.load_state_dict({ours: case.params[theirs].view_as(state[ours]) for ours, theirs in names().items()})
    streams = episodes.support[ONLY], episodes.query[ONLY]
    pairs = head.aligned(*streams)
    logits = head.scores(*pairs)
    return {
        "pairs": torch.cat(list(pairs), -1)[0].transpose(-1, -2)[..., None, None],
        "theta_support": head.theta_of(streams[0]).flatten(0, 2),
        "theta_query": head.theta_of(streams[1])[0],
        "logits": logits[0],
        "logits_distnorm": head(episodes)[0],
        "loss": cross_entropy(logits, episodes.query_label),
    }
