"""`fsmm cache info`: what a cache holds, as data; commands/cache.py makes tables of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ..catalog import Catalog, LabelSet
from ..schema import (
    CLASS_SPLITS,
    StreamName,
    dataset_folder,
    list_datasets,
    list_streams,
    shard_paths,
)
from ..shard import read_shard


@dataclass
class LabelSetInfo:
    """per_class: min, median and max clips a class. splits: per class split the count of base, val, novel classes."""

    name: str
    classes: int
    multi: bool
    labelled: int
    unlabelled: int
    per_class: dict[str, float]
    splits: dict[str, dict[str, int]]


@dataclass
class StreamInfo:
    """present, absent: rows with and without features; missing: clips (or classes) that the stream lacks altogether.

    steps: the smallest and largest T of the rows present. bytes: on disk.
    """

    stream: str
    present: int
    absent: int
    missing: int
    dim: int
    dtype: str
    steps: list[int]
    shards: int
    bytes: int
    weights: str
    weights_sha256: str
    preprocessing: str
    sampling: str
    fsmm_version: str


@dataclass
class DatasetInfo:
    """failures: reason -> count. bytes: all files of the dataset."""

    dataset: str
    clips: int
    default_label_set: str
    attrs: dict[str, str]
    label_sets: list[LabelSetInfo] = field(default_factory=list)
    streams: list[StreamInfo] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    bytes: int = 0


@dataclass
class CacheInfo:
    """What a cache holds: its folder, its datasets, and the bytes of all their files."""

    cache: str
    datasets: list[DatasetInfo]
    bytes: int

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def info(cache: Path, dataset: str | None = None) -> CacheInfo:
    """What a cache, or one dataset of it, holds. An empty cache is no error.

    Raises CacheError for an unknown dataset and for files that cannot be read.
    """
    folders = [dataset_folder(cache, dataset)] if dataset else [cache / name for name in list_datasets(cache)]
    datasets = [_dataset(folder) for folder in folders]
    return CacheInfo(str(cache), datasets, sum(d.bytes for d in datasets))


def _dataset(folder: Path) -> DatasetInfo:
    catalog = Catalog.read(folder)
    return DatasetInfo(
        folder.name,
        len(catalog),
        catalog.default_label_set,
        catalog.attrs,
        [_label_set(name, labels) for name, labels in catalog.label_sets.items()],
        [_stream(folder, stream, catalog) for stream in list_streams(folder)],
        failures(folder),
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def _label_set(name: str, labels: LabelSet) -> LabelSetInfo:
    counts = labels.counts()
    labelled = int(labels.label.any(1).sum() if labels.multi else (labels.label >= 0).sum())
    return LabelSetInfo(
        name,
        len(labels.class_names),
        labels.multi,
        labelled,
        len(labels.label) - labelled,
        {"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())}
        if len(counts)
        else {},
        {
            split: {part: len(labels.class_split(part, split)) for part in CLASS_SPLITS}
            for split in sorted(labels.splits)
        },
    )


def _stream(folder: Path, stream: StreamName, catalog: Catalog) -> StreamInfo:
    paths = shard_paths(folder, stream)
    held: dict[str, bool] = {}
    lengths: list[np.ndarray] = []
    for path in paths:
        shard = read_shard(path, features=False, facts=False)
        for key, present in zip(shard.key, shard.present.tolist()):
            held[key] = present or held.get(key, False)
        lengths.append(np.diff(shard.offset)[shard.present])
    steps = np.concatenate(lengths)
    about = shard.provenance
    present = sum(held.values())
    expected = (
        {f"{name}/{c}" for name, labels in catalog.label_sets.items() for c in labels.class_names}
        if about.axis == "class"
        else set(catalog.clip_id)
    )
    return StreamInfo(
        str(stream),
        present,
        len(held) - present,
        len(expected - set(held)),
        about.dim,
        about.dtype,
        [int(steps.min()), int(steps.max())] if len(steps) else [],
        len(paths),
        sum(path.stat().st_size for path in paths),
        about.weights,
        about.weights_sha256,
        about.preprocessing,
        about.sampling,
        about.fsmm_version,
    )


def failures(folder: Path) -> dict[str, int]:
    """Counts of failures.jsonl by reason, the most frequent first; lines that are not JSON count as such."""
    path = folder / "failures.jsonl"
    counts: Counter[str] = Counter()
    if path.is_file():
        for line in path.read_text("utf-8", "replace").splitlines():
            try:
                entry = json.loads(line)
                counts[str(entry.get("reason", "no reason given"))] += 1
            except (ValueError, AttributeError):
                counts["(a line that cannot be read)"] += 1
    return dict(counts.most_common())
