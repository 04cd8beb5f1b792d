"""Stage 1: clips to features in the cache.

``fsmm.extract(...)`` runs an extraction: :func:`fsmm.extract.run.extract`. As this package bears the function's
name, and importing any module of it makes Python put the package in the function's place, the package itself
can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See :func:`fsmm.extract.run.extract`."""
        from .run import extract

        return extract(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
