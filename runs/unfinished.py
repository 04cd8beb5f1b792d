"""A run that fails on its way, because the disk is full for instance, leaves no half of a run's folder behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .layout import CONFIG, EPISODES, METRICS


@contextmanager
def no_half_run(folder: Path) -> Iterator[None]:
    """Remove the files of an incomplete run, and the folders that are then empty, where the block raises an error.

    What was learned stays: a kept head, and the state of a training, from which the same command goes on.
    """
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except Exception:
        with suppress(OSError):
            if not (folder / METRICS).exists():
                for name in (CONFIG, EPISODES):
                    (folder / name).unlink(missing_ok=True)
        for place in [*_below(folder), folder, *absent]:
            with suppress(OSError):  # It is not empty, or was never made.
                place.rmdir()
        raise


def _below(folder: Path) -> list[Path]:
    """The folders below a folder, the deepest first."""
    return [Path(here) for here, _, _ in os.walk(folder, topdown=False) if Path(here) != folder]
