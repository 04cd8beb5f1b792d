"""How many threads torch may use while a head is trained on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def half_the_cores(device: torch.device) -> Iterator[None]:
    """Leave half of the cores free while many small operations run; OMP_NUM_THREADS, where set, is obeyed.

    Torch's threads wait for one another at the end of every operation. With all cores asked for and one of them busy
    elsewhere, training steps were seen to take twenty to fifty times as long.
    """
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)
