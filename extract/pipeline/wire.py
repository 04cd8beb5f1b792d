"""Exchange of values between this process and its workers, over pipes.

A value is pickled with its arrays left out; these follow as raw bytes and are read straight into place, so a
clip's pictures are copied once on either side. With a pipe of 1 MiB this moved 4 GB/s where shared memory,
which must map and fill fresh pages for every clip, moved 1 GB/s; and it needs no /dev/shm, which containers
keep small. Both ends are ours: nothing from outside is ever unpickled.
"""

from __future__ import annotations

import pickle
import struct
from io import FileIO
from typing import Any

import numpy as np

try:
    import fcntl
except ImportError:  # This platform has no pipe sizes.
    _SET_SIZE = None
else:
    _SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)

_PIPE_BYTES = 1 << 20


def widen(pipe: FileIO) -> None:
    """Let the pipe hold 1 MiB where the system allows it; the default makes ten times as many hand-overs."""
    if _SET_SIZE is not None:
        try:
            fcntl.fcntl(pipe.fileno(), _SET_SIZE, _PIPE_BYTES)
        except OSError:
            return  # The user's allowance of pipe memory is used up: the pipe is slower, not wrong.


def send(pipe: FileIO, value: Any) -> None:
    """Write one value. Raises BrokenPipeError if the other end is gone."""
    arrays: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    parts = [memoryview(head), *(array.raw() for array in arrays)]
    _write(pipe, memoryview(struct.pack(f"<I{len(parts)}Q", len(parts), *(part.nbytes for part in parts))))
    for part in parts:
        _write(pipe, part)


def receive(pipe: FileIO) -> Any:
    """Read one value. Raises EOFError if the other end is gone, also in the middle of a value."""
    (count,) = struct.unpack("<I", _read(pipe, 4))
    sizes = struct.unpack(f"<{count}Q", _read(pipe, 8 * count))
    head, *arrays = [_read(pipe, size) for size in sizes]
    return pickle.loads(head, buffers=arrays)


def _write(pipe: FileIO, data: memoryview) -> None:
    while data.nbytes:
        data = data[pipe.write(data) or 0 :]


def _read(pipe: FileIO, size: int) -> memoryview:
    whole = np.empty(size, np.uint8).data
    rest = whole
    while rest.nbytes:
        count = pipe.readinto(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return whole
