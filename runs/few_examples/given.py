"""What a user gave to a classifier: paths, arrays, or arrays by modality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import issparse

from ...errors import UsageError
from .examples import Examples
from .model_streams import with_all_modalities


class BadExamples(UsageError, ValueError):
    """Examples that a classifier cannot take, as the ValueError that scikit-learn expects."""


def are_paths(x: Any) -> bool:
    """Whether clips are given by their paths: a sequence of texts or paths."""
    is_row = isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.ndim == 1)
    return is_row and len(x) > 0 and isinstance(x[0], (str, Path))


def are_named(x: Any) -> bool:
    """Whether clips are given by modality; a sparse matrix may be a mapping, and is not meant."""
    return isinstance(x, (Mapping, Examples)) and not issparse(x)


def has_steps(x: Any) -> bool:
    """Whether clips are given as an array [n, T, D]."""
    return getattr(x, "ndim", None) == 3 or (isinstance(x, (list, tuple)) and np.ndim(x) == 3)


def like(given: Examples, fitted: Examples) -> Examples:
    """Clips with the modalities that a classifier was fitted on; a missing one is absent. Raises BadExamples."""
    widths = {name: stream.x.shape[2] for name, stream in fitted.streams.items()}
    for name, stream in given.streams.items():
        if name in widths and stream.x.shape[2] != widths[name]:
            raise BadExamples(
                f"The features of {name} have width {stream.x.shape[2]}; the classifier was fitted on {widths[name]}."
            )
    if not set(given.streams) & set(widths):
        raise BadExamples(
            f"The clips have {', '.join(given.streams)}; the classifier was fitted on {', '.join(widths)}."
        )
    return with_all_modalities(given.streams, widths, len(given))
