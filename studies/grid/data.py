"""What a study knows of a data set before any feature is read: its modalities, its splits, and digests of all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ...cache.bank import choose_streams, choose_words
from ...cache.catalog import Catalog, LabelSet
from ...cache.index import stream_index
from ...cache.schema import (
    NO_FEATURES,
    StreamName,
    dataset_folder,
    default_cache,
    list_datasets,
    list_streams,
)
from ...runs.digest import digest


class DataFacts:
    """The facts about one data set of a cache, each read once.

    Raises CacheError where the cache does not hold the data set, or holds several and none is named.
    """

    def __init__(self, cache: Path | None, dataset: str | None) -> None:
        self.folder = dataset_folder(default_cache() if cache is None else cache, dataset)
        self._streams: dict[StreamName, str] = {}
        self._labels: dict[str, str] = {}
        self._others: dict[str, DataFacts] = {}

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return self.folder.name

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog."""
        return Catalog.read(self.folder)

    @cached_property
    def held(self) -> list[StreamName]:
        """The streams of clips."""
        return [
            stream for stream in list_streams(self.folder) if stream.modality not in ("word", *NO_FEATURES)
        ]

    @cached_property
    def word_streams(self) -> list[StreamName]:
        """The streams of class words."""
        return [stream for stream in list_streams(self.folder) if stream.modality == "word"]

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in their order: frame, flow, audio, then the others by name."""
        first = ("frame", "flow", "audio")
        there = {stream.modality for stream in self.held}
        return (*(m for m in first if m in there), *sorted(there.difference(first)))

    def labels(self, label_set: str | None = None) -> LabelSet:
        """A label set, or the default one. Raises UsageError for an unknown one."""
        return self.catalog.labels(label_set or self.catalog.default_label_set)

    def class_splits(self) -> list[str]:
        """The names of the class splits that the default label set has."""
        return list(self.labels().splits)

    def streams(self, names: Sequence[str] | None) -> list[StreamName]:
        """The streams that a run loads. Raises UsageError for an unknown one."""
        return list(choose_streams(self.folder, names).values())

    def neighbours(self) -> list[str]:
        """The names of the data sets of the cache, this one first."""
        names = list_datasets(self.folder.parent)
        return [self.dataset, *(name for name in names if name != self.dataset)]

    def other(self, name: str) -> DataFacts:
        """The facts about another data set of the cache. Raises CacheError where it is not there."""
        if name == self.dataset:
            return self
        if name not in self._others:
            self._others[name] = DataFacts(self.folder.parent, name)
        return self._others[name]

    def can_train(self, name: str, streams: Sequence[str] | None) -> bool:
        """Whether a data set of the cache holds all streams that a run on this one loads."""
        return set(self.streams(streams)) <= set(self.other(name).held)

    def digest_of(
        self, streams: Sequence[str] | None, words: str | None, label_set: str | None
    ) -> dict[str, object]:
        """Digests of all clips, labels and features that a run may read, in plain JSON values.

        They are made of the catalog and of the checksums that shards have of their features.
        """
        name = label_set or self.catalog.default_label_set
        word = choose_words(self.folder, words) if words is not None else None
        return {
            "dataset": self.dataset,
            "clips": self._clips,
            "labels": [name, self._label_digest(name)],
            "streams": {str(stream): self._stream_digest(stream) for stream in self.streams(streams)},
            "words": None if word is None else [str(word), self._stream_digest(word)],
        }

    @cached_property
    def _clips(self) -> str:
        """A digest of the clips that take part: their ids, groups, splits, and the modalities that each has."""
        catalog = self.catalog
        present = {}
        for stream in self.held:
            index = stream_index(self.folder, stream)
            present[str(stream)] = [key for key, there in zip(index.key, index.present.tolist()) if there]
        return digest(
            {
                "ids": catalog.clip_id,
                "groups": catalog.group,
                "gone": catalog.sources.gone.tolist(),
                "splits": catalog.clip_split,
                "any": sorted(set().union(*present.values())),
            }
        )

    def _label_digest(self, name: str) -> str:
        if name not in self._labels:
            labels = self.labels(name)
            splits = {split: codes.tolist() for split, codes in labels.splits.items()}
            self._labels[name] = digest(
                {"names": labels.class_names, "label": labels.label.tolist(), "splits": splits}
            )
        return self._labels[name]

    def _stream_digest(self, stream: StreamName) -> str:
        if stream not in self._streams:
            index = stream_index(self.folder, stream)
            rows = sorted(zip(index.key, index.length.tolist(), index.check.tolist()))
            self._streams[stream] = digest({"stream": str(stream), "rows": rows})
        return self._streams[stream]
