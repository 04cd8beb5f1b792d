"""A run on disk: a folder with config.json, metrics.json and episodes.npz."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FsmmError
from .train import write_json

CONFIG, METRICS, EPISODES = "config.json", "metrics.json", "episodes.npz"


def digest(values: Mapping[str, Any]) -> str:
    """Ten hex digits that name a configuration."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:10]


def save_run(
    folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a run; metrics.json comes last, so a folder that has it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).unlink(missing_ok=True)
    write_json(folder / CONFIG, config)
    temporary = folder / f".{EPISODES}.tmp"
    values: dict[str, Any] = dict(arrays)
    with open(temporary, "wb") as file:
        np.savez(file, **values)
    os.replace(temporary, folder / EPISODES)
    write_json(folder / METRICS, metrics)


def load_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """(config, metrics, arrays). Raises FsmmError where the folder is not a complete run."""
    try:
        config = json.loads((folder / CONFIG).read_text())
        metrics = json.loads((folder / METRICS).read_text())
        with np.load(folder / EPISODES, allow_pickle=False) as file:
            return config, metrics, {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError) as error:
        raise FsmmError(
            f"{str(folder)!r} is not a complete run ({error}); run `fsmm episode-eval --out` again."
        ) from None
