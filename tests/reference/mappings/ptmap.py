"""ptmap: probabilities of the first and the last transport; samples are interleaved, index = k * way + class."""

from __future__ import annotations

import torch
from case import Case, tasks
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.parts.task import encoded_task
from fsmm.heads.transductive.ptmap import PTMAP, PTMAPSettings


def outputs(case: Case) -> dict[str, Tensor]:
    meta, raw, label = case.meta, case.inputs["raw"], case.inputs["labels"]
    held = meta["way"] * meta["shot"]
    # Each run's supports sorted by class: [R, N, K, D]
    order = torch.argsort(label[:, :held], dim=1, stable=True)
    support = torch.gather(raw[:, :held], 1, order[..., None].expand(-1, -1, raw.shape[-1]))
    episodes = tasks(support.unflatten(1, (meta["way"], meta["shot"])), raw[:, held:], label[:, held:])
    settings = PTMAPSettings(
        beta=meta["beta"],
        sharpness=float(meta["lam"]),
        rate=meta["alpha"],
        iterations=meta["epochs"],
        tolerance=meta["sinkhorn_eps"],
        stop="batch",
    )
    head = PTMAP(Inputs(streams={"frame": (1, raw.shape[-1])}), settings)
    task = head.centred(encoded_task(episodes, head.encode))
    final, centre = head.adapt(task)
    logits = head(episodes)
    return {
        "probs_initial": head.shares(task, task.means()),
        "probs_final": final,
        "pairwise_centroid_dist": torch.cdist(centre, centre),
        "acc": (logits.argmax(-1) == label[:, held:]).double().mean(),
    }
