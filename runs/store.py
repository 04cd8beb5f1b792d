"""A run on disk is a folder with config.json, metrics.json and episodes.npz."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FsmmError
from ..machine.files import whole_or_absent, write_json

CONFIG, METRICS, EPISODES = "config.json", "metrics.json", "episodes.npz"


def save_run(
    folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a run's folder; metrics.json is written last, so a folder that has it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).unlink(missing_ok=True)
    write_json(folder / CONFIG, config)
    values: dict[str, Any] = dict(arrays)
    with whole_or_absent(folder / EPISODES) as temporary, open(temporary, "wb") as file:
        np.savez(file, **values)
    write_json(folder / METRICS, metrics)


def load_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """The configuration, metrics and arrays of a run. Raises FsmmError where the folder is not a complete run."""
    try:
        config = json.loads((folder / CONFIG).read_text())
        metrics = json.loads((folder / METRICS).read_text())
        with np.load(folder / EPISODES, allow_pickle=False) as file:
            return config, metrics, {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError) as error:
        raise FsmmError(
            f"{str(folder)!r} is not a complete run ({error}); run `fsmm episode-eval --out` again."
        ) from None
