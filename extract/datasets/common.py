"""The work that dataset modules share: safe names, class splits, smaller benchmarks, clips without labels."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...cache.catalog import (
    UNLABELLED,
    Catalog,
    LabelSet,
    default_split_sizes,
    draw_split,
    drawn_split,
    split_codes,
)
from ...cache.groups import groups_by_name
from ...errors import UsageError
from ...machine.files import parsed_json, refuse_special
from ...machine.texts import plain_text
from .base import DatasetOptions, Listing, asks_for_split
from .walk import walk

_SMALL_PER_CLASS = 8


def safe_name(text: str, fallback: str = "dataset") -> str:
    """A name that can be a folder of the cache, in which runs of unsafe characters become ``-``."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+") or fallback


def dataset_name(data: Path) -> str:
    """The cache's name for data given by its folder or file."""
    data = Path(os.path.realpath(data))
    return safe_name(data.stem if data.is_file() else data.name)


def finish(listing: Listing, options: DatasetOptions) -> Listing:
    """Apply the options that mean the same for every dataset.

    They are applied in this order: default label set, class splits, a smaller benchmark (``per_class`` or
    ``small``, then ``clips``), ``limit``, and further clips without labels.

    Where the data set names no group, known file names do. Class splits are drawn over all classes, so that they do
    not depend on which clips are available.
    Raises UsageError for options that cannot be met.
    """
    catalog = listing.catalog
    if options.label_set is not None:
        catalog.labels(options.label_set)
        catalog = replace(catalog, default_label_set=options.label_set)
    set_class_splits(catalog, options)
    if not any(catalog.group):
        catalog = replace(catalog, group=groups_by_name(catalog.clip_id, catalog.path))
    rows = np.arange(len(catalog))
    per_class = options.per_class if options.per_class is not None or not options.small else _SMALL_PER_CLASS
    if per_class is not None:
        rows = draw_per_class(catalog.clip_id, catalog.labels(), per_class, options.seed)
    if options.clips is not None:
        rows = draw_clips(catalog.clip_id, catalog.labels(), options.clips, options.seed, among=rows)
        if len(rows) < options.clips:
            listing.warnings.append(f"{options.clips} clips were asked for; {len(rows)} labelled ones exist.")
    if options.limit is not None:
        _at_least("limit", options.limit, 1)
        rows = rows[: options.limit]
    partial = per_class is not None or options.clips is not None or options.limit is not None
    catalog = catalog.take(rows)
    sources = {clip: listing.sources[clip] for clip in catalog.clip_id}
    done = replace(listing, catalog=catalog, sources=sources, partial=partial)
    if options.unlabelled is not None:
        return add_unlabelled(done, options.unlabelled, options)
    if options.unlabelled_clips is not None:
        raise UsageError(
            "--unlabelled-clips is a number of the clips of --unlabelled; name that folder, too."
        )
    return done


def set_class_splits(catalog: Catalog, options: DatasetOptions) -> None:
    """Give every label set its "default" class split, in place.

    The default label set's split comes from ``split_file``, else it is drawn with ``split_sizes``; the splits of
    the other label sets are drawn with the usual sizes. ``split_seed`` seeds all draws. A split that the data set
    brings stays unless the options ask for another.
    """
    for name, labels in catalog.label_sets.items():
        chosen = name == catalog.default_label_set
        if "default" in labels.splits and not (chosen and asks_for_split(options)):
            continue
        if chosen and options.split_file is not None:
            codes = read_split_file(options.split_file, labels.class_names)
            origin = f"the split file {options.split_file.name}"
        else:
            classes = len(labels.class_names)
            sizes = (options.split_sizes if chosen else None) or default_split_sizes(classes)
            codes = draw_split(classes, *sizes, options.split_seed)
            origin = drawn_split(classes, sizes, options.split_seed)
        labels.splits["default"], labels.split_origin["default"] = codes, origin


def read_split_file(path: Path, class_names: list[str]) -> np.ndarray:
    """Codes int8 [C] from JSON ``{"base": [...], "val": [...], "novel": [...]}`` of class names.

    A class that is in none of these lists is left out of the split. Either spelling of an accent will do. Raises
    UsageError for another form or for unknown names.
    """
    refuse_special(path, "split file")
    try:
        lists = parsed_json(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The split file {str(path)!r} cannot be read ({error}).") from None
    known = {"base", "val", "novel"}
    if (
        not isinstance(lists, dict)
        or not lists
        or not set(lists) <= known
        or not all(map(_names, lists.values()))
    ):
        raise UsageError(
            f"The split file {str(path)!r} must be JSON of the form "
            '{"base": [...], "val": [...], "novel": [...]} with class names.'
        )
    return split_codes(class_names, *(lists.get(split, []) for split in ("base", "val", "novel")))


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def draw_per_class(clip_id: list[str], labels: LabelSet, count: int, seed: int) -> np.ndarray:
    """The rows, in ascending order, of up to ``count`` clips a class.

    Each class keeps min(count, its number of clips), or more if clips have several labels. If clips have one label
    each, a larger count keeps all clips of a smaller one. Clips without a label are left out.
    """
    _at_least("per-class", count, 1)
    held = np.zeros(len(labels.class_names), np.int64)
    rows = []
    for row in _drawing_order(clip_id, np.arange(len(clip_id)), seed):
        classes = _classes_of(labels, row)
        if len(classes) and held[classes].min() < count:
            held[classes] += 1
            rows.append(row)
    return np.array(sorted(rows), np.int64)


def draw_clips(
    clip_id: list[str], labels: LabelSet, count: int, seed: int, among: np.ndarray | None = None
) -> np.ndarray:
    """The rows, in ascending order, of ``count`` labelled clips, taken from the classes in turn.

    The classes therefore differ by one clip at most, until a class runs out of clips. A larger count keeps all
    clips of a smaller one. ``among``: the rows to choose from (None: all).
    """
    _at_least("clips", count, 1)
    queues: dict[int, list[int]] = defaultdict(list)
    for row in _drawing_order(clip_id, np.arange(len(clip_id)) if among is None else among, seed):
        for label in _classes_of(labels, row):
            queues[int(label)].append(row)
    turns = sorted(queues, key=lambda label: _key(seed, labels.class_names[label]))
    waiting = {label: iter(queues[label]) for label in turns}
    rows: dict[int, None] = {}
    while waiting and len(rows) < count:
        for label in list(waiting):
            found = next((row for row in waiting[label] if row not in rows), None)
            if found is None:
                del waiting[label]
            elif len(rows) < count:
                rows[found] = None
    return np.array(sorted(rows), np.int64)


def _classes_of(labels: LabelSet, row: int) -> np.ndarray:
    if labels.multi:
        return np.flatnonzero(labels.label[row])
    label = int(labels.label[row])
    return np.array([] if label == UNLABELLED else [label], np.int64)


def _drawing_order(clip_id: list[str], rows: np.ndarray, seed: int) -> list[int]:
    """The rows in a random order that depends on the seed and each clip's id alone."""
    return sorted((int(row) for row in rows), key=lambda row: _key(seed, clip_id[row]))


def _key(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}:{text}".encode("utf-8", "surrogatepass")).digest()


def _at_least(option: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"--{option} is {value}; it must be at least {least}.")


def add_unlabelled(listing: Listing, folder: Path, options: DatasetOptions) -> Listing:
    """The listing with the videos below ``folder`` as further clips ``unlabelled/<path>`` without any label.

    They are all taken, or ``options.unlabelled_clips`` of them, of which a larger number keeps those of a smaller one.
    """
    found = walk(folder, follow_links=options.follow_links, frame_rate=options.frame_rate)
    if not found.videos:
        raise UsageError(f"The folder of unlabelled videos {str(folder)!r} holds no video.")
    old, most = listing.catalog, options.unlabelled_clips
    paths = found.videos
    if most is not None:
        _at_least("unlabelled-clips", most, 1)
        order = _drawing_order([plain_text(path) for path in paths], np.arange(len(paths)), options.seed)
        paths = [paths[row] for row in sorted(order[:most])]
    added = {f"unlabelled/{plain_text(path)}": found.source(path) for path in paths}
    count = len(added)
    catalog = Catalog(
        dataset=old.dataset,
        clip_id=[*old.clip_id, *added],
        label_sets={name: _lengthened(labels, count) for name, labels in old.label_sets.items()},
        default_label_set=old.default_label_set,
        path=[*old.path, *[""] * count],
        clip_split=[*old.clip_split, *[""] * count],
        attrs=dict(old.attrs),
        group=[*old.group, *[""] * count],
    )
    warnings = [*listing.warnings, *found.warnings()]
    return replace(
        listing,
        catalog=catalog,
        sources={**listing.sources, **added},
        warnings=warnings,
        lists_unlabelled=not found.unreadable and len(paths) == len(found.videos),
    )


def _lengthened(labels: LabelSet, count: int) -> LabelSet:
    none = np.full((count, *labels.label.shape[1:]), 0 if labels.multi else UNLABELLED, labels.label.dtype)
    return replace(labels, label=np.concatenate([labels.label, none]))
