"""bdcspn: prototypes before and after rectification, scores of the unshifted queries (as in easyfsl)."""

from __future__ import annotations

import torch
from case import Case, by_class, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.parts.task import encoded_task
from fsmm.heads.transductive.bdcspn import BDCSPN, BDCSPNSettings


def outputs(case: Case) -> dict[str, Tensor]:
    support, query = case.inputs["support"], case.inputs["query"]
    power = case.meta["feature_normalization"]
    if power not in (None, 2.0):
        # Another norm than the head's own: scale the features first, as the official feature step does.
        support, query = (torch.nn.functional.normalize(x, p=power, dim=-1) for x in (support, query))
    episodes = one_task(by_class(support, case.inputs["support_labels"]), query)
    settings = BDCSPNSettings("l2n" if power == 2.0 else "un", scale=1.0, score_shifted=False)
    head = BDCSPN(Inputs(streams={"frame": (1, query.shape[-1])}), settings)
    task = encoded_task(episodes, head.encode)
    return {
        "prototypes_before": task.means()[0],
        "prototypes_after": head.rectified(task, head.shift(task))[0],
        "scores": head(episodes)[0],
    }
