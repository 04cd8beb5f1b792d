"""CLAP: prototypes held to class words by fixed multipliers."""

from __future__ import annotations

from case import Case
from clap_case import path
from torch import Tensor


def outputs(case: Case) -> dict[str, Tensor]:
    return path(case, "l2")
