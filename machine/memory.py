"""Keeping the memory that one operation frees for the next one, and measuring the most memory that was held."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The numbers are M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3).
_TRIM, _MMAP = -1, -3
# The values of the two thresholds are in bytes.
_KEEP, _LARGE = 1 << 30, 256 << 20
# What torch and its libraries say where memory does not suffice; cuDNN's is that no way of computing fits.
_WANT = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "unable to find an engine",
    "unable to find a valid cudnn",
)


@cache
def keep_freed_memory() -> bool:
    """Ask the C library, once in a process, to keep freed memory, and return whether it agreed.

    Layers and training steps make and free the same temporaries again and again. By default glibc returns those of some
    megabytes to the system, which hands them out again page by page, each page zeroed. This takes nearly half of the
    time of a convolutional encoder on a CPU, and up to a quarter of a training step of heads that compare many pairs.
    Nothing is asked where MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_ is set.
    """
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # Another C library has no mallopt.
        return False
    return bool(mallopt(_MMAP, _LARGE)) and bool(mallopt(_TRIM, _KEEP))


def limit_memory(extra: int) -> None:
    """Let this process take at most ``extra`` bytes more than it has now; what would need more fails with MemoryError.

    Nothing is limited where the platform has no such limits.
    """
    with contextlib.suppress(OSError, ValueError):
        # The memory that the libraries have reserved by now varies with the number of cores.
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + extra, in_use + extra))


def is_want_of_memory(error: Exception) -> bool:
    """Whether an error says that memory, of the machine or of a GPU, did not suffice; torch's is a RuntimeError.

    >>> is_want_of_memory(MemoryError()), is_want_of_memory(RuntimeError("CUDA out of memory."))
    (True, True)
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _WANT)


def free_memory() -> int | None:
    """The bytes that processes may still take, by the system and by the limit of this container; None if unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
        found.append(int(text.split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(min(found), 0) if found else None


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process or one of its workers has held (on CUDA, that torch has allocated), in MB."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return max(map(_most_mb, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def own_peak_mb() -> float:
    """The most memory that this process has held, in MB."""
    return _most_mb(resource.RUSAGE_SELF)


def _most_mb(who: int) -> float:
    used = resource.getrusage(who).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10
