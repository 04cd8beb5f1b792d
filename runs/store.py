"""A run on disk is a folder with config.json, metrics.json and episodes.npz, and a list of their digests.

The list, SHA256SUMS, is written last. It shows damage, and that all files are of one run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..episodes.protocol import Protocol
from ..errors import CacheError, FsmmError
from ..machine.digests import SUMS, changed_files, file_sha256, sums_text
from ..machine.files import parsed_json, refuse_special, whole_or_absent, write_json
from ..machine.forms import fault_of
from ..machine.locks import turn_at
from .form import Configuration, Figures, arrays_fault
from .layout import CHECKPOINT, CONFIG, EPISODES, FILES, METRICS


def save_run(
    folder: Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    keep: Callable[[], None] | None = None,
) -> None:
    """Write a run's folder; of several processes that write the same one, the last wins as a whole.

    The files are written aside and take their places when all are whole, so that the folder's former run stays where
    they cannot be written. keep: writes the head of the run into the folder, where the folder is of a trained head.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with turn_at(folder):
        _sweep(folder)
        _take_places(folder)
        if keep is not None:
            keep()
        try:
            with whole_or_absent(folder / _WRITTEN) as aside:
                _write(aside, config, metrics, arrays)
                kept = {} if keep is None else {CHECKPOINT: file_sha256(folder / CHECKPOINT)}
                digests = {name: file_sha256(aside / name) for name in FILES}
                (aside / SUMS).write_text(sums_text({**digests, **kept}), "utf-8")
        except OSError as error:
            error.filename = str(folder)  # The folder of a moment tells the reader nothing.
            raise
        _take_places(folder)


def _write(
    folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write the files of a run into a new folder."""
    folder.mkdir()
    write_json(folder / CONFIG, config)
    values: dict[str, Any] = dict(arrays)
    with open(folder / EPISODES, "wb") as file:
        np.savez(file, **values)
    write_json(folder / METRICS, metrics)


_WRITTEN = ".written"
"""The folder, in a run's folder, of the whole files of a run that are about to take their places."""


def settle(folder: Path) -> None:
    """Let the files of a run take their places where a writer was killed while they did."""
    if (folder / _WRITTEN).is_dir():
        with (
            suppress(OSError),
            turn_at(folder),
        ):  # On a disk that is only read, the digests tell of the mixture.
            _take_places(folder)


def _take_places(folder: Path) -> None:
    """Move the whole files of a run to their places, if there are any; the list of digests comes last."""
    written = folder / _WRITTEN
    if not written.is_dir():
        return
    for name in (*FILES, SUMS):
        with suppress(FileNotFoundError):  # It has its place already.
            os.replace(written / name, folder / name)
    written.rmdir()


def _sweep(folder: Path) -> None:
    """Delete what killed writers have left behind in a run's folder."""
    for left in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_ALONE:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


_LEFT_ALONE = 3600.0  # seconds; no writer of a run's file takes that long.


def check_writable(folder: Path) -> None:
    """Raise CacheError, which names --out, where a run's folder cannot be made or written.

    Nothing is left behind by the check, so that it can come before a long training.
    """
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise CacheError(
            f"The run's folder {str(folder)!r} cannot be written ({error.strerror or error}); name a folder of yours "
            "with --out."
        ) from None


def load_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """The configuration, metrics and arrays of a run.

    Raises FsmmError where the folder is not a complete run, or its files are not as they were written. The files of a
    run without SHA256SUMS, which older releases made, are read as they are.
    """
    settle(folder)
    try:
        with turn_at(folder, shared=True):
            config, metrics = _texts(folder)
            arrays = _arrays(folder / EPISODES)
    except _UNREADABLE as error:
        raise _incomplete(folder, error) from None
    return config, metrics, arrays


def load_texts(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration and metrics of a run, after the digests of all its files. Raises FsmmError as load_run does."""
    settle(folder)
    try:
        with turn_at(folder, shared=True):
            return _texts(folder)
    except _UNREADABLE as error:
        raise _incomplete(folder, error) from None


# What a file may raise that is damaged, torn, or none of ours.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def _texts(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration and metrics of a run. Raises FsmmError, OSError or ValueError where they are not as written."""
    for name in FILES:
        refuse_special(folder / name, "file of a run", error=FsmmError)
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
    if changed := changed_files(folder, FILES):
        raise FsmmError(
            f"The run {str(folder)!r} is not as it was written: {' and '.join(changed)} changed after it ended; "
            "run it again."
        )
    config, metrics = (_json(folder / name) for name in (CONFIG, METRICS))
    if not _is_config(config):
        raise ValueError(f"{CONFIG} holds no configuration")
    if not isinstance(metrics, dict) or not isinstance(metrics.get("accuracy"), (int, float)):
        raise ValueError(f"{METRICS} holds no accuracy")
    for name, values, form in ((CONFIG, config, Configuration), (METRICS, metrics, Figures)):
        if fault := fault_of(values, form):
            raise ValueError(f"{name} is not as fsmm writes it: {fault}")
    return config, metrics


def _json(path: Path) -> Any:
    """The value of a JSON file. Raises OSError where it cannot be read, and ValueError, which names it, else."""
    try:
        return parsed_json(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file with the figure of each episode. Raises one of _UNREADABLE where it is none."""
    found = np.load(path, allow_pickle=False)
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise ValueError(f"{path.name} is no npz file")
    with found as file:
        arrays = {name: np.asarray(file[name]) for name in file.files}
    if "accuracy" not in arrays:
        raise ValueError(f"{path.name} holds no figures of episodes")
    if fault := arrays_fault(arrays):
        raise ValueError(f"{path.name} is not as fsmm writes it: {fault}")
    return arrays


def _is_config(values: Any) -> bool:
    """Whether a value is a table with a method, a data set and a protocol."""
    if not isinstance(values, dict) or not isinstance(values.get("protocol"), dict):
        return False
    try:
        Protocol.from_dict(values["protocol"])
    except (FsmmError, TypeError, ValueError, AttributeError):
        return False
    return all(isinstance(values.get(key), str) for key in ("method", "dataset"))


def _incomplete(folder: Path, why: object) -> FsmmError:
    return FsmmError(f"{str(folder)!r} is not a complete run ({why}); run `fsmm episode-eval --out` again.")
