"""dirichlet_counts: whole numbers of queries from proportions of classes; ours are largest remainders."""

from __future__ import annotations

import numpy as np
import torch
from case import Case
from torch import Tensor

from fsmm.episodes.dirichlet import largest_remainders


def outputs(case: Case) -> dict[str, Tensor]:
    share = case.inputs["probability"].numpy() * case.meta["total"]
    total = np.full((len(share), 1), case.meta["total"])
    return {"counts": torch.from_numpy(largest_remainders(share, total))}
