"""FeatureBank: the clips of one split as contiguous tensors, ready for episodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import CacheError, NoClips, UsageError, listed, unknown
from .alignment import Alignment, resampling_of
from .catalog import Catalog, LabelSet
from .index import StreamIndex, stream_index
from .locking import about_schema
from .relations.graph import Relations, load_relations
from .sample import Sample
from .schema import (
    CLASS_SPLITS,
    NO_FEATURES,
    StreamName,
    dataset_folder,
    default_cache,
    list_streams,
    shard_paths,
)
from .shard import damaged_clips, read_shard
from .stream import stream_keys
from .substitutes import Substitutes
from .table import MappedTable, Table, TensorTable, load_table

DEFAULT_MEMORY = 4 << 30
NORMALISATIONS = ("none", "l2", "centre-l2", "per-step")


@dataclass(kw_only=True)
class FeatureBank:
    """The features, labels and class words of the n clips of one split, over its C classes.

    :meth:`load` makes a bank from a cache. This one is made by hand, of three clips with two steps of one number each:

    >>> x = torch.tensor([[[1.0], [3.0]], [[2.0], [2.0]], [[5.0], [7.0]]])
    >>> bank = FeatureBank(
    ...     dataset="toy", split="novel", label_set="action", class_split="default",
    ...     streams={"frame": StreamName("frame", "net")},
    ...     tables={"frame": TensorTable(x, torch.full((3,), 2), torch.ones(3).bool())},
    ...     label=torch.tensor([0, 1, 1]), class_names=["run", "jump"], class_id=torch.arange(2),
    ...     clip_row=np.arange(3),
    ... )
    >>> len(bank), bank.modalities, bank.counts().tolist()
    (3, ['frame'], [1, 2])
    >>> bank.pooled().tables["frame"].gather(torch.tensor([2])).x
    tensor([[[6.]]])
    """

    dataset: str
    """The name of the data set."""
    split: str
    """The classes that were loaded: base, val, novel or all; or "unlabelled" for clips without a label."""
    label_set: str
    """The name of the label set that the labels come from."""
    class_split: str
    """The name of the class split that ``split`` is a part of."""
    streams: dict[str, StreamName]
    """The stream of each stream key: the modality, or ``modality/encoder`` where two streams share a modality."""
    tables: dict[str, Table]
    """A :class:`~fsmm.cache.table.Table` over the n clips for each stream key."""
    label: Tensor
    """int64 [n], 0..C-1; uint8 [n, C] for a multi-hot label set; UNLABELLED (-1) for unlabelled clips."""
    class_names: list[str]
    """The names of the C classes."""
    class_id: Tensor
    """int64 [C], the index of each class in the label set."""
    clip_row: np.ndarray
    """int64 [n], the row of each clip in the catalog."""
    words: Tensor | None = None
    """The class-word vectors, float32 [C, E], or None."""
    relations: Relations | None = None
    """The relation graph of the label set's classes and of objects, or None."""
    word_stream: StreamName | None = None
    """The stream that the class-word vectors come from, or None."""
    no_words: str = ""
    """The sentence that says why class words were left out, or ""."""
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader of figures from this bank should see."""
    groups: np.ndarray = field(default_factory=lambda: np.empty(0, object))
    """object [n], the group of each clip (a text: source video, person, upload), None where none is known."""
    clip_id: np.ndarray = field(default_factory=lambda: np.empty(0, object))
    """object [n], the id of each clip, None where none is known."""
    clip_file: np.ndarray = field(default_factory=lambda: np.empty(0, "S16"))
    """bytes [n], the beginning of the SHA-256 of each clip's file, empty where it is not known."""
    substitutes: Mapping[str, Substitutes] = field(default_factory=dict)
    """What stands in for modalities that clips lack, by the side of the clips (support, query) that has substitutes."""

    def __post_init__(self) -> None:
        if not len(self.groups):
            self.groups = np.full(len(self.label), None, object)
        if not len(self.clip_id):
            self.clip_id = np.full(len(self.label), None, object)
        if not len(self.clip_file):
            self.clip_file = np.zeros(len(self.label), "S16")

    @classmethod
    def load(
        cls,
        cache: Path | str | None = None,
        streams: Sequence[str] | None = None,
        split: str = "novel",
        *,
        dataset: str | None = None,
        label_set: str | None = None,
        class_split: str = "default",
        clip_split: str | None = None,
        words: str | None = "auto",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_steps: int = 64,
        memory: int = DEFAULT_MEMORY,
        unlabelled: bool = False,
        sample: Sample | None = None,
        words_of: tuple[tuple[str, str], ...] = (),
        relations: str | None = None,
        align: Alignment | None = None,
    ) -> FeatureBank:
        """Load the clips of ``split`` (base, val, novel, or "all") from a cache.

        streams: names such as ``frame/efficientnet-lite0``, or the name of a modality that has a single stream;
            None takes every modality's only stream. Word streams are chosen by ``words``.
        class_split: a stored class split, or one that is drawn as its name says (class_draw.py), such as random:8:3.
        clip_split: load only the clips whose own split (train, val, test) is this one.
        words: a word stream, "auto" for the only one (a data set may have none), or None. With "auto", a stream that
            lacks a class of the class split is left out for every split, with a note.
        max_steps: longer sequences are averaged down to this many steps.
        memory: bytes; a stream larger than this is memory-mapped and gathered from disk.
        unlabelled: load the clips without a label of this label set instead (``split`` is then ignored).
        sample: read only a sample of the clips; None, or a multi-hot label set, reads all.
        words_of: pairs of a class and the class whose vector it gets instead of its own.
        relations: the name of a relation graph of the data set, or None for none.
        align: the common times on which the steps of the streams are brought; None leaves them as they are.

        Every clip with at least one modality present in the cache takes part, whichever streams are chosen,
        so that episodes over different streams are the same episodes; clips that their data set lists no more take no
        part. An absent modality has present = False.
        Raises UsageError for unknown names, NoClips where there is no such clip, CacheError for a cache that cannot be
        read.
        """
        root = default_cache() if cache is None else Path(cache)
        folder = dataset_folder(root, dataset)
        catalog = Catalog.read(folder)
        label_set = label_set or catalog.default_label_set
        labels = catalog.labels(label_set)
        chosen = choose_streams(folder, streams)
        held = [stream for stream in list_streams(folder) if stream.modality != "word"]
        indices = {stream: stream_index(folder, stream) for stream in held}
        eligible = _with_any_modality([*indices.values()], catalog) & ~catalog.sources.gone
        if clip_split is not None:
            eligible &= _in_clip_split(catalog, clip_split)
        classes = _split_classes(labels, "all" if unlabelled else split, class_split)
        rows, label = _select(labels, classes, eligible, unlabelled)
        if sample is not None and label.ndim == 1:
            kept = sample.rows(label)
            rows, label = rows[kept], label[kept]
        if not len(rows):
            raise NoClips(
                _no_clip_message(
                    dataset=folder.name,
                    split=split,
                    label_set=label_set,
                    class_split=class_split,
                    clip_split=clip_split,
                    unlabelled=unlabelled,
                )
            )
        keys = [catalog.clip_id[row] for row in rows]
        tables = {
            key: load_table(
                folder=folder,
                stream=stream,
                keys=keys,
                device=device,
                dtype=dtype,
                max_steps=max_steps,
                memory=memory,
                index=indices[stream],
                resampling=None if align is None else resampling_of(stream, align, indices, keys),
            )
            for key, stream in chosen.items()
        }
        names = [labels.class_names[i] for i in classes]
        split_names = [labels.class_names[i] for i in _in_class_split(labels, class_split)]
        word_stream, no_words = _usable_words(folder, words, label_set, [*names, *split_names])
        vectors = (
            None
            if word_stream is None
            else load_words(
                folder, word_stream, label_set, [dict(words_of).get(name, name) for name in names]
            ).to(device)
        )
        return cls(
            dataset=folder.name,
            split="unlabelled" if unlabelled else split,
            label_set=label_set,
            class_split=class_split,
            streams=chosen,
            tables=tables,
            label=torch.from_numpy(label).to(device),
            class_names=names,
            class_id=torch.from_numpy(classes.astype(np.int64)).to(device),
            clip_row=rows,
            words=vectors,
            relations=None
            if relations is None
            else load_relations(folder, relations, label_set, labels.class_names).to(device),
            word_stream=word_stream,
            no_words=no_words,
            notes=[*filter(None, [no_words, about_schema(folder, catalog)])],
            groups=catalog.groups()[rows],
            clip_id=np.array(keys, object),
            clip_file=catalog.facts["sha256"][rows].astype("S16"),
        )

    def __len__(self) -> int:
        return len(self.label)

    @property
    def modalities(self) -> list[str]:
        return list(self.tables)

    @property
    def multi(self) -> bool:
        """Whether labels are multi-hot."""
        return self.label.ndim == 2

    @property
    def device(self) -> torch.device:
        return self.label.device

    def counts(self) -> np.ndarray:
        """The number of clips of each class, int64 [C]."""
        if self.multi:
            return self.label.sum(0).cpu().numpy().astype(np.int64)
        return torch.bincount(self.label, minlength=len(self.class_names)).cpu().numpy()

    def pooled(self) -> FeatureBank:
        """The same bank with every sequence averaged over its valid steps (T = 1)."""
        return self._with_tables({key: table.pooled() for key, table in self.tables.items()})

    def normalised(self, how: str, means: Mapping[str, Tensor] | None = None) -> FeatureBank:
        """The same clips with features as they are ("none"), of length one ("l2"), or centred first ("centre-l2").

        Every step is scaled by itself. For a bank of pooled features the only step is the mean of the clip's steps as
        they were; with "per-step" the same is computed as with "l2", for a bank that is pooled afterwards.
        means: the vector [D] to subtract for each stream key (the base classes' mean: ``means()`` of the base bank).
        Raises UsageError for any other normalisation.
        """
        if how not in NORMALISATIONS:
            raise unknown("normalisation", how, NORMALISATIONS)
        if how == "none":
            return self
        centres = means if how == "centre-l2" and means is not None else {}
        return self._with_tables({k: t.normalised(True, centres.get(k)) for k, t in self.tables.items()})

    def means(self) -> dict[str, Tensor]:
        """The mean feature [D] over clips and time, by stream key."""
        return {key: table.mean() for key, table in self.tables.items()}

    def select(self, modalities: Sequence[str]) -> FeatureBank:
        """The same clips with the given modalities only. Raises UsageError for one that is not loaded."""
        for name in modalities:
            if name not in self.tables:
                raise unknown("modality", name, self.tables)
        return self._with_tables({name: self.tables[name] for name in modalities})

    def rows(self, rows: np.ndarray) -> FeatureBank:
        """The bank of the clips at ``rows`` (int [m]), in that order; the features are copied."""
        index = torch.from_numpy(np.asarray(rows, np.int64)).to(self.device)
        tables: dict[str, Table] = {}
        for key, table in self.tables.items():
            part = table.gather(index)
            tables[key] = TensorTable(part.x, part.length, part.present)
        chosen = self._with_tables(tables)
        at = np.asarray(rows, np.int64)
        return replace(
            chosen,
            label=self.label[index],
            clip_row=self.clip_row[at],
            groups=self.groups[at],
            clip_id=self.clip_id[at],
            clip_file=self.clip_file[at],
        )

    def fingerprint(self, *, groups: bool = False) -> str:
        """A digest of the clips, labels and classes that episodes are drawn from; features do not enter it.

        groups: whether the clips' groups enter, for episodes that depend on them.
        """
        digest = hashlib.sha256()
        digest.update(json.dumps([self.dataset, self.split, self.label_set, self.class_names]).encode())
        digest.update(np.ascontiguousarray(self.clip_row, np.int64).data)
        digest.update(np.ascontiguousarray(self.label.cpu().numpy()).data)
        if groups:
            digest.update(json.dumps(self.groups.tolist()).encode())
        return digest.hexdigest()[:16]

    def identities(self) -> dict[str, str | None]:
        """Digests of the clips' ids and of their files, None where those of a clip are not known.

        Two data sets of one name may hold as many clips of the same classes, which ``fingerprint`` does not tell apart.
        """
        ids, files = self.clip_id.tolist(), self.clip_file.tolist()
        return {
            "clip_ids": None if None in ids else _digest(json.dumps(ids).encode()),
            "clip_files": None if b"" in files else _digest(b"\n".join(files)),
        }

    def _with_tables(self, tables: Mapping[str, Table]) -> FeatureBank:
        streams = {key: self.streams[key] for key in tables}
        return replace(self, streams=streams, tables=dict(tables), substitutes={})


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def choose_streams(folder: Path, streams: Sequence[str] | None) -> dict[str, StreamName]:
    """The streams that the user named (all modalities by default), by key: the modality, or the stream's full name.

    A key is the full name only where two chosen streams share a modality. Raises UsageError for an unknown stream or
    for a modality that several streams share, CacheError for a data set without streams.
    """
    held = [s for s in list_streams(folder) if s.modality != "word"]
    wanted = (
        list(dict.fromkeys(streams))
        if streams
        else _one_each([s for s in held if s.modality not in NO_FEATURES])
    )
    if not wanted:
        raise CacheError(
            f"Dataset {folder.name!r} holds no stream yet; run `fsmm extract --dataset {folder.name}`."
        )
    found = [_resolve(held, name, folder.name) for name in wanted]
    modalities = [s.modality for s in found]
    return {(s.modality if modalities.count(s.modality) == 1 else str(s)): s for s in found}


def _one_each(held: Sequence[StreamName]) -> list[str]:
    """The modalities: frame, flow and audio first, then the others by name."""
    first = ("frame", "flow", "audio")
    others = {s.modality for s in held}.difference(first)
    return [m for m in first if any(s.modality == m for s in held)] + sorted(others)


def _resolve(held: Sequence[StreamName], name: str, dataset: str) -> StreamName:
    if "/" in name:
        stream = StreamName.parse(name)
        if stream not in held:
            raise unknown(f"stream of dataset {dataset!r}", name, map(str, held))
        return stream
    same = [s for s in held if s.modality == name]
    if not same:
        raise unknown(f"modality of dataset {dataset!r}", name, {s.modality for s in held})
    if len(same) > 1:
        raise UsageError(f"Modality {name!r} has several streams; name one: {listed([*map(str, same)])}.")
    return same[0]


def choose_words(folder: Path, words: str | None) -> StreamName | None:
    """The word stream that ``words`` names; "auto" takes the only one, or none where there is none.

    Raises UsageError where the name is unknown or several streams fit.
    """
    held = [s for s in list_streams(folder) if s.modality == "word"]
    if words is None or (words == "auto" and not held):
        return None
    if words == "auto":
        return _resolve(held, "word", folder.name)
    return _resolve(held, words, folder.name)


def load_words(folder: Path, stream: StreamName, label_set: str, names: Sequence[str]) -> Tensor:
    """The class-word vectors, float32 [C, E], averaged over steps.

    Raises CacheError where a vector is lacking or damaged.
    """
    if sentence := _lacking_words(folder, stream, label_set, names):
        raise CacheError(f"{sentence}; extract or import them again, or do without by --words none.")
    found: dict[str, np.ndarray] = {}
    for path in shard_paths(folder, stream):
        shard = read_shard(path)
        for i, key in enumerate(shard.key):
            if shard.present[i]:
                if not shard.is_right(i):
                    raise damaged_clips(path, [key])
                found[key] = shard.clip(i).astype(np.float32).mean(0)
    return torch.from_numpy(np.stack([found[word_key(label_set, name)] for name in names]))


def _usable_words(
    folder: Path, words: str | None, label_set: str, names: Sequence[str]
) -> tuple[StreamName | None, str]:
    """The word stream that ``words`` asks for, and the sentence that says why "auto" leaves it out, if it does."""
    stream = choose_words(folder, words)
    lacking = (
        _lacking_words(folder, stream, label_set, names) if stream is not None and words == "auto" else ""
    )
    return (None, f"{lacking}; class words are left out.") if lacking else (stream, "")


def _lacking_words(folder: Path, stream: StreamName, label_set: str, names: Sequence[str]) -> str:
    """A clause that names the first class without a vector in a word stream; "" where each class has one."""
    held = stream_keys(folder, stream)
    lacking = [name for name in dict.fromkeys(names) if not held.get(word_key(label_set, name))]
    if not lacking:
        return ""
    more = f" and {len(lacking) - 1:,} more" if len(lacking) > 1 else ""
    return f"Stream {stream} has no words for class {lacking[0]!r} of label set {label_set!r}{more}"


def word_key(label_set: str, name: str) -> str:
    """The key of a class in a word stream; classes of ``A+B`` are named ``A: class``."""
    if "+" in label_set:
        label_set, _, name = name.partition(": ")
    return f"{label_set}/{name}"


def _with_any_modality(indices: Sequence[StreamIndex], catalog: Catalog) -> np.ndarray:
    """Whether each clip of a catalog is present in any of the streams, bool [n]."""
    eligible = np.zeros(len(catalog), bool)
    for index in indices:
        row = index.positions(catalog.clip_id)
        eligible[row[(row >= 0) & index.present]] = True
    return eligible


def _in_clip_split(catalog: Catalog, clip_split: str) -> np.ndarray:
    names = set(catalog.clip_split) - {""}
    if clip_split not in names:
        raise unknown("clip split", clip_split, names)
    return np.array([s == clip_split for s in catalog.clip_split])


def _split_classes(labels: LabelSet, split: str, class_split: str) -> np.ndarray:
    if split == "all":
        return np.arange(len(labels.class_names))
    if not (labels.splits or labels.has_split(class_split)):
        raise UsageError(
            f"This label set has no base/val/novel class split, which {split!r} is a part of; import one, draw one "
            "(class split random:NOVEL:SEED), or have all classes by `fsmm episode-eval --split all`."
        )
    if split not in CLASS_SPLITS:
        raise unknown("split", split, (*CLASS_SPLITS, "all"))
    return labels.class_split(split, class_split)


def _in_class_split(labels: LabelSet, class_split: str) -> np.ndarray:
    """The classes that are base, val or novel in a class split; none where there is no such split."""
    return (
        np.flatnonzero(labels.codes(class_split)) if labels.has_split(class_split) else np.zeros(0, np.int64)
    )


def _select(
    labels: LabelSet, classes: np.ndarray, eligible: np.ndarray, unlabelled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The catalog rows [n] of the clips to load, and their labels over the chosen classes."""
    if labels.multi:
        has = labels.label[:, classes].any(1)
        rows = np.flatnonzero(eligible & (~labels.label.any(1) if unlabelled else has))
        return rows, labels.label[rows][:, classes]
    local = np.full(len(labels.class_names) + 1, -1, np.int64)  # The last entry is the one of UNLABELLED.
    local[classes] = np.arange(len(classes))
    label = local[labels.label]
    wanted = labels.label < 0 if unlabelled else label >= 0
    rows = np.flatnonzero(eligible & wanted)
    return rows, label[rows]


def _no_clip_message(
    dataset: str, split: str, label_set: str, class_split: str, clip_split: str | None, unlabelled: bool
) -> str:
    what = "unlabelled clips" if unlabelled else f"clips of {split} classes (class split {class_split!r})"
    where = f" in clip split {clip_split!r}" if clip_split else ""
    return (
        f"Dataset {dataset!r} has no {what}{where} with features for label set {label_set!r}: "
        "choose another --split or label set, or extract first."
    )


__all__ = ["FeatureBank", "MappedTable", "Table", "TensorTable"]
