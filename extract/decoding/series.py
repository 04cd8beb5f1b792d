"""Time series of a clip, such as those of an inertial sensor: read from a file and cut into windows.

A file is read without running anything in it: numbers of a CSV or text file, an array of a .npy file, or a variable of
a MATLAB file up to version 7, whose shape is looked at before its numbers are read.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DecodeError
from ...machine.files import refuse_special
from ..datasets.base import Series, Span

ENDINGS = (".csv", ".txt", ".tsv", ".npy", ".mat")
_MOST = 1 << 28
"""The most numbers that a series may have; 2 GiB as they are read."""
_TIMES = {"time", "times", "timestamp", "timestamps", "seconds", "t", "sec", "s"}
_TEXT_BYTES = 1 << 30


@dataclass(frozen=True)
class Windows:
    """The windows float32 [T, W, C] of a series, and the second of the middle of each, float64 [T]."""

    values: np.ndarray
    middles: np.ndarray


def windows_of(series: Series, *, window: float, hop: float, span: Span | None = None) -> Windows:
    """The windows [T, W, C] of a series of C axes, ``window`` seconds long and ``hop`` seconds apart.

    Steps after the last whole window are left out; a series shorter than a window is one window. span: the part of the
    series that is wanted. Raises DecodeError, with the file, where it cannot be read.
    """
    x, rate = read_series(series)
    if span is not None:
        x = x[round(span.start * rate) : None if span.end == math.inf else round(span.end * rate)]
    if not len(x):
        raise DecodeError(f"{series.path.name!r} holds no step of the clip.")
    step = max(round(hop * rate), 1)
    values = cut(x, max(round(window * rate), 2), step)
    return Windows(values, (np.arange(len(values)) * step + values.shape[1] / 2) / rate)


def cut(x: np.ndarray, length: int, step: int) -> np.ndarray:
    """The windows float32 [T, length, C] of steps [n, C], ``step`` apart; one of all steps where there are fewer.

    >>> cut(np.arange(7.0)[:, None], 4, 2)[..., 0].tolist()
    [[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]]
    """
    if len(x) <= length:
        return np.ascontiguousarray(x[None], np.float32)
    views = np.lib.stride_tricks.sliding_window_view(x, length, axis=0)[::step]
    return np.ascontiguousarray(views.swapaxes(1, 2), np.float32)


def read_series(series: Series) -> tuple[np.ndarray, float]:
    """The steps float64 [n, C] of a series, and the steps a second.

    A variable or array of three axes has time as its last one, as skeletons do ([joints, coordinates, time]). Raises
    DecodeError where the file cannot be read, holds a number that is not finite, or says nothing of time.
    """
    rate = series.rate
    try:
        refuse_special(series.path, "series", error=DecodeError)
        ending = series.path.suffix.lower()
        if ending == ".mat":
            x = _matlab(series.path, series.variable)
        elif ending == ".npy":
            x = _numpy(series.path)
        else:
            x, rate = _text(series.path, series.rate)
    except DecodeError:
        raise
    except Exception as error:  # Readers of damaged files raise anything.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DecodeError(f"{series.path.name!r} cannot be read as a time series ({reason}).") from None
    if x.ndim == 3 and series.grid is not None:
        x = block_means(x, series.grid)
    elif x.ndim == 3:
        x = x.transpose(2, 0, 1).reshape(x.shape[2], -1)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or not x.size or x.dtype.kind not in "biuf":
        raise DecodeError(f"{series.path.name!r} holds no numbers of the form [steps, axes].")
    if not np.isfinite(x).all():
        raise DecodeError(f"{series.path.name!r} holds numbers that are not finite.")
    if not rate > 0:
        raise DecodeError(
            f"{series.path.name!r} says no times of its steps; add a column 'time' in seconds, or give --rate."
        )
    return x.astype(np.float64), rate


def block_means(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The means float64 [n, rows * columns] over equal blocks of maps [height, width, n].

    >>> block_means(np.arange(8.0).reshape(2, 4, 1), (1, 2)).tolist()
    [[2.5, 4.5]]
    """
    rows, columns = (np.array_split(np.arange(size), parts) for size, parts in zip(maps.shape, grid))
    blocks = [maps[np.ix_(row, column)].mean((0, 1), dtype=np.float64) for row in rows for column in columns]
    return np.stack(blocks, 1)


def _matlab(path: Path, variable: str) -> np.ndarray:
    from scipy.io import loadmat, whosmat

    held = {name: shape for name, shape, _ in whosmat(str(path))}
    name = variable or next(iter(held), "")
    if name not in held:
        raise DecodeError(f"{path.name!r} has no variable {name!r}; it has {', '.join(held) or 'none'}.")
    if math.prod(held[name]) > _MOST:
        raise DecodeError(
            f"{path.name!r} declares {math.prod(held[name]):,} numbers, which are too many for a series."
        )
    return np.asarray(loadmat(str(path), variable_names=[name])[name])


def _numpy(path: Path) -> np.ndarray:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if mapped.size > _MOST:
        raise DecodeError(f"{path.name!r} holds {mapped.size:,} numbers, which are too many for a series.")
    return np.array(mapped)


def _text(path: Path, rate: float) -> tuple[np.ndarray, float]:
    """The numbers of a text file without its column of times, and the steps a second by these times, or ``rate``."""
    if path.stat().st_size > _TEXT_BYTES:
        raise DecodeError(f"{path.name!r} is too large for a series.")
    text = path.read_bytes().decode("utf-8-sig", "replace")
    first = text[: text.find("\n")] if "\n" in text else text
    mark = next((mark for mark in (",", ";", "\t") if mark in first), " ")
    cells = [row for row in csv.reader(io.StringIO(text), delimiter=mark, skipinitialspace=True) if any(row)]
    if not cells:
        raise DecodeError(f"{path.name!r} is empty.")
    header = [] if _are_numbers(cells[0]) else [name.strip().lower() for name in cells[0]]
    rows = [[float(cell) for cell in row if cell.strip()] for row in cells[bool(header) :]]
    if len({len(row) for row in rows}) != 1:
        raise DecodeError(f"The rows of {path.name!r} have different numbers of columns, or there is none.")
    x = np.array(rows)
    at = next((i for i, name in enumerate(header) if name in _TIMES), None)
    if at is None:
        return x, rate
    times = np.diff(x[:, at])
    if not len(times) or not (times > 0).all():
        raise DecodeError(f"The times of {path.name!r} do not ascend.")
    return np.delete(x, at, 1), float(1 / np.median(times))


def _are_numbers(cells: list[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells if cell.strip()])
    except ValueError:
        return False
