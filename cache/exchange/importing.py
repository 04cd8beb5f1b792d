"""`fsmm cache import` makes streams of the cache from features that somebody else computed. No video is needed.

The label sets and splits of the mapping become the catalog (labelling.py); each array becomes a stream, read a block of
clips at a time. A repeated import adds the rows that are missing and refuses rows that have changed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from ...errors import CacheError, UsageError
from ...machine.texts import class_warnings, composed
from ..attempt import first_attempt
from ..catalog import Catalog, readable
from ..locking import refuse_older, update_catalog
from ..origin import ClipSources, Origin
from ..schema import MODALITIES, Provenance
from ..shard import clip_check, storable
from ..stream import StreamWriter, stream_checks
from ..upkeep.merge import unite
from .columns import ArrayColumn, Column
from .concatenated import ConcatenatedColumn
from .labelling import import_catalog, read_flags
from .mapping import ArraySpec, ImportMapping, Sources, WordSpec, read_mapping
from .named_vectors import vectors_by_text
from .step_times import cut_times, times_of_clips


@dataclass
class ImportReport:
    """The report of an import."""

    cache: str
    """The cache's folder."""
    dataset: str
    """The name of the data set."""
    clips: int = 0
    """The number of clips that were imported."""
    dropped: int = 0
    """The number of rows that the mapping's ``drop`` left out."""
    gone: int = 0
    """The number of clips of the data set that are listed no more and take no part in evaluations."""
    added: dict[str, int] = field(default_factory=dict)
    """The number of rows added to each stream."""
    absent: dict[str, int] = field(default_factory=dict)
    """The number of absent rows among those added to each stream."""
    held: dict[str, int] = field(default_factory=dict)
    """The number of rows that each stream held already."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about what the user should know, such as class words without a vector."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def import_features(
    mapping: Path,
    cache: Path,
    dataset: str | None = None,
    sources: Mapping[str, Path] | None = None,
    progress: Callable[[str], None] = lambda text: None,
    *,
    any_origin: bool = False,
) -> ImportReport:
    """Import the data set that a mapping file describes into ``cache``; see docs/import.md.

    dataset, sources: replace those of the mapping.
    progress: called with the name of each stream.
    any_origin: the clips are added to a data set that was made from other data, even where they share none with it.

    Nothing is written before labels, ids and the shapes of all arrays have been found right, and nothing of a new data
    set is left where its import fails nevertheless. Raises UsageError for a wrong mapping, CacheError for arrays that
    are missing, do not match in rows, have a wrong shape or type or are not finite, and for clips that the cache holds
    with other features or labels.
    """
    plan = read_mapping(mapping, sources, dataset)
    folder = cache / plan.dataset
    with Sources(plan) as files, _first_import(folder, plan):
        held = Catalog.read(folder) if (folder / "catalog.h5").is_file() else None
        if held is not None:
            refuse_older(folder, held)
        catalog, chosen = import_catalog(plan, files, held)
        if plan.label_sets or held is None:
            catalog.sources = ClipSources.of(_origin(plan), len(catalog))
        if held is not None and not any_origin:
            _refuse_other_data(plan, held, catalog)
        arrays = [_Array(spec, files, chosen, catalog.clip_id) for spec in plan.arrays]
        words = [_words(spec, files, catalog) for spec in plan.words]
        joined = update_catalog(folder, lambda now: _joined(str(cache), now, plan, catalog))
        report = ImportReport(str(cache), plan.dataset, len(catalog), int((~chosen).sum()))
        report.gone = int(joined.sources.gone.sum())
        report.warnings = [warning for source in files.open.values() for warning in source.warnings]
        for name in plan.label_sets:
            report.warnings += class_warnings(name, catalog.labels(name).class_names)
        for array in arrays:
            report.warnings += _about_modality(array.spec.stream.modality)
            progress(str(array.spec.stream))
            _write(
                report,
                folder,
                array.provenance,
                zip(catalog.clip_id, array.clips(), _facts(catalog), array.times(), strict=True),
            )
        for provenance, rows, warnings in words:
            progress(f"word/{provenance.encoder}")
            report.warnings += warnings
            _write(report, folder, provenance, ((key, x, {}, None) for key, x in rows))
    return report


def _origin(plan: ImportMapping) -> Origin:
    """The origin of imported clips, which is the mapping's first source; several mappings may choose clips from it."""
    path, _ = next(iter(plan.sources.values()))
    return Origin("import", os.path.realpath(path), options={"mapping": plan.name})


def _joined(cache: str, held: Catalog | None, plan: ImportMapping, catalog: Catalog) -> Catalog:
    """The union of the catalog in the cache and the imported one.

    Clips that the same mapping brought before and brings no more are unlisted; where nothing else lists them, they are
    gone, and unlabelled.
    """
    joined = unite([*([] if held is None else [(cache, held)]), (plan.name, catalog)])
    brought = set(catalog.clip_id)
    lost = np.array([clip not in brought for clip in joined.clip_id], bool)
    number = next((i for i, o in enumerate(joined.sources.origins) if o.is_same(_origin(plan))), None)
    if not plan.label_sets or number is None or not lost.any():
        return joined
    listed = joined.sources.listed.copy()
    listed[lost, number] = False
    sources = replace(joined.sources, listed=listed)
    label_sets = {name: labels.without(sources.gone & lost) for name, labels in joined.label_sets.items()}
    return replace(joined, sources=sources, label_sets=label_sets)


def _refuse_other_data(plan: ImportMapping, held: Catalog, catalog: Catalog) -> None:
    """Raise CacheError where clips with labels of their own would join a data set that has nothing in common with them.

    Imports with the same label sets may bring one data set's clips in parts. Where clips or label sets are shared, they
    are compared.
    """
    origins = [origin for origin in held.sources.origins if origin.is_known]
    is_same = any(origin.kind == "import" and origin.root == _origin(plan).root for origin in origins)
    if is_same or not origins or not plan.label_sets or not set(held.clip_id).isdisjoint(catalog.clip_id):
        return
    if (
        all(origin.kind == "import" for origin in origins)
        and held.label_sets.keys() & catalog.label_sets.keys()
    ):
        return
    raise CacheError(
        f"Data set {plan.dataset!r} of the cache was made from {origins[0].text()}, and shares no clip with mapping "
        f"{plan.name!r}; give this one another name by --dataset NAME, or unite them all the same by --any-origin."
    )


def _first_import(folder: Path, plan: ImportMapping) -> AbstractContextManager[None]:
    """A context that leaves nothing of a new data set where its import fails, or is interrupted without a row."""
    without_rows = not (plan.arrays or plan.words)
    return first_attempt(folder, is_worth_keeping=lambda held: bool(held) or without_rows, whole=True)


def _write(
    report: ImportReport,
    folder: Path,
    provenance: Provenance,
    rows: Iterator[tuple[str, np.ndarray | None, Mapping[str, object], np.ndarray | None]],
) -> None:
    with StreamWriter(folder, provenance) as writer:
        stream = str(writer.stream)
        before = stream_checks(folder, writer.stream)
        added = absent = held = 0
        for key, x, facts, times in rows:
            if key in before:
                if _check(key, x, provenance) != before[key]:
                    raise CacheError(
                        f"Clip {key!r} is in stream {stream} with other features; import into another cache, or delete "
                        "the stream's folder first."
                    )
                held += 1
                continue
            writer.add(key, x, facts, cut_times(times, x))
            added, absent = added + 1, absent + (x is None)
    report.added[stream], report.absent[stream], report.held[stream] = added, absent, held


def _check(key: str, x: np.ndarray | None, provenance: Provenance) -> int:
    stored = np.zeros((0, provenance.dim), provenance.dtype) if x is None else storable(key, x, provenance)
    return clip_check(key, x is not None, stored)


def _facts(catalog: Catalog) -> Iterator[Mapping[str, object]]:
    for row in range(len(catalog)):
        yield {name: values[row] for name, values in catalog.facts.items()}


def _hint(column: Column, clips: int) -> str:
    """A clause for an array whose last axis has as many entries as there are clips; "" for any other."""
    if not isinstance(column, ArrayColumn) or len(column.shape) < 2 or column.shape[-1] != clips:
        return ""
    return "; its last axis has that many: if clips lie there, as in what MATLAB writes, set 'transposed': true for it"


def _about_modality(modality: str) -> list[str]:
    """A sentence where a modality's name looks like a misspelt built-in one, for any name is allowed."""
    near = difflib.get_close_matches(modality, MODALITIES, n=1, cutoff=0.8)
    if modality in MODALITIES or not near:
        return []
    return [
        f"Modality {modality!r} is a name of your own; if you meant {near[0]!r}, import into another cache."
    ]


class _Array:
    """An array that becomes a stream; its shape has been checked, its values have not been read yet.

    chosen: bool [n], the rows of the source that are imported. ids: the clip ids of these rows.
    """

    def __init__(self, spec: ArraySpec, files: Sources, chosen: np.ndarray, ids: Sequence[str]) -> None:
        self.spec, self.chosen, self.ids = spec, chosen, ids
        column = files.column(spec.array)
        self.column = column.transposed() if spec.transposed else column
        n = len(chosen)
        self.length: np.ndarray | None = None
        if spec.length is not None and column.rows is not None:
            self.length = _whole_numbers(files.values(spec.length, n), spec.length)
        self.times_column = None if spec.times is None else files.column(spec.times)
        if spec.concatenated and self.length is not None:
            if self.times_column is not None:
                self.times_column = ConcatenatedColumn(self.times_column, self.length)
            self.column, self.length = ConcatenatedColumn(self.column, self.length), None
        if self.column.rows is None and (spec.length or spec.present):
            raise UsageError(
                f"Array {spec.array!r} has one file or dataset a clip, which shows its length and whether it is there; "
                "leave out 'length' and 'present'."
            )
        if self.column.rows is not None and self.column.rows != n:
            raise CacheError(
                f"Array {spec.array!r} has {self.column.rows:,} rows where the clips are {n:,}{_hint(column, n)}."
            )
        self.present = (
            None if spec.present is None else read_flags(files.values(spec.present, n), spec.present)
        )
        self.provenance = self._provenance(_dim(spec, self.column, ids))
        _refuse_rounding(spec, _sample(self._present()))

    def _provenance(self, dim: int) -> Provenance:
        spec = self.spec
        about = {"weights": "imported", "sampling": "imported", "preprocessing": "imported", **spec.about}
        if (spec.scale, spec.offset) != (1.0, 0.0):
            about["preprocessing"] += f"; times {spec.scale:g}, plus {spec.offset:g}"
        return Provenance(spec.stream.encoder, spec.stream.modality, dim, dtype=spec.dtype, **about)

    def clips(self) -> Iterator[np.ndarray | None]:
        """The features [T, D] of each clip that is imported, or None where the clip is absent."""
        if self.column.rows is None:
            for clip, x in zip(self.ids, self.column.clips(self.ids)):
                yield None if x is None else self._features(clip, x)
            return
        ids = iter(self.ids)
        for row, x in enumerate(self.column.clips(self.ids)):
            if self.chosen[row]:
                clip = next(ids)
                yield (
                    None
                    if x is None or self._is_absent(row)
                    else self._features(clip, self._cut(clip, row, x))
                )

    def times(self) -> Iterator[np.ndarray | None]:
        """The seconds of the steps of each clip that is imported, None where they are not known."""
        if self.times_column is None:
            return repeat(None, len(self.ids))
        return times_of_clips(self.times_column, self.chosen, self.ids)

    def _present(self) -> Iterator[np.ndarray]:
        """The features [T, D] of each clip that is imported and not absent."""
        return (x for x in self.clips() if x is not None)

    def _is_absent(self, row: int) -> bool:
        return (self.present is not None and not self.present[row]) or (
            self.length is not None and not self.length[row]
        )

    def _cut(self, clip: str, row: int, x: np.ndarray) -> np.ndarray:
        if self.length is None:
            return x
        if x.ndim != 2 or not 0 <= self.length[row] <= len(x):
            raise CacheError(
                f"Length {self.length[row]} of clip {clip!r} in {self.spec.length!r} does not fit array "
                f"{self.spec.array!r}, whose clips have shape {list(x.shape)}."
            )
        return x[: self.length[row]]

    def _features(self, clip: str, x: np.ndarray) -> np.ndarray:
        spec = self.spec
        x = _flattened(x, spec)
        if x.ndim not in (1, 2) or x.dtype.kind not in "biuf":
            raise CacheError(_shape_message(spec.array, x, f"clip {clip!r}"))
        x = x[None] if x.ndim == 1 else x
        if not np.isfinite(x).all():
            raise CacheError(
                f"Array {spec.array!r} holds NaN or infinity for clip {clip!r}; mend it, or mark such clips as absent "
                "by a 'present' array."
            )
        if (spec.scale, spec.offset) != (1.0, 0.0):
            return x.astype(np.float64) * spec.scale + spec.offset
        return x


_NAMED = 5  # The number of classes that warnings name.
_SAMPLE = 256  # The number of clips by which the scale of an array is judged before anything is written.
_SAMPLE_NUMBERS = 4 << 20
_TOLERATED = 0.05  # The share of the clips' differences that rounding may make up; usual features have 0.003.
_CONSTANT = 1e-6  # Differences below this share of the features' length are taken for float32's own rounding.
_SMALLEST, _LARGEST = (
    1e-11,
    1e18,
)  # Lengths beyond are lost in float32, in which clips are scaled and compared.


def _sample(clips: Iterator[np.ndarray]) -> list[np.ndarray]:
    """The first clips, as many as are needed to judge the scale of an array."""
    found: list[np.ndarray] = []
    numbers = 0
    for x in islice(clips, _SAMPLE):
        found.append(x)
        numbers += x.size
        if numbers > _SAMPLE_NUMBERS:
            break
    return found


def _refuse_rounding(spec: ArraySpec, clips: Sequence[np.ndarray]) -> None:
    """Raise CacheError where the stored type would round away what tells clips [T, D] apart, or their scale is absurd.

    Values that do not stay finite are left to the writer, which names the clip.
    """
    if not clips or len({x.shape[1] for x in clips}) > 1:
        return
    x = np.concatenate(clips).astype(np.float64)
    length = float(np.sqrt(np.square(x).sum(1).mean()))
    if length and not _SMALLEST < length < _LARGEST:
        raise CacheError(
            f"Array {spec.array!r} holds features of length {length:.3g} on average, which are lost in the float32 of "
            "every evaluation; give the array a 'scale' that brings them near 1."
        )
    computed = min(spec.dtype, "float32", key=lambda name: np.dtype(name).itemsize)
    with np.errstate(over="ignore", under="ignore"):
        stored = x.astype(computed).astype(np.float64)
    if not np.isfinite(stored).all():
        return
    spread, error = np.linalg.norm(x - x.mean(0)), np.linalg.norm(stored - x)
    if spread > _CONSTANT * np.linalg.norm(x) and error > _TOLERATED * spread:
        remedy = "set 'dtype': 'float32' for it, or " if spec.dtype == "float16" else ""
        raise CacheError(
            f"Array {spec.array!r} does not survive {computed}: rounding makes up {error / spread:.0%} of what tells "
            f"its clips apart; {remedy}bring its values near 1 by 'scale' and 'offset'."
        )


def _flattened(x: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """A clip's array, whose steps become vectors where the mapping asks for it."""
    return x.reshape(len(x), -1) if spec.flatten and x.ndim > 2 else x


def _dim(spec: ArraySpec, column: Column, ids: Sequence[str]) -> int:
    """The width D of an array's features, found from the first clip that it holds."""
    name = spec.array
    for whole in column.clips(ids):
        if whole is not None:
            x = _flattened(whole, spec)
            if x.ndim not in (1, 2) or x.dtype.kind not in "biuf" or not x.size:
                raise CacheError(_shape_message(name, x, "the first clip"))
            return int(x.shape[-1])
    raise CacheError(f"Array {name!r} holds no clip of this dataset; check it, and the clip ids.")


def _shape_message(name: str, x: np.ndarray, which: str) -> str:
    shape = f"{x.dtype} of shape {list(x.shape)}"
    return f"Array {name!r} holds {shape} for {which}; features must be numbers, [D] or [T, D] a clip."


def _whole_numbers(values: np.ndarray, name: str) -> np.ndarray:
    try:
        numbers = values.astype(np.float64)
        whole = numbers.astype(np.int64)
        if values.ndim == 1 and (whole == numbers).all() and (whole >= 0).all():
            return whole
    except (ValueError, OverflowError):
        pass
    raise CacheError(f"Array {name!r} must hold one length, a whole number from 0, a clip.")


def _words(
    spec: WordSpec, files: Sources, catalog: Catalog
) -> tuple[Provenance, list[tuple[str, np.ndarray]], list[str]]:
    warnings: list[str] = []
    if spec.by is not None:
        rows, without = vectors_by_text(spec, files.column(spec.vectors), catalog)
        how = f"the vector of each class's {spec.by}"
        return _word_provenance(spec, rows[0][1].shape[-1], how), rows, _about_classes(without)
    vectors = files.values(spec.vectors)
    if vectors.ndim not in (2, 3) or vectors.dtype.kind not in "biuf" or not np.isfinite(vectors).all():
        raise CacheError(f"Array {spec.vectors!r} must hold finite numbers, one vector a word or class.")
    names = files.values(spec.words or spec.keys or "", len(vectors)).astype(str)
    if spec.keys is not None:
        length = (
            None
            if spec.length is None
            else _whole_numbers(files.values(spec.length, len(vectors)), spec.length)
        )
        rows = [
            (composed(str(key)), vectors[i].reshape(-1, vectors.shape[-1])) for i, key in enumerate(names)
        ]
        rows = rows if length is None else [(key, x[: length[i]]) for i, (key, x) in enumerate(rows)]
        how = "imported"
    else:
        rows, warnings = _averaged(spec, names, vectors, catalog)
        how = "mean of the vectors of the words of each class"
    return _word_provenance(spec, vectors.shape[-1], how), rows, warnings


def _word_provenance(spec: WordSpec, dim: int, how: str) -> Provenance:
    """The provenance of class-word vectors; how: what they are, unless the mapping says."""
    about = {"weights": "imported", "preprocessing": how, **spec.about}
    return Provenance(spec.stream.encoder, "word", dim, axis="class", dtype=spec.dtype, **about)


def _averaged(
    spec: WordSpec, names: np.ndarray, vectors: np.ndarray, catalog: Catalog
) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
    """The mean vector [1, E] of the words of each class of every label set, as (key, vector) rows, and warnings.

    Words without a vector, and classes without any, are left out with a warning. Raises CacheError where no class has a
    vector.
    """
    row = {composed(name): i for i, name in reversed(list(enumerate(names.tolist())))}
    rows: list[tuple[str, np.ndarray]] = []
    partly: list[tuple[str, list[str]]] = []
    without: list[str] = []
    for label_set, labels in catalog.label_sets.items():
        for class_name, text in zip(labels.class_names, labels.words):
            words = re.findall(r"[^\W_]+(?:'[^\W_]+)*", composed(readable(text)))
            found = [row[word] for word in words if word in row]
            if not found:
                without.append(
                    f"None of the words of class {class_name!r} ({text!r}) is in {spec.words!r}; give the class other "
                    f"'words' in label set {label_set!r}"
                )
                continue
            if unknown_words := [word for word in words if word not in row]:
                partly.append((class_name, unknown_words))
            rows.append(
                (f"{label_set}/{class_name}", vectors[found].astype(np.float64).mean(0, keepdims=True))
            )
    if not rows and without:
        raise CacheError(f"{without[0]}.")
    return rows, [*_about_classes(without), *_about_words(partly)]


def _about_classes(without: Sequence[str]) -> list[str]:
    """Sentences about the classes without any vector, given as clauses that name each."""
    sentences = [
        f"{clause}, or heads that read class words do without all of them." for clause in without[:_NAMED]
    ]
    if len(without) > _NAMED:
        sentences.append(f"{len(without) - _NAMED:,} more classes have no word with a vector.")
    return sentences


def _about_words(partly: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Sentences about the classes that lack a vector for some of their words, given as (class, words) pairs."""
    sentences = [
        f"Class {class_name!r}: no vector for {', '.join(words)}; left out."
        for class_name, words in partly[:_NAMED]
    ]
    if len(partly) > _NAMED:
        rest = len(partly) - _NAMED
        sentences.append(f"{rest:,} more classes have words without a vector, which are left out.")
    return sentences
