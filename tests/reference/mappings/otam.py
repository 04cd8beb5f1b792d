"""tobyperrett/few-shot-action-recognition: both directions summed, the cosine with its additive constant."""

from __future__ import annotations

import torch
from case import ONLY, Case, by_class, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.temporal.otam import OTAM, OTAMSettings


def outputs(case: Case) -> dict[str, Tensor]:
    support, query = case.inputs["support"].requires_grad_(), case.inputs["query"]
    label = case.inputs["support_labels"]
    episodes = one_task(by_class(support, label), query, case.inputs["query_labels"].long())
    own = OTAMSettings(gamma=case.meta["lbda"], epsilon=case.meta["cos_eps"], direction="both")
    head = OTAM(Inputs(streams={ONLY: tuple(query.shape[1:])}), own).double()
    logits, losses = head(episodes)[0], head.loss(episodes)
    losses.total.backward()
    # supports back in the file's order
    place = torch.argsort(torch.argsort(label, stable=True))
    streams = episodes.support[ONLY], episodes.query[ONLY]
    frames = head.frame_distances(*streams)[:, :, 0].permute(2, 3, 0, 1)[:, place]
    along_support, along_query = (d[0][:, place] for d in head.path_costs(*streams))
    given = {
        "logits": logits, "loss": losses.total, "frame_dists": frames, "cum_q2s": along_support,
        "cum_s2q": along_query,
    }  # fmt: skip
    assert support.grad is not None
    return given | {"grad.support": support.grad}
