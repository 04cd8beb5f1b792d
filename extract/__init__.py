"""Stage 1 turns clips into features in the cache.

``fsmm.extract(...)`` runs an extraction: :func:`fsmm.extract.run.extract`. This package bears the function's
name, and importing any module of it makes Python put the package in the function's place; the package itself
can therefore be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run :func:`fsmm.extract.run.extract` with these arguments."""
        from .run import extract

        return extract(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
