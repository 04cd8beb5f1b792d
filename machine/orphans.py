"""Helper processes that end with the process that needs them, however that one ends (a kill gives no chance to act)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PERIOD = 1.0  # the seconds between two looks at the parent, where the system does not tell


def end_with_parent(parent: int) -> None:
    """Let this process end as soon as its parent, the process with that id, is gone.

    On Linux the system sends SIGKILL when the thread of the parent ends that started this process; elsewhere a thread
    of this process looks for the parent once a second.
    """
    if _is_told_by_the_system():
        if os.getppid() != parent:  # It was gone before the system was asked.
            os._exit(1)
        return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _is_told_by_the_system() -> bool:
    if sys.platform != "linux":
        return False
    try:
        return int(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))) == 0
    except (OSError, AttributeError):  # Another C library may have no such call.
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PERIOD)
    os._exit(1)
