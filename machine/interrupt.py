"""Ctrl-C on a command line: the first one interrupts, and no later one disturbs what then is cleared away."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

INTERRUPTED = 130  # The shell's exit code of a command that Ctrl-C ended.
_LAST = 3  # The Ctrl-C that ends the process, whatever it is doing.


class InterruptedOnce:
    """A context manager in which the first Ctrl-C raises KeyboardInterrupt and the second is ignored.

    The third ends the process at once, with exit code 130. After a block that was interrupted, or that called
    ``is_over``, Ctrl-C stays ignored, since the process is about to end and an interrupt of that prints a traceback.
    Nothing changes outside the main thread, and where Ctrl-C has another handler already (a shell lets programs in the
    background ignore it).
    """

    def __init__(self) -> None:
        self._count = 0
        self._before: Any = None
        self._over = False

    def is_over(self) -> None:
        """Ignore Ctrl-C from now on, because the process is about to end."""
        self._over = True

    def __enter__(self) -> InterruptedOnce:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self._before = signal.signal(signal.SIGINT, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN if self._count or self._over else self._before)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1 and not self._over:
            raise KeyboardInterrupt
        if self._count >= _LAST:
            os._exit(INTERRUPTED)
