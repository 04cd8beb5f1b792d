"""The number of cores of the machine, and the share of them that torch may use while others work beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def default_workers() -> int:
    """The default number of workers: one for each core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def half_of_the_cores(*, of: int | None = None, unless: bool = False) -> Iterator[None]:
    """Limit torch to half of the cores inside the block; OMP_NUM_THREADS, where set, is obeyed instead.

    Torch's threads wait for one another at the end of every operation, so a core that is busy elsewhere holds up all of
    them. Measured on two cores: beside decoding workers a network took three to six times as long with two threads as
    with one; a training step took twice as long beside one busy core, and 0.5 to 0.7 of the time on quiet cores.
    of: the number of cores that is halved; None takes the number that torch uses now.
    unless: set no limit, because the block runs on a GPU or needs every core.
    """
    if unless or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (of or before) // 2)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
