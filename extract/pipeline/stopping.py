"""Ctrl-C and SIGTERM during a run: the step at hand is finished and made safe, and the user learns how to go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ...errors import FsmmError


class Interrupted(FsmmError):
    """The run was stopped from outside; all that was done before is in the cache."""

    exit_code = 130


class StopOnSignal:
    """A callable that returns whether a signal requested a stop. The second signal acts at once, as without it.

    Outside the main thread, where signals cannot be caught, it always returns False.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
