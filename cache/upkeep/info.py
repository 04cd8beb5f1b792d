"""`fsmm cache info` describes the content of a cache as data, of which commands/cache.py makes tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ...machine.files import parsed_json
from ..catalog import Catalog, LabelSet
from ..schema import (
    CLASS_SPLITS,
    StreamName,
    dataset_folders,
    list_streams,
    shard_paths,
)
from ..shard import read_shard


@dataclass
class LabelSetInfo:
    """A summary of a label set."""

    name: str
    """The label set's name."""
    classes: int
    """The number of classes."""
    multi: bool
    """Whether labels are multi-hot."""
    labelled: int
    """The number of clips with a label."""
    unlabelled: int
    """The number of clips without a label."""
    per_class: dict[str, float]
    """The min, median and max number of clips of a class; empty without classes."""
    splits: dict[str, dict[str, int]]
    """The number of base, val and novel classes of each class split."""


@dataclass
class StreamInfo:
    """A summary of a stream."""

    stream: str
    """The stream's name."""
    present: int
    """The number of rows with features."""
    absent: int
    """The number of rows without features."""
    missing: int
    """The number of clips (or classes) that the stream has no row of."""
    dim: int
    """The width D of the features."""
    dtype: str
    """The type in which the features are stored."""
    steps: list[int]
    """The smallest and the largest T of the rows that are present; empty where none is."""
    shards: int
    """The number of shards."""
    bytes: int
    """The bytes of the shards on disk."""
    weights: str
    """The name of the weights (see Provenance)."""
    weights_sha256: str
    """The SHA-256 of the weights file."""
    preprocessing: str
    """How the input is prepared."""
    sampling: str
    """How the steps are sampled."""
    fsmm_version: str
    """The version of fsmm that made the last shard."""


@dataclass
class DatasetInfo:
    """A summary of a data set."""

    dataset: str
    """The name of the data set."""
    clips: int
    """The number of clips."""
    default_label_set: str
    """The name of the label set that is used when none is named."""
    attrs: dict[str, str]
    """Texts about the data set: title, licence and the like."""
    schema: int
    """The schema of the data set."""
    origins: list[str]
    """The data that the clips were listed from, where it is known."""
    gone: int
    """The number of clips that are listed no more and take no part in evaluations."""
    groups: int
    """The number of groups that clips name."""
    label_sets: list[LabelSetInfo] = field(default_factory=list)
    """The summaries of the label sets."""
    streams: list[StreamInfo] = field(default_factory=list)
    """The summaries of the streams."""
    failures: dict[str, int] = field(default_factory=dict)
    """The number of failures by reason."""
    bytes: int = 0
    """The bytes of all files of the data set."""


@dataclass
class CacheInfo:
    """A summary of a cache."""

    cache: str
    """The cache's folder."""
    datasets: list[DatasetInfo]
    """The summaries of the data sets."""
    bytes: int
    """The bytes of all files of the data sets."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def info(cache: Path, dataset: str | None = None) -> CacheInfo:
    """The summary of a cache, or of one data set of it. An empty cache is no error.

    Raises CacheError for an unknown data set and for files that cannot be read.
    """
    folders = dataset_folders(cache, dataset, may_be_empty=True)
    datasets = [_dataset(folder) for folder in folders]
    return CacheInfo(str(cache), datasets, sum(d.bytes for d in datasets))


def _dataset(folder: Path) -> DatasetInfo:
    catalog = Catalog.read(folder)
    return DatasetInfo(
        dataset=folder.name,
        clips=len(catalog),
        default_label_set=catalog.default_label_set,
        attrs=catalog.attrs,
        schema=catalog.schema,
        origins=[origin.text() for origin in catalog.sources.origins if origin.is_known],
        gone=int(catalog.sources.gone.sum()),
        groups=len(set(catalog.group) - {""}),
        label_sets=[_label_set(name, labels) for name, labels in catalog.label_sets.items()],
        streams=[_stream(folder, stream, catalog) for stream in list_streams(folder)],
        failures=failures(folder),
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def _label_set(name: str, labels: LabelSet) -> LabelSetInfo:
    counts = labels.counts()
    labelled = int(labels.label.any(1).sum() if labels.multi else (labels.label >= 0).sum())
    return LabelSetInfo(
        name=name,
        classes=len(labels.class_names),
        multi=labels.multi,
        labelled=labelled,
        unlabelled=len(labels.label) - labelled,
        per_class={"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())}
        if len(counts)
        else {},
        splits={
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
        stream=str(stream),
        present=present,
        absent=len(held) - present,
        missing=len(expected - set(held)),
        dim=about.dim,
        dtype=about.dtype,
        steps=[int(steps.min()), int(steps.max())] if len(steps) else [],
        shards=len(paths),
        bytes=sum(path.stat().st_size for path in paths),
        weights=about.weights,
        weights_sha256=about.weights_sha256,
        preprocessing=about.preprocessing,
        sampling=about.sampling,
        fsmm_version=about.fsmm_version,
    )


def failures(folder: Path) -> dict[str, int]:
    """The counts of failures.jsonl by reason, the most frequent first; lines that are not JSON are one reason."""
    path = folder / "failures.jsonl"
    counts: Counter[str] = Counter()
    if path.is_file():
        for line in path.read_text("utf-8", "replace").splitlines():
            try:
                entry = parsed_json(line)
                counts[str(entry.get("reason", "no reason given"))] += 1
            except (ValueError, AttributeError):
                counts["(a line that cannot be read)"] += 1
    return dict(counts.most_common())
