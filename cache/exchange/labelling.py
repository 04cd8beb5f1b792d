"""Building the catalog of an import from its ids, labels, class names and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import CacheError, UsageError, brief, unknown
from ...machine.texts import composed, is_unlabelled
from ..catalog import CLIP_SPLITS, FACTS, UNLABELLED, Catalog, LabelSet, draw_split, drawn_split, split_codes
from ..groups import groups_by_name
from .mapping import ImportMapping, LabelSpec, Sources


def import_catalog(
    mapping: ImportMapping, files: Sources, held: Catalog | None = None
) -> tuple[Catalog, np.ndarray]:
    """The catalog of the clips that are imported, and the mask of their rows in the sources, bool [n].

    held: the catalog of the data set in the cache, which labels the clips where the mapping names no label set.
    Raises FsmmError where ids, labels, class names, splits or facts do not fit together, or a clip has no label set.
    """
    if not mapping.label_sets and held is None:
        raise UsageError(
            f"Mapping {mapping.name!r} names no label set, and the cache has no data set {mapping.dataset!r} to add "
            "streams to; give at least one under 'label_sets'."
        )
    only_words = mapping.ids is None and not mapping.arrays and bool(mapping.words)
    if held is not None and only_words and not mapping.label_sets:
        return held, np.ones(len(held), bool)
    ids = _ids(mapping, files)
    n = len(ids)
    chosen = np.ones(n, bool)
    for name in mapping.drop:
        chosen &= ~read_flags(files.clip_values(name, ids), name)
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise CacheError("No clip is left to import: 'drop' is true for all of them.")
    if held is not None and not mapping.label_sets:
        label_sets, default = _held_labels(mapping, held, [ids[i] for i in rows]), held.default_label_set
    else:
        label_sets = {
            name: _label_set(name, spec, files, ids).take(rows) for name, spec in mapping.label_sets.items()
        }
        default = mapping.default_label_set
    clip_split = None if mapping.clip_split is None else _clip_splits(mapping.clip_split, files, ids)
    paths = None if mapping.paths is None else _texts(files.clip_values(mapping.paths, ids), mapping.paths)
    groups = (
        None if mapping.groups is None else _texts(files.clip_values(mapping.groups, ids), mapping.groups)
    )
    catalog = Catalog(
        dataset=mapping.dataset,
        clip_id=[ids[i] for i in rows],
        label_sets=label_sets,
        default_label_set=default,
        path=[] if paths is None else [paths[i] for i in rows],
        clip_split=[] if clip_split is None else [clip_split[i] for i in rows],
        attrs=mapping.attrs,
        facts={name: _fact(name, files.clip_values(ref, ids))[rows] for name, ref in mapping.facts.items()},
        group=[] if groups is None else [_group(groups[i]) for i in rows],
    )
    if held is not None and not mapping.label_sets:
        row = held.rows()
        catalog.sources = held.sources.take(np.array([row[clip] for clip in catalog.clip_id], np.int64))
    if groups is None and (held is None or not any(held.group)):
        catalog.group = groups_by_name(catalog.clip_id, catalog.path)
    return catalog, chosen


def _group(text: str) -> str:
    """The name of a group; "" for a text that means none."""
    return "" if is_unlabelled(text) else composed(text.strip())


def _held_labels(mapping: ImportMapping, held: Catalog, ids: Sequence[str]) -> dict[str, LabelSet]:
    """The labels that clips have in the cache. Raises CacheError for a clip that the cache does not hold."""
    row = held.rows()
    strange = [clip for clip in ids if clip not in row]
    if strange:
        more = f" (and {len(strange) - 1:,} more)" if len(strange) > 1 else ""
        remedy = "name the clips by 'ids'" if mapping.ids is None else "give 'label_sets', or drop such rows"
        raise CacheError(
            f"Clip {brief(strange[0])}{more} is not in data set {mapping.dataset!r} of the cache, and the mapping has "
            f"no labels for it; {remedy}."
        )
    rows = np.array([row[clip] for clip in ids], np.int64)
    return {name: labels.take(rows) for name, labels in held.label_sets.items()}


def _ids(mapping: ImportMapping, files: Sources) -> list[str]:
    if mapping.ids is not None:
        ids = _texts(files.values(mapping.ids), mapping.ids)
    elif not mapping.arrays:
        raise UsageError("The mapping has neither 'ids' nor 'arrays'; there is nothing to import.")
    else:
        spec = mapping.arrays[0]
        first = files.column(spec.array)
        if first.rows is None:  # A source that is indexed by id names its clips.
            ids = first.ids()
        else:  # Rows without names are numbered.
            count = len(files.values(spec.length)) if spec.concatenated and spec.length else first.rows
            ids = [f"{i:06d}" for i in range(count)]
    repeated = [clip for clip, count in Counter(ids).items() if count > 1]
    if repeated and mapping.repeated_ids == "refuse":
        raise CacheError(
            f"Clip id {repeated[0]!r} stands for several rows ({len(repeated):,} such ids); make ids unique, or set "
            "'repeated_ids' to 'suffix'."
        )
    return _suffixed(ids) if repeated else ids


def _suffixed(ids: Sequence[str]) -> list[str]:
    """The ids, where every further row of an id gets ``-2``, ``-3`` and so on; ids that exist already are skipped."""
    taken, out, counts = set(ids), [], Counter[str]()
    for clip in ids:
        counts[clip] += 1
        name = clip
        while counts[clip] > 1 and (name := f"{clip}-{counts[clip]}") in taken:
            counts[clip] += 1
        taken.add(name)
        out.append(name)
    return out


def _clip_splits(array: str, files: Sources, ids: Sequence[str]) -> list[str]:
    """The data set's own split of each clip; a CSV file may write it in other usual ways."""
    texts = _texts(files.clip_values(array, ids), array)
    if not files.is_csv(array):
        return texts
    return ["" if is_unlabelled(text) else CLIP_SPLITS.get(text.lower(), text) for text in texts]


def _label_set(name: str, spec: LabelSpec, files: Sources, ids: Sequence[str]) -> LabelSet:
    values = files.clip_values(spec.label, ids)
    given = _names(spec.class_names, files)
    named = None if given is None else [composed(class_name) for class_name in given]
    if values.dtype.kind in "US":
        texts = _texts(values, spec.label)
        spelt = {text: composed(text.strip()) for text in set(texts)}
        cells = [spelt[text] for text in texts]
        if files.is_csv(spec.label) and any("|" in cell for cell in cells):
            label, names = _from_lists([_divided(cell) for cell in cells], named, spec.label)
        elif named is not None and (numbers := _numbers(cells, named)) is not None:
            label, names = _from_numbers(numbers, named, spec.label), named
        else:
            label, names = _from_texts(cells, named, spec.label)
    elif named is None:
        raise UsageError(f"Label set {name!r} has numbers as labels; give its 'class_names'.")
    else:
        label, names = _from_numbers(values, named, spec.label), named
    if len(set(names)) != len(names):
        raise CacheError(f"The class names of label set {name!r} hold the same class twice.")
    words = _names(spec.words, files) or []
    if words and len(words) != len(names):
        raise CacheError(f"Label set {name!r} has {len(words)} words for {len(names)} classes.")
    return LabelSet(names, label, words, *_splits(spec.splits, names, name))


def _from_texts(labels: list[str], named: list[str] | None, array: str) -> tuple[np.ndarray, list[str]]:
    """The class indices int32 [n] of labels given as class names, and the class names.

    A text that means no label (see ``is_unlabelled``) is a class all the same if ``named`` has one of this name. A
    label may differ in upper and lower case from the one class that is meant. Raises CacheError for a label that is not
    among the class names ``named``.
    """
    names = sorted({label for label in labels if not is_unlabelled(label)}) if named is None else named
    index = {name: i for i, name in enumerate(names)}
    folded = Counter(name.casefold() for name in names)
    in_other_case = {name.casefold(): i for name, i in index.items() if folded[name.casefold()] == 1}
    for label in set(labels) - index.keys():
        if not is_unlabelled(label) and label.casefold() in in_other_case:
            index[label] = in_other_case[label.casefold()]
    for label in labels:
        if label not in index and not is_unlabelled(label):
            raise CacheError(f"Label {brief(label)} in {array!r} is not among the class names.")
    return np.array([index.get(label, UNLABELLED) for label in labels], np.int32), names


def _from_lists(
    cells: Sequence[Sequence[str]], named: list[str] | None, array: str
) -> tuple[np.ndarray, list[str]]:
    """The labels uint8 [n, C] of clips that name several classes each, and the class names.

    Raises CacheError for a label that is not among the class names ``named``.
    """
    flat, names = _from_texts([label for cell in cells for label in cell], named, array)
    rows = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    hot = np.zeros((len(cells), len(names)), np.uint8)
    hot[rows[flat >= 0], flat[flat >= 0]] = 1
    return hot, names


def _divided(cell: str) -> list[str]:
    return [part.strip() for part in cell.split("|") if part.strip()]


def _numbers(cells: Sequence[str], named: Sequence[str]) -> np.ndarray | None:
    """The class numbers int64 [n] that texts such as 3 and 3.0 stand for; None where they are names of classes."""
    if all(cell in named or is_unlabelled(cell) for cell in set(cells)):
        return None
    try:
        values = np.array([UNLABELLED if is_unlabelled(cell) else float(cell) for cell in cells])
        whole = values.astype(np.int64)
    except (ValueError, OverflowError):
        return None
    return whole if (whole == values).all() else None


def _from_numbers(values: np.ndarray, names: list[str], array: str) -> np.ndarray:
    if values.ndim == 2 and values.dtype.kind in "biuf":
        if values.shape[1] != len(names) or not np.isin(values, (0, 1)).all():
            raise CacheError(f"Array {array!r} must be multi-hot: 0 or 1, [clips, {len(names)}].")
        return values.astype(np.uint8)
    values = _whole(values)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise CacheError(
            f"Array {array!r} holds {values.dtype} of shape {list(values.shape)}; labels must be whole numbers or "
            "class names, one a clip, or multi-hot [clips, classes]."
        )
    if len(values) and (int(values.max()) >= len(names) or int(values.min()) < UNLABELLED):
        raise CacheError(
            f"Labels in {array!r} run from {values.min()} to {values.max()}, but there are {len(names)} class names "
            "(0 is the first, where MATLAB has 1; -1 is unlabelled)."
        )
    return values.astype(np.int32)


def _whole(values: np.ndarray) -> np.ndarray:
    """Numbers such as 3.0 as whole ones, NaN as unlabelled; other arrays as they are."""
    if values.dtype.kind != "f":
        return values
    filled = np.where(np.isnan(values), UNLABELLED, values.astype(np.float64))
    fits = (
        np.isfinite(filled).all() and (np.abs(filled) < 1 << 31).all() and (filled == np.rint(filled)).all()
    )
    return filled.astype(np.int64) if fits else values


def _names(given: str | Sequence[str] | None, files: Sources) -> list[str] | None:
    """The texts of a list, or of the array that ``given`` names. Raises UsageError for what a list has beside texts.

    YAML takes yes, no, on and off for true and false, ~ for nothing, and 1.10 for 1.1, where they are not in quotes.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return _texts(files.values(given), given)
    if odd := [name for name in given if not isinstance(name, (str, int)) or isinstance(name, bool)]:
        raise UsageError(
            f"{odd[0]!r} in a list of the mapping file's class names or words is no text; put what was meant in quotes."
        )
    return [str(name) for name in given]


def _splits(
    given: Mapping[str, Any], names: list[str], label_set: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The codes of every class split, and where it comes from.

    An entry may name another split; without a "default", the first one serves as it. Raises UsageError for the name of
    an unknown split.
    """
    codes: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    for split, entry in given.items():
        if not isinstance(entry, str):
            codes[split], origin[split] = _split(split, entry, names)
    for split, entry in given.items():
        if isinstance(entry, str):
            if entry not in codes:
                raise unknown(f"class split of label set {label_set!r}", entry, codes)
            codes[split], origin[split] = codes[entry], origin[entry]
    if codes and "default" not in codes:
        first = next(iter(codes))
        codes["default"], origin["default"] = codes[first], origin[first]
    return codes, origin


def _split(name: str, entry: Mapping[str, Any], names: list[str]) -> tuple[np.ndarray, str]:
    """The codes of one class split, and where it comes from."""
    parts = [entry.get(part) for part in ("base", "val", "novel")]
    if all(part is None or isinstance(part, list) for part in parts) and "seed" not in entry:
        base, val, novel = ([str(c) for c in part or []] for part in parts)
        return split_codes(names, base, val, novel), "the lists of the mapping file"
    sizes = [0 if part is None else part for part in parts]
    seed = entry.get("seed", 0)
    if (
        not all(isinstance(value, int) and not isinstance(value, bool) for value in (*sizes, seed))
        or seed < 0
    ):
        raise UsageError(
            f"Class split {name!r} must list the names of its base, val and novel classes, or give their counts and a "
            "seed, all whole numbers."
        )
    base_size, val_size, novel_size = sizes
    codes = draw_split(classes=len(names), base=base_size, val=val_size, novel=novel_size, seed=seed)
    return codes, drawn_split(len(names), sizes, seed)


def read_flags(values: np.ndarray, name: str) -> np.ndarray:
    """The truth bool [n] of an array of true and false, 1 and 0, or their texts. Raises CacheError for any other."""
    if values.ndim == 1 and values.dtype.kind == "U":
        texts = np.char.lower(values)
        if np.isin(texts, ("true", "false", "1", "0", "")).all():
            return np.isin(texts, ("true", "1"))
    elif values.ndim == 1 and values.dtype.kind in "biu" and np.isin(values, (0, 1)).all():
        return values.astype(bool)
    raise CacheError(f"Array {name!r} must hold one true or false (or 1 or 0) a clip.")


def _fact(name: str, values: np.ndarray) -> np.ndarray:
    if name not in FACTS:
        raise unknown("fact", name, FACTS)
    try:
        return values.astype(FACTS[name][0])
    except (ValueError, TypeError) as error:
        raise CacheError(f"The array of fact {name!r} does not hold what it should ({error}).") from None


def _texts(values: np.ndarray, name: str) -> list[str]:
    if values.ndim != 1:
        raise CacheError(f"Array {name!r} has shape {list(values.shape)}; one entry a row is needed.")
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]
