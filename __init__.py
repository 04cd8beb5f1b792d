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
    from .commands.encoder_tune import encoder_tune
    from .episodes.protocol import Missing, Protocol
    from .extract.run import extract
    from .runs.estimator import FewShotClassifier
    from .runs.extent import Auto
    from .runs.job import Job, Place
    from .runs.run import episode_eval, run
    from .runs.spec import RunSpec
    from .studies.compare import compare
    from .studies.grid.sweep import sweep
    from .studies.missing_sweep import missing_sweep
    from .studies.report.make import report
    from .studies.seed_spread import seed_spread
    from .studies.tuning.tune import tune

_LAZY = {
    "Auto": "runs.extent",
    "Catalog": "cache.catalog",
    "FeatureBank": "cache.bank",
    "FewShotClassifier": "runs.estimator",
    "Job": "runs.job",
    "Missing": "episodes.protocol",
    "Place": "runs.job",
    "Protocol": "episodes.protocol",
    "RunSpec": "runs.spec",
    "compare": "studies.compare",
    "encoder_tune": "commands.encoder_tune",
    "episode_eval": "runs.run",
    "extract": "extract.run",
    "missing_sweep": "studies.missing_sweep",
    "report": "studies.report.make",
    "run": "runs.run",
    "seed_spread": "studies.seed_spread",
    "sweep": "studies.grid.sweep",
    "tune": "studies.tuning.tune",
}

__all__ = [
    "Auto",
    "Catalog",
    "FeatureBank",
    "FewShotClassifier",
    "Job",
    "Missing",
    "Place",
    "Protocol",
    "RunSpec",
    "__version__",
    "compare",
    "encoder_tune",
    "episode_eval",
    "extract",
    "missing_sweep",
    "report",
    "run",
    "seed_spread",
    "sweep",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
