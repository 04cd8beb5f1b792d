"""`fsmm cache show` describes a data set class by class and clip by clip, as data of which the command makes tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bank import word_key
from ..catalog import Catalog, LabelSet
from ..schema import CLASS_SPLITS, StreamName, dataset_folder, list_streams
from ..stream import stream_keys


@dataclass
class ClassContents:
    """One class of a label set."""

    name: str
    """The name of the class."""
    split: str
    """Its part of the class split: base, val, novel, or "" for none."""
    clips: int
    """The number of its clips, without those that are gone."""
    with_modality: dict[str, int]
    """The number of its clips that have features of each modality."""
    word_streams: list[str]
    """The word streams that name the class."""


@dataclass
class ClipContents:
    """One clip."""

    id: str
    """The id of the clip."""
    labels: list[str]
    """The names of its classes; none for a clip without a label."""
    splits: list[str]
    """The parts of the class split that its classes belong to."""
    clip_split: str
    """The data set's own split of the clip, "" for none."""
    modalities: list[str]
    """The modalities of which the clip has features."""
    group: str
    """The group that the clip shares with others (a source video, a person), "" where none is known."""
    gone: bool
    """Whether the clip is listed no more, and so takes part in no evaluation."""


@dataclass
class Contents:
    """The classes and clips of a data set under one label set and one of its class splits."""

    dataset: str
    """The name of the data set."""
    label_set: str
    """The label set."""
    label_sets: list[str]
    """The names of all label sets."""
    class_split: str
    """The class split, "" where the label set has none."""
    split_origin: str
    """Where the class split comes from, in words; "" where it is not known."""
    origins: list[str]
    """The data that the clips were listed from, as far as it is known."""
    classes: list[ClassContents]
    """The classes: base, val, novel and those in no split, each in the order of the label set."""
    combinations: dict[str, int]
    """The number of clips, without those gone, with each combination of modalities, such as "frame+audio"."""
    clips: list[ClipContents]
    """The clips, in the order of the catalog."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def contents(
    cache: Path, dataset: str | None = None, label_set: str | None = None, class_split: str | None = None
) -> Contents:
    """The classes and clips of a data set; the default label set and class split are taken where None is given.

    Raises CacheError for a cache that cannot be read, UsageError for an unknown name.
    """
    folder = dataset_folder(cache, dataset)
    catalog = Catalog.read(folder)
    name = label_set or catalog.default_label_set
    labels = catalog.labels(name)
    chosen = class_split or ("default" if "default" in labels.splits else "")
    streams = list_streams(folder)
    present = _present(folder, catalog, [stream for stream in streams if stream.modality != "word"])
    words = {stream: stream_keys(folder, stream) for stream in streams if stream.modality == "word"}
    part_of = _parts(labels, chosen)
    members, gone = _members(labels), catalog.sources.gone
    held = members & ~gone[:, None]
    order = sorted(range(len(labels.class_names)), key=lambda c: (*CLASS_SPLITS, "").index(part_of[c]))
    classes = [
        ClassContents(
            name=labels.class_names[c],
            split=part_of[c],
            clips=int(held[:, c].sum()),
            with_modality={modality: int(mask[held[:, c]].sum()) for modality, mask in present.items()},
            word_streams=[
                str(s) for s, keys in words.items() if keys.get(word_key(name, labels.class_names[c]))
            ],
        )
        for c in order
    ]
    clips = [
        _clip(catalog, row, np.flatnonzero(members[row]), labels=labels, part_of=part_of, present=present)
        for row in range(len(catalog))
    ]
    return Contents(
        dataset=folder.name,
        label_set=name,
        label_sets=list(catalog.label_sets),
        class_split=chosen,
        split_origin=labels.origin_of(chosen),
        origins=[origin.text() for origin in catalog.sources.origins if origin.is_known],
        classes=classes,
        combinations=dict(
            Counter("+".join(clip.modalities) for clip in clips if not clip.gone).most_common()
        ),
        clips=clips,
    )


def _clip(
    catalog: Catalog,
    row: int,
    held: np.ndarray,
    *,
    labels: LabelSet,
    part_of: list[str],
    present: dict[str, np.ndarray],
) -> ClipContents:
    """The clip at a row of the catalog, whose classes are ``held``."""
    return ClipContents(
        id=catalog.clip_id[row],
        labels=[labels.class_names[c] for c in held],
        splits=list(dict.fromkeys(part_of[c] for c in held if part_of[c])),
        clip_split=catalog.clip_split[row],
        modalities=[modality for modality, mask in present.items() if mask[row]],
        group=catalog.group[row],
        gone=bool(catalog.sources.gone[row]),
    )


def _members(labels: LabelSet) -> np.ndarray:
    """Whether each clip is of each class, bool [n, C]."""
    if labels.multi:
        return labels.label.astype(bool)
    return np.asarray(labels.label[:, None] == np.arange(len(labels.class_names)))


def _parts(labels: LabelSet, class_split: str) -> list[str]:
    """The part of the class split that each class belongs to, "" for none."""
    parts = [""] * len(labels.class_names)
    for part in CLASS_SPLITS if class_split else ():
        for c in labels.class_split(part, class_split):
            parts[c] = part
    return parts


def _present(folder: Path, catalog: Catalog, streams: list[StreamName]) -> dict[str, np.ndarray]:
    """Whether each clip has features in any stream of a modality, bool [n] by modality."""
    row_of = catalog.rows()
    present: dict[str, np.ndarray] = {}
    for stream in streams:
        mask = present.setdefault(stream.modality, np.zeros(len(catalog), bool))
        rows = [row_of[key] for key, held in stream_keys(folder, stream).items() if held and key in row_of]
        mask[rows] = True
    return present
