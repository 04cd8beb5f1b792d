"""What a run takes while it runs: the memory of all its processes, and the share of the time in which a GPU works."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType


class Watch:
    """A context manager that looks at this process, its children and the first GPU a few times a second.

    peak_mb: the most memory of all processes together (the sum of their resident sets). gpu_busy: the shares of the
    time in which a kernel ran, sample by sample, in percent.
    """

    def __init__(self, every: float = 0.25) -> None:
        self.every = every
        self.peak_mb = 0.0
        self.gpu_busy: list[float] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._gpu: subprocess.Popen[str] | None = None

    def __enter__(self) -> Watch:
        if (tool := shutil.which("nvidia-smi")) is not None:
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "250", "-i", "0"]
            self._gpu = subprocess.Popen([tool, *query], stdout=subprocess.PIPE, text=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if self._gpu is not None:
            self._gpu.terminate()
            for line in self._gpu.communicate()[0].splitlines():
                with contextlib.suppress(ValueError):
                    self.gpu_busy.append(float(line))

    def steady_gpu_busy(self) -> float | None:
        """The mean share from the first sample in which the GPU worked half of the time to the last one, in percent."""
        working = [i for i, share in enumerate(self.gpu_busy) if share >= 50]
        if not working:
            return None
        inside = self.gpu_busy[working[0] : working[-1] + 1]
        return sum(inside) / len(inside)

    def _look(self) -> None:
        while not self._end.wait(self.every):
            self.peak_mb = max(self.peak_mb, sum(map(_resident_mb, processes_below(os.getpid()))))


def processes_below(top: int) -> list[int]:
    """A process and all that descend from it; the process alone where the system does not tell."""
    children: dict[int, list[int]] = defaultdict(list)
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            children[int(place.read_text().rpartition(")")[2].split()[1])].append(int(place.parent.name))
    found = [top]
    for number in found:
        found += children[number]
    return found


def _resident_mb(process: int) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0
