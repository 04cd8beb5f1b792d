"""The reading of pickled numpy arrays, which runs nothing else that a pickle may request."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WeightsError

# numpy moved the module of this function between releases; an array gives the function under either name.
_RECONSTRUCT: Any = np.zeros(0).__reduce__()[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled (nested) dict of numpy arrays, flattened: ``{"a": {"b": x}}`` gives ``{"a/b": x}``.

    Only the reconstruction of numeric arrays is admitted. Raises WeightsError for any other content.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
        flat: dict[str, np.ndarray] = {}
        _flatten(content, "", flat)
    except Exception as error:  # A hostile or damaged pickle can raise anything.
        raise WeightsError(
            f"{path.name!r} is not a pickle of plain numpy arrays ({error}); it is not used: give a file "
            "from its source."
        ) from None
    return flat


def _flatten(content: Any, prefix: str, flat: dict[str, np.ndarray]) -> None:
    if isinstance(content, Mapping):
        for key, value in content.items():
            _flatten(value, f"{prefix}/{key}" if prefix else str(key), flat)
    elif isinstance(content, np.ndarray) and content.dtype.kind in "fiu":
        flat[prefix] = content
    else:
        raise ValueError(f"{prefix or 'the file'} holds a {type(content).__name__} that is no numeric array")
