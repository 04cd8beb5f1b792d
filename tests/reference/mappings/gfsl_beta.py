"""Calibrated probabilities as in the code of AV-DIFF: the bias of the best harmonic mean, none, and a given one."""

from __future__ import annotations

import torch
from beta_case import Calibrated
from case import Case
from torch import Tensor


def outputs(case: Case) -> dict[str, Tensor]:
    given = case.inputs
    test = Calibrated(given["probability"], given["labels"], given["seen"], given["unseen"])
    grids = {
        "": torch.linspace(0, 1, 11, dtype=torch.float64),
        "base_": torch.zeros(1, dtype=torch.float64),
        "fixed_": torch.tensor([case.meta["fixed_beta"]], dtype=torch.float64),
    }
    found: dict[str, Tensor] = {}
    for name, betas in grids.items():
        beta, (seen, unseen, harmonic) = test.best(betas)
        found |= {
            f"{name}seen": seen,
            f"{name}unseen": unseen,
            f"{name}hm": harmonic,
            f"{name}zsl": test.unseen_alone(),
            f"{name}beta": torch.tensor(beta),
        }
    return found
