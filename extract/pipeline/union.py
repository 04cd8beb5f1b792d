"""The union of a run's catalog with the one in the cache: clips keep their rows, new ones follow, nothing is lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...cache.catalog import FACTS, UNLABELLED, Catalog, LabelSet
from ...cache.origin import UNSEEN, ClipSources
from ...cache.schema import StreamName, shard_paths
from ...cache.shard import read_shard


@dataclass
class _Rows:
    """The rows of either catalog's clips in the joined one of ``n``.

    covers: the new one lists all of the old clips that are still listed. gone: bool [n], the clips that are not.
    """

    n: int
    old: np.ndarray
    new: np.ndarray
    covers: bool
    gone: np.ndarray


def united(
    old: Catalog, new: Catalog, new_split: bool = False, *, gone: Collection[str] = ()
) -> tuple[Catalog, list[str]]:
    """The joined catalog, and a sentence for each change of clips that were in the cache before.

    A listing of all those clips replaces the label sets. A listing of fewer clips (``--limit``) relabels these
    alone: classes that it does not list stay, and so do class splits, unless ``new_split`` says that the user
    chose them. The clips ``gone`` are listed by the new one's origin no more; a clip that no origin lists is
    unlabelled.
    """
    row_of = old.rows()
    fresh = [clip for clip in new.clip_id if clip not in row_of]
    row_of.update((clip, len(old) + i) for i, clip in enumerate(fresh))
    target = np.array([row_of[clip] for clip in new.clip_id], np.int64)
    sources = _joined_sources(old, new, target, [row_of[clip] for clip in gone if clip in row_of])
    rows = _rows(old, target, sources)
    notes: list[str] = []
    label_sets = {
        name: _join(
            name=name,
            old=old.label_sets.get(name),
            new=new.label_sets.get(name),
            rows=rows,
            new_split=new_split,
            notes=notes,
        )
        for name in [*new.label_sets, *(name for name in old.label_sets if name not in new.label_sets)]
    }
    return Catalog(
        dataset=old.dataset,
        clip_id=[*old.clip_id, *fresh],
        label_sets=label_sets,
        default_label_set=new.default_label_set,
        path=_replaced(old.path, new.path, rows),
        clip_split=_replaced(old.clip_split, new.clip_split, rows),
        attrs={**old.attrs, **new.attrs},
        facts={name: _spread(values, rows.old, rows.n, FACTS[name][1]) for name, values in old.facts.items()},
        # A listing that names no group at all knows less about groups, not otherwise.
        group=_replaced(old.group, new.group, rows) if any(new.group) else _replaced(old.group, [], rows),
        sources=sources,
    ), notes


def _rows(old: Catalog, target: np.ndarray, sources: ClipSources) -> _Rows:
    """The rows of a union whose new clips lie at ``target``, and whose clips have these sources."""
    n = len(sources.origin)
    is_listed = np.zeros(n, bool)
    is_listed[target] = True
    covers = bool((is_listed | sources.gone)[: len(old)].all())
    return _Rows(n=n, old=np.arange(len(old)), new=target, covers=covers, gone=sources.gone)


def _replaced(old: Sequence[str], new: Sequence[str], rows: _Rows) -> list[str]:
    """The texts of the old clips, replaced and followed by those of the new ones."""
    texts = [*old, *[""] * (rows.n - len(old))]
    for row, text in zip(rows.new.tolist(), new):
        texts[row] = text
    return texts


def _joined_sources(old: Catalog, new: Catalog, target: np.ndarray, gone: Sequence[int]) -> ClipSources:
    """The sources of the joined clips: those of ``new``, which is of one origin, lie at the rows ``target``."""
    (mine,) = new.sources.origins
    number = next((i for i, origin in enumerate(old.sources.origins) if origin.is_same(mine)), None)
    origins = [*old.sources.origins, mine] if number is None else old.sources.origins
    number = len(origins) - 1 if number is None else number
    n, k = int(max(len(old), target.max(initial=-1) + 1)), len(origins)
    before = np.arange(len(old))
    origin = _spread(old.sources.origin, before, n, number)
    listed = np.zeros((n, k), bool)
    listed[: len(old), : old.sources.listed.shape[1]] = old.sources.listed
    listed[target, number] = True
    listed[gone, number] = False
    size, mtime_ns = (
        _spread(values, before, n, UNSEEN) for values in (old.sources.size, old.sources.mtime_ns)
    )
    part = _spread(old.sources.part, before, n, "")
    seen = new.sources.size != UNSEEN
    size[target[seen]], mtime_ns[target[seen]] = new.sources.size[seen], new.sources.mtime_ns[seen]
    part[target[seen]] = new.sources.part[seen]
    return ClipSources(origins, origin, listed, size, mtime_ns, part)


def _join(
    name: str, old: LabelSet | None, new: LabelSet | None, rows: _Rows, new_split: bool, notes: list[str]
) -> LabelSet:
    if old is None and new is not None:
        return replace(new, label=_spread(new.label, rows.new, rows.n, _nothing(new)))
    if new is None:
        assert old is not None
        return replace(old, label=_spread(old.label, rows.old, rows.n, _nothing(old))).without(rows.gone)
    assert old is not None
    if rows.covers:
        if set(old.class_names) != set(new.class_names):
            notes.append(_changed(name, old.class_names, new.class_names))
        return replace(new, label=_spread(new.label, rows.new, rows.n, _nothing(new)))
    return _relabelled(name=name, old=old, new=new, rows=rows, new_split=new_split, notes=notes)


def _relabelled(
    name: str, old: LabelSet, new: LabelSet, rows: _Rows, new_split: bool, notes: list[str]
) -> LabelSet:
    """The old classes in their order, then those of the new label set alone; new labels replace the clips' old ones."""
    added = [c for c in new.class_names if c not in set(old.class_names)]
    names = [*old.class_names, *added]
    if added:
        notes.append(_changed(name, old.class_names, names))
    index = {class_name: i for i, class_name in enumerate(names)}
    to = np.array([index[c] for c in new.class_names], np.int64)
    multi = old.multi or new.multi
    label = _spread(
        _labels(old, np.arange(len(old.class_names)), len(names), multi), rows.old, rows.n, _fill(multi)
    )
    label[rows.gone] = _fill(multi)
    label[rows.new] = _labels(new, to, len(names), multi)
    words = dict(zip(old.class_names, old.words)) | dict(zip(new.class_names, new.words))
    splits = {
        split: _join_split(
            name=name,
            split=split,
            old=old,
            new=new,
            to=to,
            classes=len(names),
            new_split=new_split,
            notes=notes,
        )
        for split in {**old.splits, **new.splits}
    }
    origin = old.split_origin | new.split_origin if new_split else new.split_origin | old.split_origin
    return LabelSet(names, label, [words[c] for c in names], splits, origin)


def _join_split(
    name: str,
    split: str,
    old: LabelSet,
    new: LabelSet,
    to: np.ndarray,
    classes: int,
    new_split: bool,
    notes: list[str],
) -> np.ndarray:
    codes = np.zeros(classes, np.int8)
    if split in old.splits:
        codes[: len(old.class_names)] = old.splits[split]
    if split in new.splits:
        kept = codes[to]
        fresh = (
            to >= len(old.class_names) if split in old.splits and not new_split else np.full(len(to), True)
        )
        codes[to] = np.where(fresh, new.splits[split], kept)
        if not np.array_equal(codes[to], new.splits[split]):
            notes.append(
                f"Label set {name!r} keeps its class split {split!r} from the cache; this run lists fewer clips and "
                "would have split its classes otherwise."
            )
    return codes


def _labels(labels: LabelSet, to: np.ndarray, classes: int, multi: bool) -> np.ndarray:
    """The labels over ``classes`` classes, where class i becomes to[i]; multi-hot if ``multi``."""
    if labels.multi:
        hot = np.zeros((len(labels.label), classes), np.uint8)
        hot[:, to] = labels.label
        return hot
    single = np.where(labels.label >= 0, to[labels.label], UNLABELLED) if len(to) else labels.label
    if not multi:
        return single.astype(np.int32)
    hot = np.zeros((len(single), classes), np.uint8)
    hot[np.flatnonzero(single >= 0), single[single >= 0]] = 1
    return hot


def _nothing(labels: LabelSet) -> int:
    return _fill(labels.multi)


def _fill(multi: bool) -> int:
    return 0 if multi else UNLABELLED


def _spread(values: np.ndarray, rows: np.ndarray, n: int, fill: object) -> np.ndarray:
    """An array of n rows that holds ``values`` at ``rows`` and ``fill`` elsewhere."""
    out = np.full((n, *values.shape[1:]), fill, values.dtype)
    out[rows] = values
    return out


def _changed(name: str, before: Sequence[str], after: Sequence[str]) -> str:
    added, gone = [c for c in after if c not in set(before)], [c for c in before if c not in set(after)]
    changes = [f"{word} {_some(names)}" for word, names in (("new:", added), ("gone:", gone)) if names]
    return f"The classes of label set {name!r} changed ({'; '.join(changes)})."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def with_facts(folder: Path, catalog: Catalog, streams: Sequence[StreamName]) -> Catalog:
    """The catalog with what decoding learned about its clips, gathered from these streams' shards.

    The last shard that knows a clip's source counts.
    """
    row_of = catalog.rows()
    facts = {name: values.copy() for name, values in catalog.facts.items()}
    for stream in streams:
        for path in shard_paths(folder, stream):
            shard = read_shard(path, features=False)
            row = np.array([row_of.get(key, -1) for key in shard.key], np.int64)
            has_facts = (row >= 0) & (shard.facts["sha256"] != b"") if "sha256" in shard.facts else row < -1
            for name in facts.keys() & shard.facts.keys():
                facts[name][row[has_facts]] = shard.facts[name][has_facts]
    return replace(catalog, facts=facts)
