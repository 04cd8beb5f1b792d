"""No figure comes from logits that are not numbers: a head that diverges ends the run with a sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import FsmmError


def only_numbers(logits: Tensor) -> Tensor:
    """The same logits, of any shape. Raises FsmmError where one of them is not a number (NaN).

    An argmax takes NaN for the greatest, so that such a query would count as one of the class that it stands at.
    Infinite logits are decisions like others.
    """
    # The sum is a number unless something is not, or infinities of both signs meet; it costs less than to look at all.
    if bool(torch.isnan(logits.sum())) and bool(torch.isnan(logits).any()):
        raise FsmmError(
            "The head gave logits that are not numbers (NaN), so that there is no accuracy: what it fits in a task "
            "diverges. Leave its settings at their defaults, or lower a rate that it has among them (--set)."
        )
    return logits
