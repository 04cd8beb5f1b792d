"""Pickles of numpy arrays in plain containers are read without running any function that the pickle names.

Not even numpy's own reconstruction is run for a pickle: the few names that an array pickle refers to are bound to the
stand-ins below, which record their arguments; arrays are then built from checked shapes, types and bytes.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CacheError

# The kinds are bool, integers, floats, byte and text strings; none of them holds objects or code.
_KINDS = "biufSU"


class _Type:
    """The stand-in for numpy.dtype."""

    def __init__(self, code: object, *flags: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def resolve(self) -> np.dtype:
        if not isinstance(self.code, str):
            raise pickle.UnpicklingError("it describes an array type in an unknown way")
        found = np.dtype(self.code)
        if found.kind not in _KINDS:
            raise pickle.UnpicklingError(f"it holds an array of type {found}")
        return np.dtype(self.order + found.str[1:]) if self.order in "<>" else found


class _Array:
    """The stand-in for numpy.ndarray and for an instance of it."""

    def __init__(self, *ignored: object) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("it describes an array in an unknown way")
        _, shape, kind, fortran, data = state
        self.value = _build(data, kind, shape, "F" if fortran else "C")


def _build(data: object, kind: object, shape: object, order: object) -> np.ndarray:
    if isinstance(data, str):  # Protocols below 3 hold bytes as Latin-1 text.
        data = data.encode("latin-1")
    if (
        not isinstance(kind, _Type)
        or not isinstance(data, (bytes, bytearray))
        or not isinstance(shape, tuple)
    ):
        raise pickle.UnpicklingError("it describes an array in an unknown way")
    dtype = kind.resolve()
    whole = all(isinstance(size, int) and size >= 0 for size in shape)
    if not whole or order not in ("C", "F") or math.prod(shape) * dtype.itemsize != len(data):
        raise pickle.UnpicklingError("the size of an array does not match its data")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*ignored: object) -> _Array:
    return _Array()


def _frombuffer(data: object, kind: object, shape: object, order: object = "C", *axes: object) -> _Array:
    array = _Array()
    array.value = _build(data, kind, shape, order)
    return array


def _scalar(kind: object, data: object = b"") -> _Array:
    return _frombuffer(data, kind, ())


def _encode(text: object, codec: object = "utf-8") -> bytes:
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it asks for a text encoding other than Latin-1")
    return text.encode("latin-1")


def _bytes(data: object = b"", codec: object = "latin-1") -> bytes:
    """The stand-in for bytes and bytearray, which would make as many zeros as a pickle demands."""
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    return _encode(data, codec)


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
    # Python 3 renamed the module; pickles of protocols 0 to 2 keep the old name.
    **{(module, "bytes"): _bytes for module in ("builtins", "__builtin__")},
    **{(module, "bytearray"): _bytes for module in ("builtins", "__builtin__")},
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): frozenset for module in ("builtins", "__builtin__")},
    # numpy 2 renamed the module; pickles of both names are read.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def load_plain(path: Path) -> Any:
    """The content of a pickle of numpy arrays, numbers and text in dicts, lists, tuples and sets.

    Raises CacheError for a pickle of anything else, without having run any of it.
    """
    try:
        with path.open("rb") as file:
            return _plain(_Unpickler(file).load())
    except Exception as error:  # A hostile or damaged pickle makes the unpickler raise anything.
        raise CacheError(
            f"{path.name!r} is not a pickle of numpy arrays in plain containers ({error}); save the arrays with "
            "numpy.savez instead."
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without data")
        return value.value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_plain(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str, bytes, bytearray)):
        return value
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__.lstrip('_')}")
