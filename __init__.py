"""fsmm: few-shot learning on multimodal video.

Stage 1 turns clips into cached features once; stage 2 trains and evaluates every method over those tensors.
The names below load on first use, so that ``import fsmm`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .cache.bank import FeatureBank
    from .cache.catalog import Catalog
    from .episodes.protocol import Protocol
    from .extract.run import extract
    from .runs.run import episode_eval

_LAZY = {
    "Catalog": "cache.catalog",
    "FeatureBank": "cache.bank",
    "Protocol": "episodes.protocol",
    "episode_eval": "runs.run",
    "extract": "extract.run",
}

__all__ = ["Catalog", "FeatureBank", "Protocol", "__version__", "episode_eval", "extract"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
