"""Ctrl-C and SIGTERM during a run: the step at hand is finished and made safe, and the user learns how to go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ...errors import FsmmError
from ...machine.interrupt import INTERRUPTED

_LAST = 3  # The signal that ends the step at hand, too.


class Interrupted(FsmmError):
    """The run was stopped from outside; all that was done before is in the cache."""

    exit_code = INTERRUPTED


class StopOnSignal:
    """A callable that returns whether a signal requested a stop.

    The second signal changes nothing, so that an impatient user loses nothing either. The third raises
    KeyboardInterrupt, and signals act from then on as they did before. Outside the main thread, where signals cannot be
    caught, no stop is ever requested.
    """

    def __init__(self) -> None:
        self.asked = False
        self._count = 0
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
        self._count += 1
        if self._count >= _LAST:
            self._restore()
            raise KeyboardInterrupt

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
