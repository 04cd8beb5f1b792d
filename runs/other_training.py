"""Training on another data set of the cache: its base classes take the place of those of the data set that is tested.

A class of it that is called as a val or novel class here is left out, so that no head has learned what it is tested on.
Names count as equal where their letters and digits are, whatever their case and what stands between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..cache.bank import FeatureBank
from ..cache.catalog import Catalog, LabelSet
from ..cache.schema import StreamName, dataset_folder, list_streams
from ..cache.stream import stream_provenance
from ..episodes.protocol import Protocol
from ..errors import NoClips, UsageError, listed
from .normalisation import of_classes

# Features that differ in one of these do not lie in one space.
_ENCODER = {"dim": "widths", "weights_sha256": "weights"}
_PREPARED = ("preprocessing", "sampling")  # These may differ, and a note says so.


@dataclass(frozen=True, kw_only=True)
class OtherTraining:
    """The training classes of another data set."""

    folder: Path
    """The folder of the other data set."""
    label_set: str
    """Its label set that is used."""
    split: str
    """The classes that heads train on: base, or all where the label set has no class split."""
    class_split: str
    """The class split that ``split`` is a part of."""
    left_out: tuple[str, ...]
    """The names of its classes that are left out, since the tested data set has them among its val or novel classes."""
    notes: tuple[str, ...]
    """Sentences that a reader of the figures should see."""

    @classmethod
    def of(
        cls, cache: Path, name: str, *, own: Path, streams: Sequence[StreamName], protocol: Protocol
    ) -> OtherTraining:
        """The training classes of the data set ``name`` for a test on the data set in the folder ``own``.

        Raises CacheError where the cache does not hold it, UsageError where it does not hold the same streams.
        """
        folder = dataset_folder(cache, name)
        notes = [note for stream in streams for note in _prepared_otherwise(own, folder, stream)]
        catalog, tested = Catalog.read(folder), Catalog.read(own)
        known = protocol.label_set if protocol.label_set in catalog.label_sets else None
        label_set = known or catalog.default_label_set
        labels = catalog.labels(label_set)
        class_split = _class_split(labels, protocol.class_split)
        split = "base" if class_split else "all"
        unseen = {
            _plain(each)
            for each in _kept_apart(tested.labels(protocol.label_set or tested.default_label_set), protocol)
        }
        offered = labels.class_split("base", class_split) if class_split else range(len(labels.class_names))
        names = [labels.class_names[c] for c in offered]
        left_out = tuple(each for each in names if _plain(each) in unseen)
        if len(left_out) == len(names):
            raise NoClips(
                f"No class of data set {name!r} is left to train on: all {len(names)} are val or novel classes of "
                f"{own.name!r}; leave out --train-dataset, or name another."
            )
        if left_out:
            notes.append(
                f"Training on {name} leaves out {len(left_out)} of its {len(names)} classes, which are tested here or "
                f"val classes: {listed(left_out)}."
            )
        return cls(
            folder=folder,
            label_set=label_set,
            split=split,
            class_split=class_split or protocol.class_split,
            left_out=left_out,
            notes=tuple(dict.fromkeys(notes)),
        )

    @property
    def name(self) -> str:
        """The name of the other data set."""
        return self.folder.name

    def without_left_out(self, bank: FeatureBank) -> FeatureBank:
        """The bank without the classes that are left out, and without their clips."""
        kept = np.array([c for c, name in enumerate(bank.class_names) if name not in self.left_out], np.int64)
        if len(kept) == len(bank.class_names):
            return bank
        return _columns(bank, kept) if bank.multi else of_classes(bank, kept)


def _columns(bank: FeatureBank, classes: np.ndarray) -> FeatureBank:
    """The clips with several labels that have none but some of ``classes``, over these."""
    index = torch.from_numpy(classes).to(bank.device)
    gone = torch.ones(len(bank.class_names), dtype=torch.bool, device=bank.device)
    gone[index] = False
    part = bank.rows(np.flatnonzero(~bank.label[:, gone].any(1).cpu().numpy()))
    return replace(
        part,
        label=part.label[:, index],
        class_names=[bank.class_names[c] for c in classes],
        class_id=bank.class_id[index],
        words=None if bank.words is None else bank.words[index],
    )


def _kept_apart(labels: LabelSet, protocol: Protocol) -> list[str]:
    """The names of the classes that a head must not have learned: val and novel ones, and those of the test."""
    if protocol.split == "all" or not labels.has_split(protocol.class_split):
        return labels.class_names
    parts = {"val", "novel", protocol.split}
    return [labels.class_names[c] for part in parts for c in labels.class_split(part, protocol.class_split)]


def _class_split(labels: LabelSet, wanted: str) -> str:
    """The class split of that name, else the default one or the only one; "" where there is none.

    A drawn class split divides the tested data set alone. Raises UsageError where there are several others.
    """
    if not labels.splits:
        return ""
    for name in (wanted, "default"):
        if name in labels.splits:
            return name
    if len(labels.splits) == 1:
        return next(iter(labels.splits))
    raise UsageError(
        f"The training data set has no class split {wanted!r}, and several others: {listed([*labels.splits])}; name "
        "one that both have with --class-split."
    )


def _prepared_otherwise(own: Path, other: Path, stream: StreamName) -> list[str]:
    """A note where a stream of the other data set was prepared otherwise.

    Raises UsageError where there is no such stream, or another encoder made it.
    """
    if stream not in list_streams(other):
        raise UsageError(
            f"Data set {other.name!r} has no stream {stream}, which heads for {own.name!r} read; extract it, or choose "
            "streams that both have with --streams."
        )
    origins = [stream_provenance(folder, stream) for folder in (own, other)]
    mine, theirs = (origin for origin in origins)
    if mine is None or theirs is None:
        return []
    for name, what in _ENCODER.items():
        here, there = getattr(mine, name), getattr(theirs, name)
        if here != there:
            raise UsageError(
                f"Stream {stream} has other {what} in {own.name!r} than in {other.name!r} ({here or 'none'} and "
                f"{there or 'none'}), so that its features do not lie in one space; extract both with one encoder."
            )
    differ = [name for name in _PREPARED if getattr(mine, name) != getattr(theirs, name)]
    if not differ:
        return []
    return [
        f"Stream {stream} of {other.name} was made with other {' and '.join(differ)} than that of {own.name}."
    ]


def _plain(name: str) -> str:
    """The letters and digits of a class's name, in small letters.

    >>> _plain("Playing_Guitar") == _plain("playing guitar")
    True
    """
    return "".join(char for char in name.casefold() if char.isalnum()) or name
