"""The mapping file of `fsmm cache import`, which says what the arrays of each file mean.

docs/import.md explains every key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CacheError, FsmmError, UsageError, brief, unknown
from ...machine.files import read_table
from ..schema import StreamName, check_name
from .columns import Column, CsvColumn
from .per_clip import ClipColumn
from .sources import Source

STORED = ("float16", "float32", "float64")
_TOP = {
    "dataset", "attrs", "source", "sources", "ids", "repeated_ids", "drop", "clip_split", "groups", "paths", "facts",
    "arrays", "label_sets", "default_label_set", "words",
}  # fmt: skip
_ARRAY = {
    "stream", "scale", "offset", "dtype", "transposed", "flatten", "length", "concatenated", "present", "times",
    "weights", "weights_sha256", "preprocessing", "sampling", "extra",
}  # fmt: skip
_LABELS = {"label", "class_names", "words", "splits"}
_WORDS = {
    "words",
    "vectors",
    "keys",
    "by",
    "length",
    "dtype",
    "weights",
    "weights_sha256",
    "preprocessing",
    "sampling",
    "extra",
}
_PROVENANCE = ("weights", "weights_sha256", "preprocessing", "sampling")
_SPLIT = {"seed", "base", "val", "novel"}


@dataclass(frozen=True)
class ArraySpec:
    """An array that becomes a stream of the features array * scale + offset."""

    array: str
    """The array's name."""
    stream: StreamName
    """The stream that it becomes."""
    scale: float = 1.0
    """The factor of the array's values."""
    offset: float = 0.0
    """The number added to the scaled values."""
    dtype: str = "float16"
    """The type in which the features are stored."""
    transposed: bool = False
    """Whether the axes are stored in reverse order, clips last, as MATLAB writes plain HDF5."""
    flatten: bool = False
    """Whether a step of several axes becomes one vector, such as the coordinates of joints or the pixels of a map."""
    length: str | None = None
    """The name of the array of valid lengths, or None."""
    concatenated: bool = False
    """Whether the steps of all clips follow one another in the array, as many for each clip as ``length`` says."""
    present: str | None = None
    """The name of the array that says whether each clip is present, or None."""
    times: str | None = None
    """The name of the array of the seconds of the steps' middles, arranged as the features are, or None."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Texts for the provenance: weights, preprocessing and so on."""


@dataclass(frozen=True)
class LabelSpec:
    """The description of a label set."""

    label: str
    """The name of the array of labels."""
    class_names: str | Sequence[str] | None = None
    """The name of the array of class names, or the names themselves."""
    words: str | Sequence[str] | None = None
    """The name of the array of the classes' texts, or the texts themselves."""
    splits: Mapping[str, Any] = field(default_factory=dict)
    """The class splits, as the mapping file gives them."""


@dataclass(frozen=True)
class WordSpec:
    """The description of class-word vectors: those of a vocabulary of V words, or those of classes by key or text."""

    stream: StreamName
    """The word stream that the vectors become."""
    vectors: str
    """The name of the array of vectors, [V, E] of a vocabulary."""
    words: str | None = None
    """The name of the array of the vocabulary's words [V], or None."""
    keys: str | None = None
    """The name of the array of keys ("label set/class name"), or None."""
    by: str | None = None
    """What names the vectors of an array that has one a text: "words", the classes' texts, or "names"; or None."""
    length: str | None = None
    """The name of the array of valid lengths of vectors by key, or None."""
    dtype: str = "float32"
    """The type in which the vectors are stored."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Texts for the provenance: weights, preprocessing and so on."""


@dataclass
class ImportMapping:
    """The content of a mapping file, read before any of its sources is opened."""

    name: str
    """The name of the mapping file."""
    dataset: str
    """The name of the data set."""
    sources: dict[str, tuple[Path, str | None]]
    """The path and the format (None where the path tells it) of each source, by name."""
    arrays: list[ArraySpec]
    """The arrays that become streams."""
    label_sets: dict[str, LabelSpec]
    """The label sets by name; none where streams are added to clips that the cache holds."""
    default_label_set: str
    """The name of the label set that is used when none is named."""
    words: list[WordSpec]
    """The class-word vectors that become word streams."""
    ids: str | None = None
    """The name of the array of clip ids, or None."""
    repeated_ids: str = "refuse"
    """What happens to an id of several rows: "refuse" raises an error, "suffix" numbers its rows."""
    drop: list[str] = field(default_factory=list)
    """The names of the arrays that say, by 1, which rows are dropped."""
    clip_split: str | None = None
    """The name of the array of the data set's own split of clips, or None."""
    groups: str | None = None
    """The name of the array of the source that each clip shares with others, or None."""
    paths: str | None = None
    """The name of the array of the clips' paths, or None."""
    facts: dict[str, str] = field(default_factory=dict)
    """The name of the array of each fact, by the fact's name."""
    attrs: dict[str, str] = field(default_factory=dict)
    """Texts about the data set: title, licence and the like."""


def read_mapping(
    path: Path, sources: Mapping[str, Path] | None = None, dataset: str | None = None
) -> ImportMapping:
    """Read a JSON or YAML mapping file. ``sources`` and ``dataset`` replace those that the file names.

    Raises CacheError where the file cannot be read, UsageError where a key is missing, unknown or of a wrong type.
    """
    top = read_table(path, "mapping file", error=CacheError)
    _keys(top, _TOP, "mapping key")
    labels = {check_name("Label set", n): _label_spec(n, s) for n, s in _table(top, "label_sets").items()}
    default = str(top.get("default_label_set", next(iter(labels), "")))
    if labels and default not in labels:
        raise unknown("label set", default, labels)
    repeated = str(top.get("repeated_ids", "refuse"))
    if repeated not in ("refuse", "suffix"):
        raise unknown("value of 'repeated_ids'", repeated, ("refuse", "suffix"))
    drop = top.get("drop", [])
    return ImportMapping(
        name=path.name,
        dataset=check_name("Dataset", dataset or str(_needed(top, "dataset", "mapping"))),
        sources=_sources(top, path.parent, sources or {}),
        arrays=[_array_spec(array, spec) for array, spec in _table(top, "arrays").items()],
        label_sets=labels,
        default_label_set=default,
        words=[_word_spec(stream, spec) for stream, spec in _table(top, "words").items()],
        ids=_text(top, "ids"),
        repeated_ids=repeated,
        drop=[str(name) for name in ([drop] if isinstance(drop, str) else drop)],
        clip_split=_text(top, "clip_split"),
        groups=_text(top, "groups"),
        paths=_text(top, "paths"),
        facts={str(k): str(v) for k, v in _table(top, "facts").items()},
        attrs={str(k): str(v) for k, v in _table(top, "attrs").items()},
    )


class Sources:
    """The open sources of a mapping; arrays are found by ``name`` (in the first source) or by ``source:name``."""

    def __init__(self, mapping: ImportMapping) -> None:
        self.mapping = mapping
        self.open: dict[str, Source] = {}

    def column(self, reference: str) -> Column:
        """The array that ``reference`` names. Raises FsmmError where there is none."""
        head, colon, name = reference.partition(":")
        if colon and head in self.mapping.sources:
            return self._source(head).column(name)
        if reference in self.mapping.sources and "" in self._source(reference).names:
            return self._source(reference).column("")
        return self._source(next(iter(self.mapping.sources))).column(reference)

    def is_csv(self, reference: str) -> bool:
        """Whether ``reference`` names a column of a CSV file."""
        return isinstance(self.column(reference), CsvColumn)

    def values(self, reference: str, rows: int | None = None) -> np.ndarray:
        """The values of a whole array. Raises CacheError where the array cannot be read or has not ``rows`` rows."""
        try:
            found = self.column(reference).values()
        except FsmmError:
            raise
        except Exception as error:
            raise CacheError(f"Array {reference!r} cannot be read ({error}).") from None
        if rows is not None and (not found.ndim or len(found) != rows):
            has = f"{len(found):,} rows" if found.ndim else "no rows"
            raise CacheError(f"Array {reference!r} has {has} where the clips are {rows:,}.")
        return found

    def clip_values(self, reference: str, ids: Sequence[str]) -> np.ndarray:
        """The values of an array with one entry for each of the clips ``ids``, in their order.

        Raises CacheError where the array cannot be read, lacks a clip, or where its rows cannot be told apart.
        """
        column = self.column(reference)
        if isinstance(column, ClipColumn):
            found = list(column.clips(ids))
            lacking = [clip for clip, value in zip(ids, found) if value is None]
            if lacking:
                raise CacheError(f"Array {reference!r} has no value for clip {brief(lacking[0])}.")
            if any(value.size != 1 for value in found if value is not None):
                raise CacheError(f"Array {reference!r} must hold one value a clip.")
            return np.array([value.reshape(-1)[0] for value in found if value is not None])
        if self._clips_are_groups() and column.rows is not None:
            raise CacheError(
                f"The rows of array {reference!r} have no ids, and the clips are named parts of a source in an order "
                "of their own; give the ids of these rows by 'ids'."
            )
        return self.values(reference, len(ids))

    def _clips_are_groups(self) -> bool:
        """Whether the ids of the clips are the names of groups, datasets, members or keys of a source."""
        arrays = self.mapping.arrays
        return (
            self.mapping.ids is None and bool(arrays) and isinstance(self.column(arrays[0].array), ClipColumn)
        )

    def _source(self, name: str) -> Source:
        if name not in self.open:
            self.open[name] = Source(*self.mapping.sources[name])
        return self.open[name]

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *ignored: object) -> None:
        for source in self.open.values():
            source.close()


def _sources(
    top: dict[str, Any], folder: Path, given: Mapping[str, Path]
) -> dict[str, tuple[Path, str | None]]:
    if "source" in top and "sources" in top:
        raise UsageError("A mapping has either 'source' or 'sources', not both.")
    named = _table(top, "sources") if "sources" in top else {"source": _needed(top, "source", "mapping")}
    found: dict[str, tuple[Path, str | None]] = {}
    for name, entry in named.items():
        spec = entry if isinstance(entry, dict) else {"path": entry}
        _keys(spec, {"path", "format"}, f"key of source {name!r}")
        kind = spec.get("format")
        place = given.get(name) or folder / str(_needed(spec, "path", f"source {name!r}"))
        found[str(name)] = place, None if kind is None else str(kind)
    for name in given:
        if name not in found:
            raise unknown("source", name, found)
    if not found:
        raise UsageError("The mapping names no source; give a file or folder under 'source'.")
    return found


def _array_spec(array: str, spec: Any) -> ArraySpec:
    what = f"array {array!r}"
    spec = {"stream": spec} if isinstance(spec, str) else spec
    _keys(spec, _ARRAY, f"key of {what}")
    stream = StreamName.parse(str(_needed(spec, "stream", what)))
    if stream.modality == "word":
        raise UsageError(f"Stream {stream} holds class words; describe it under 'words', not under 'arrays'.")
    concatenated = _flag(spec, "concatenated", what)
    if concatenated and "length" not in spec:
        raise UsageError(
            f"The steps of {what} are concatenated; name the array of each clip's length by 'length'."
        )
    return ArraySpec(
        array=array,
        stream=stream,
        scale=_number(spec, "scale", 1.0, what),
        offset=_number(spec, "offset", 0.0, what),
        dtype=_stored(spec, "float16", what),
        transposed=_flag(spec, "transposed", what),
        flatten=_flag(spec, "flatten", what),
        length=_text(spec, "length"),
        concatenated=concatenated,
        present=_text(spec, "present"),
        times=_text(spec, "times"),
        about=_about(spec),
    )


def _label_spec(name: str, spec: Any) -> LabelSpec:
    what = f"label set {name!r}"
    spec = {"label": spec} if isinstance(spec, str) else spec
    _keys(spec, _LABELS, f"key of {what}")
    splits = _table(spec, "splits")
    for split, entry in splits.items():
        check_name("Class split", split)
        if not isinstance(entry, str):
            _keys(entry, _SPLIT, f"key of class split {split!r}")
    return LabelSpec(str(_needed(spec, "label", what)), spec.get("class_names"), spec.get("words"), splits)


def _word_spec(stream: str, spec: Any) -> WordSpec:
    what = f"word stream {stream!r}"
    _keys(spec, _WORDS, f"key of {what}")
    name = StreamName.parse(stream)
    if name.modality != "word":
        raise UsageError(f"Stream {stream!r} is not a word stream; describe it under 'arrays'.")
    if sum(key in spec for key in ("words", "keys", "by")) != 1:
        raise UsageError(
            f"The {what} needs either 'words' (a vocabulary), 'keys' (one vector a class) or 'by' (vectors that are "
            "named by the classes' words or names)."
        )
    if (by := spec.get("by")) not in (None, "words", "names"):
        raise unknown(f"value of 'by' of {what}", str(by), ("words", "names"))
    return WordSpec(
        stream=name,
        vectors=str(_needed(spec, "vectors", what)),
        words=_text(spec, "words"),
        keys=_text(spec, "keys"),
        by=_text(spec, "by"),
        length=_text(spec, "length"),
        dtype=_stored(spec, "float32", what),
        about=_about(spec),
    )


def _about(spec: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {key: str(spec[key]) for key in _PROVENANCE if key in spec}
    if extra := _table(spec, "extra"):
        about["extra"] = {key: str(value) for key, value in extra.items()}
    return about


def _keys(table: Any, known: set[str], what: str) -> None:
    if not isinstance(table, dict):
        raise UsageError(f"The mapping needs a table of keys where it has {brief(table)} ({what}).")
    for key in table:
        if key not in known:
            raise unknown(what, str(key), known)


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    found = table.get(key) or {}
    if not isinstance(found, dict):
        raise UsageError(f"{key!r} of the mapping must be a table of names, not {brief(found)}.")
    return {str(name): value for name, value in found.items()}


def _needed(table: dict[str, Any], key: str, what: str) -> Any:
    if table.get(key) in (None, ""):
        raise UsageError(f"The {what} lacks the key {key!r}.")
    return table[key]


def _text(table: dict[str, Any], key: str) -> str | None:
    return None if table.get(key) is None else str(table[key])


def _number(table: dict[str, Any], key: str, otherwise: float, what: str) -> float:
    found = table.get(key, otherwise)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise UsageError(f"{key!r} of {what} must be a number, not {brief(found)}.")
    return float(found)


def _flag(table: dict[str, Any], key: str, what: str) -> bool:
    found = table.get(key, False)
    if not isinstance(found, bool):
        raise UsageError(f"{key!r} of {what} must be true or false, not {brief(found)}.")
    return found


def _stored(table: dict[str, Any], otherwise: str, what: str) -> str:
    found = str(table.get("dtype", otherwise))
    if found not in STORED:
        raise unknown(f"dtype of {what}", found, STORED)
    return found
