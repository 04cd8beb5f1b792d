"""What one episode costs in arithmetic: the floating-point operations of its products, by torch's FlopCounterMode.

    python -m benchmarks.operations METHOD [METHOD ...]

The episode is that of benchmarks/heads.py. Where it costs many millions, one task fills a core by itself, and tasks
that are done together gain little; where it costs few, the calls of one task cost more than their arithmetic.
"""

from __future__ import annotations

import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from fsmm.episodes.gather import materialise
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of

from .episodes import CLASSES
from .heads import TASK, bank_for


def millions(method: str) -> float:
    """The millions of floating-point operations in the products of one episode; a product and a sum count as two."""
    bank = bank_for(method)
    torch.manual_seed(0)
    head = build_head(method, inputs_of(bank, base_classes=CLASSES))
    head.fit_base(bank)
    head.eval()
    (index,) = Sampler(bank, TASK).batches(0, 1, 1)
    episode = materialise(bank, index, TASK)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head(episode)
    return float(counter.get_total_flops()) / 1e6


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name:<20} {millions(name):10,.1f} million", flush=True)
