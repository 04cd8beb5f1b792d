"""How many threads torch may use while a head is trained on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..heads.base import Head


@contextmanager
def training_cores(head: Head, device: torch.device) -> Iterator[None]:
    """Leave half of the cores free, but for heads of large operations; OMP_NUM_THREADS, where set, is obeyed.

    Torch's threads wait for one another at the end of every operation. On two cores of which one is busy elsewhere, a
    step takes twice as long with both asked for as with one (small operations were seen to take twenty times as long);
    on quiet cores it takes 0.5 to 0.7 of that. So heads that train for minutes on large operations ask for all.
    """
    wants_all = any(module.all_cores for module in head.modules() if isinstance(module, Head))
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ or wants_all:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)
