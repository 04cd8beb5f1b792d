"""Pickles of numpy arrays in plain containers are read without running any function that the pickle names.

Not even numpy's own reconstruction is run for a pickle: the few names that an array pickle refers to are bound to the
stand-ins below, which record their arguments; arrays are then built from checked shapes, types and bytes.
"""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import CacheError
from ...machine.memory import limit_memory
from ...machine.orphans import end_with_parent
from ...machine.trees import container_parts, tree_size

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
        self.objects: object = (
            None  # what an array of objects holds: a list, or the one object of an array without axes
        )

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("it describes an array in an unknown way")
        _, shape, kind, fortran, data = state
        if isinstance(kind, _Type) and kind.code in ("O", "O8") and isinstance(data, list):
            if shape not in ((), (len(data),)) or (not shape and len(data) != 1):
                raise pickle.UnpicklingError("it holds an array of objects with several axes")
            self.objects = data if shape else data[0]
            return
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


def load_untrusted(path: Path) -> Any:
    """The content of a pickle (see ``load_plain``), once a process of its own has read it within bounds."""
    read_within_bounds([path])
    return load_plain(path)


def read_within_bounds(paths: Sequence[Path]) -> None:
    """Let a process of its own read pickles, one after another, and drop their content.

    A few bytes can make the unpickler itself hash, or allocate, without end.
    Raises CacheError for a pickle of anything else than plain content, and for one that needs more than its bounds.
    """
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        sizes = sum(path.stat().st_size for path in some)
        command = [sys.executable, "-m", "fsmm.cache.exchange.pickles", str(os.getpid()), *map(str, some)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_SECONDS + sizes / _BYTES_A_SECOND,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            path = _reached(some, error.stdout)
            raise _refused(path, "reading it does not come to an end") from None
        if done.returncode:
            reason = done.stdout.partition(_FAULT)[2].strip()
            raise _refused(
                _reached(some, done.stdout), reason or "reading it needs more memory than its size allows"
            )


def _reached(paths: Sequence[Path], printed: str | bytes | None) -> Path:
    """The pickle that the reading process had come to: it prints a line for each that it has read."""
    text = printed.decode("utf-8", "replace") if isinstance(printed, bytes) else printed or ""
    return paths[min(text.partition(_FAULT)[0].count(_READ), len(paths) - 1)]


_AT_ONCE = 64
_READ, _FAULT = "read\n", "fault: "


_SECONDS, _BYTES_A_SECOND = 15.0, 2e6
_SPARE_MEMORY = 1 << 30
# A pickle refers to a shared part in two bytes, so that these bounds allow some sharing of long rows.
_VALUES, _VALUES_A_BYTE = 100_000_000, 1000


def load_plain(path: Path) -> Any:
    """The content of a pickle of numpy arrays, numbers and text in dicts, lists, tuples and sets.

    Parts that the pickle shares are shared in the result. Raises CacheError for a pickle of anything else, without
    having run any of it, and for one whose shared parts stand for far more values than it has bytes.
    """
    try:
        return _load(path)
    except Exception as error:  # A hostile or damaged pickle makes the unpickler raise anything.
        raise _refused(path, _reason(error)) from None


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        if holds_objects(path):
            _pass_over_header(file)
        content = _Unpickler(file).load()
    size = tree_size(content, _plain_parts)
    if size > _VALUES + _VALUES_A_BYTE * path.stat().st_size:
        raise pickle.UnpicklingError("its shared parts stand for far more values than it has bytes")
    return _Plain()(content)


def holds_objects(path: Path) -> bool:
    """Whether a file is a npy file of Python objects, such as a dict that numpy.save was given: a pickle in effect."""
    try:
        with path.open("rb") as file:
            return file.read(len(_NPY)) == _NPY and _pass_over_header(file)
    except (OSError, ValueError):
        return False


_NPY = b"\x93NUMPY"


def _pass_over_header(file: IO[bytes]) -> bool:
    """Read the header of a npy file, and return whether it holds objects. Raises ValueError where there is none."""
    file.seek(0)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(file))
    if read is None:
        raise ValueError("it has an unknown version")
    return bool(read(file)[2].hasobject)


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "reading it needs more memory than its size allows"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _refused(path: Path, reason: str) -> CacheError:
    return CacheError(
        f"{path.name!r} is not a pickle of numpy arrays in plain containers ({reason}); save the arrays with "
        "numpy.savez instead."
    )


def _plain_parts(item: Any) -> Iterable[Any] | int:
    if isinstance(item, _Array) and item.objects is not None:
        return [item.objects]
    if isinstance(item, _Array):
        return 1 if item.value is None else item.value.size + 1
    return container_parts(item)


class _Plain:
    """The conversion of stand-ins to arrays; a shared container is converted once."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, _Array) and value.objects is not None:
            return self(value.objects)
        if isinstance(value, _Array):
            if value.value is None:
                raise pickle.UnpicklingError("an array without data")
            return value.value
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            if id(value) not in self._made:
                self._made[id(value)] = self._container(value)
            return self._made[id(value)]
        if value is None or isinstance(value, (bool, int, float, str, bytes, bytearray)):
            return value
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__.lstrip('_')}")

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        return type(value)(map(self, value))


def _main(parent: str, *paths: str) -> None:
    end_with_parent(int(parent))
    limit_memory(_SPARE_MEMORY + 8 * max(Path(path).stat().st_size for path in paths))
    for path in paths:
        try:
            _load(Path(path))
        except Exception as error:
            print(f"{_FAULT}{_reason(error)}")
            sys.exit(1)
        print(_READ, end="", flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
