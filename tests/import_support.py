"""A data set made of small arrays, its mapping, and imports of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from fsmm.cache.catalog import Catalog
from fsmm.cache.exchange.importing import ImportReport, import_features
from fsmm.cache.schema import StreamName, shard_paths
from fsmm.cache.shard import read_shard

N = 30
NAMES = ["ApplyLipstick", "Church bell", "horse_riding", "Violin, fiddle", "bus", "cat"]
WORDS = ["apply", "lipstick", "church", "bell", "horse", "riding", "violin", "fiddle", "bus", "cat"]


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    length = rng.integers(1, 6, N)
    length[4] = 0
    many = rng.integers(0, 2, (N, 3))
    return {
        "vid": np.array([f"v{i // 2}" if i < 4 else f"v{i}" for i in range(N)]),
        "frames": rng.normal(size=(N, 5, 7)).astype(np.float16),
        "sound": rng.integers(0, 256, (N, 4)).astype(np.uint8),
        "length": length,
        "has_sound": np.arange(N) % 3 > 0,
        "label": (np.arange(N) % 6).astype(np.int16),
        "names": np.array(NAMES),
        "many": many,
        "bad": np.arange(N) == 10,
        "part": np.where(np.arange(N) < 20, "train", "test"),
        "words": np.array(WORDS),
        "vec": rng.normal(size=(len(WORDS), 9)).astype(np.float32),
    }


MAPPING: dict[str, Any] = {
    "dataset": "made",
    "source": "made.npz",
    "ids": "vid",
    "repeated_ids": "suffix",
    "drop": "bad",
    "clip_split": "part",
    "attrs": {"title": "made up"},
    "arrays": {
        "frames": {"stream": "frame/net", "length": "length"},
        "sound": {
            "stream": "audio/ear",
            "scale": 0.5,
            "offset": -1,
            "dtype": "float32",
            "present": "has_sound",
        },
    },
    "label_sets": {
        "kind": {
            "label": "label",
            "class_names": "names",
            "splits": {
                "drawn": {"seed": 3, "base": 2, "val": 1, "novel": 3},
                "told": {"base": NAMES[:3], "novel": NAMES[3:]},
                "default": "told",
            },
        },
        "many": {"label": "many", "class_names": ["p", "q", "r"]},
    },
    "default_label_set": "kind",
}
MAPPING["words"] = {"word/vec": {"words": "words", "vectors": "vec"}}
del MAPPING["label_sets"]["many"]


def save(folder: Path, mapping: dict[str, Any], data: dict[str, np.ndarray] | None = None) -> Path:
    np.savez_compressed(folder / "made.npz", **(arrays() if data is None else data))
    path = folder / "mapping.json"
    path.write_text(json.dumps(mapping))
    return path


def run(folder: Path, mapping: dict[str, Any], data: dict[str, np.ndarray] | None = None) -> ImportReport:
    return import_features(save(folder, mapping, data), folder / "cache")


def changed(**paths: Any) -> dict[str, Any]:
    """The mapping with some keys, dots for depth, set (or removed by None)."""
    mapping = copy.deepcopy(MAPPING)
    for path, value in paths.items():
        *outer, last = path.split("__")
        table = mapping
        for key in outer:
            table = table.setdefault(key, {})
        if value is None:
            del table[last]
        else:
            table[last] = value
    return mapping


def rows(cache: Path, stream: str) -> dict[str, np.ndarray | None]:
    found: dict[str, np.ndarray | None] = {}
    for path in shard_paths(cache / "made", StreamName.parse(stream)):
        shard = read_shard(path)
        found |= {key: shard.clip(i) if shard.present[i] else None for i, key in enumerate(shard.key)}
    return found


def import_with(folder: Path, **mapping: Any) -> Catalog:
    (folder / "m.json").write_text(json.dumps({"dataset": "made", **mapping}))
    import_features(folder / "m.json", folder / "cache")
    return Catalog.read(folder / "cache" / "made")
