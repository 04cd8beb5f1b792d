"""Calibrated stacking as in the code of ClipClap: the bias of the best harmonic mean, and a given one."""

from __future__ import annotations

import math

import torch
from beta_case import Calibrated
from case import Case
from torch import Tensor


def outputs(case: Case) -> dict[str, Tensor]:
    given = case.inputs
    distance = torch.cdist(given["embedding"], given["class_embedding"])
    test = Calibrated(-distance, given["labels"], given["seen"], given["unseen"])
    found: dict[str, Tensor] = {}
    for name, betas in (
        ("", torch.linspace(0, 5, 76, dtype=torch.float64)),
        ("fixed_", torch.tensor([case.meta["fixed_beta"]], dtype=torch.float64)),
    ):
        beta, (seen, unseen, harmonic) = test.best(betas)
        found |= {
            f"{name}seen": seen,
            f"{name}unseen": unseen,
            f"{name}hm": harmonic,
            f"{name}recall": test.recall(math.inf),
            f"{name}zsl": test.unseen_alone(),
            f"{name}beta": torch.tensor(beta),
        }
    return found
