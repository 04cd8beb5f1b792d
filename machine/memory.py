"""Memory: what one operation frees stays with the process for the next one, and how much was held at most."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
_KEEP, _LARGE = 1 << 30, 256 << 20  # bytes


@cache
def keep_freed_memory() -> bool:
    """Ask the C library to hold on to freed memory; once a process. Whether it agreed.

    Layers and training steps make and free the same temporaries again and again. By default glibc returns those of some
    megabytes to the system, which hands them out again page by page, each page zeroed: nearly half of the time of a
    convolutional encoder on a CPU, up to a quarter of a training step of heads that compare many pairs. Obeys
    MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_, where set.
    """
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP, _LARGE)) and bool(mallopt(_TRIM, _KEEP))


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process or one of its workers has held (on CUDA: that torch has allocated), in MB."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return used / 2**20 if sys.platform == "darwin" else used / 2**10
