"""The catalog of a data set: clips, label sets, class words, splits, and facts about each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from .._version import __version__
from ..errors import CacheError, UsageError, listed, unknown
from ..machine.texts import composed
from .class_draw import ClassDraw, is_drawn
from .hdf5 import own_object, stored_array, stored_values
from .header import (
    CATALOG_KIND,
    READ_SCHEMAS,
    check_schema,
    empty_claim,
    header_is_right,
    refuse_other_schema,
    write_sealed,
)
from .origin import ClipSources
from .schema import CLASS_SPLITS, SCHEMA_VERSION, check_name

KIND = CATALOG_KIND
UNLABELLED = -1
_SPLIT_CODE = {"": 0, "base": 1, "val": 2, "novel": 3}

CLIP_SPLITS = {
    "": "", "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The usual ways, in lower case, to write a data set's own split of clips."""

# The type of each fact and its value while it is unknown; facts are filled in from the shards after extraction.
FACTS: dict[str, tuple[str, object]] = {
    "duration": ("f8", np.nan),
    "fps": ("f8", np.nan),
    "width": ("i4", 0),
    "height": ("i4", 0),
    "has_video": ("?", False),
    "has_audio": ("?", False),
    "sha256": ("S64", b""),
}


@dataclass
class LabelSet:
    """One way to label n clips with C classes.

    >>> labels = LabelSet(["ApplyMakeup", "archery"], np.array([0, 0, 1, UNLABELLED]))
    >>> labels.words, labels.counts().tolist()
    (['apply makeup', 'archery'], [2, 1])
    """

    class_names: list[str]
    """The C names, as the data set spells them."""
    label: np.ndarray
    """int32 [n], UNLABELLED where a clip has no label; or uint8 [n, C] multi-hot, zeros where a clip has no label."""
    words: list[str] = field(default_factory=list)
    """The C texts for word encoders: the class names made readable, unless the data set has better texts."""
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    """The class splits by name, each int8 [C] of 0 none, 1 base, 2 val, 3 novel; "default" is used if none is named."""
    split_origin: dict[str, str] = field(default_factory=dict)
    """Where each class split comes from, in words and by name, as far as it is known."""

    def __post_init__(self) -> None:
        if not self.words:
            self.words = [readable(name) for name in self.class_names]
        if self.multi:
            self.label = np.asarray(self.label, np.uint8)
        else:
            self.label = np.asarray(self.label, np.int32)
        self.splits = {k: np.asarray(v, np.int8) for k, v in self.splits.items()}
        classes = len(self.class_names)
        for name in self.splits:
            check_name("Class split", name)
        if len(set(self.class_names)) != classes:
            raise CacheError("A label set names the same class twice; give each class its own name.")
        if len(self.words) != classes or any(len(s) != classes for s in self.splits.values()):
            raise CacheError("A label set's words and class splits need one entry a class.")
        if self.multi and self.label.shape[1] != classes:
            raise CacheError(f"Multi-hot labels have {self.label.shape[1]} columns for {classes} classes.")
        if (
            not self.multi
            and len(self.label)
            and (self.label.max() >= classes or self.label.min() < UNLABELLED)
        ):
            raise CacheError(
                f"Labels run from {self.label.min()} to {self.label.max()} but there are {classes} classes."
            )

    @property
    def multi(self) -> bool:
        return np.ndim(self.label) == 2

    def counts(self) -> np.ndarray:
        """The number of clips of each class, int64 [C]."""
        if self.multi:
            return self.label.sum(0, dtype=np.int64)
        return np.bincount(self.label[self.label >= 0], minlength=len(self.class_names)).astype(np.int64)

    def class_split(self, split: str, class_split: str = "default") -> np.ndarray:
        """The indices of the base, val or novel classes. Raises UsageError for an unknown split."""
        codes = self.codes(class_split)
        if split not in CLASS_SPLITS:
            raise unknown("split", split, CLASS_SPLITS)
        return np.flatnonzero(codes == _SPLIT_CODE[split])

    def codes(self, class_split: str) -> np.ndarray:
        """The codes int8 [C] of a class split: a stored one, or one that is drawn as its name says (class_draw.py).

        Raises UsageError for an unknown name, and for one that cannot be drawn from these classes.

        >>> labels = LabelSet(["run", "jump", "swim"], np.array([0, 1, 2]), splits={"s0": np.array([1, 1, 3])})
        >>> labels.codes("s0").tolist(), labels.codes("random:1:0").tolist()
        ([1, 1, 3], [1, 1, 3])
        """
        if is_drawn(class_split):
            return self._draw(class_split).codes(len(self.class_names))
        if class_split not in self.splits:
            raise unknown("class split", class_split, self.splits)
        return self.splits[class_split]

    def has_split(self, class_split: str) -> bool:
        """Whether a class split of that name is stored, or its name asks for one that is drawn."""
        return is_drawn(class_split) or class_split in self.splits

    def origin_of(self, class_split: str) -> str:
        """Where a class split comes from, in words; "" where it is not known."""
        if is_drawn(class_split):
            return self._draw(class_split).origin(len(self.class_names))
        return self.split_origin.get(class_split, "")

    def _draw(self, class_split: str) -> ClassDraw:
        draw = ClassDraw.parse(class_split)
        if self.multi:
            raise UsageError(
                f"Class split {class_split!r} cannot be drawn of labels of which a clip may have several: such a clip "
                f"would be in two of its parts. Stored class splits: {listed(sorted(self.splits))}."
            )
        return draw

    def without(self, clips: np.ndarray) -> LabelSet:
        """The same label set in which the clips at ``clips`` (bool [n]) have no label."""
        label = self.label.copy()
        label[clips] = 0 if self.multi else UNLABELLED
        return replace(self, label=label)

    def take(self, clips: np.ndarray) -> LabelSet:
        """The same label set over the clips at ``clips`` (int [m]), in that order."""
        return LabelSet(self.class_names, self.label[clips], self.words, self.splits, self.split_origin)


@dataclass
class Catalog:
    """The clips, labels and facts of a data set of n clips.

    >>> labels = LabelSet(["run", "jump"], np.array([0, 1, 1]))
    >>> catalog = Catalog("toy", ["a", "b", "c"], {"action": labels}, "action")
    >>> len(catalog), catalog.rows()["c"], catalog.take(np.array([2, 0])).clip_id
    (3, 2, ['c', 'a'])
    """

    dataset: str
    """The name of the data set."""
    clip_id: list[str]
    """The n unique ids of the clips."""
    label_sets: dict[str, LabelSet]
    """The label sets by name."""
    default_label_set: str
    """The name of the label set that is used when none is named."""
    path: list[str] = field(default_factory=list)
    """The file of each clip, as a POSIX path relative to the data folder; "" where there is none."""
    clip_split: list[str] = field(default_factory=list)
    """The data set's own split of clips: "train", "val", "test", or "" where it has none."""
    attrs: dict[str, str] = field(default_factory=dict)
    """Texts about the data set: title, licence, "synthetic" and the like."""
    facts: dict[str, np.ndarray] = field(default_factory=dict)
    """One array [n] for each name of FACTS."""
    group: list[str] = field(default_factory=list)
    """The source that each clip shares with others (a long video, a person, an upload), "" where none is known."""
    sources: ClipSources = field(default_factory=lambda: ClipSources.unknown(0))
    """The origin of each clip, and the state of its file."""
    schema: int = SCHEMA_VERSION
    """The schema of the file that the catalog was read from; it is written in the newest one."""

    def __post_init__(self) -> None:
        n = len(self.clip_id)
        check_name("Dataset", self.dataset)
        self.group = self.group or [""] * n
        if not len(self.sources.origin):
            self.sources = ClipSources.unknown(n)
        self.path = self.path or [""] * n
        self.clip_split = self.clip_split or [""] * n
        for name, (dtype, unknown_value) in FACTS.items():
            self.facts.setdefault(name, np.full(n, unknown_value, dtype))
        if len(set(self.clip_id)) != n:
            raise CacheError(f"The catalog of {self.dataset!r} holds the same clip id twice.")
        for name, labels in self.label_sets.items():
            check_name("Label set", name)
            if len(labels.label) != n:
                raise CacheError(f"Label set {name!r} labels {len(labels.label)} clips of {n}.")
        if self.default_label_set not in self.label_sets:
            raise unknown("label set", self.default_label_set, self.label_sets)
        _check_keys(self.clip_id)
        _check_all_inside(self.path)

    def __len__(self) -> int:
        return len(self.clip_id)

    def labels(self, name: str | None = None) -> LabelSet:
        """The label set of that name, or the default one; ``A+B`` joins several into one multi-hot label set.

        Raises UsageError for an unknown name.
        """
        name = name or self.default_label_set
        if "+" in name and name not in self.label_sets:
            parts = list(dict.fromkeys(name.split("+")))
            return together({part: self.labels(part) for part in parts})
        if name not in self.label_sets:
            raise unknown("label set", name, self.label_sets)
        return self.label_sets[name]

    def rows(self) -> dict[str, int]:
        """The row of each clip, by clip id."""
        return {clip: row for row, clip in enumerate(self.clip_id)}

    def take(self, clips: np.ndarray) -> Catalog:
        """The catalog of the clips at ``clips`` (int [m]), in that order."""
        index = np.asarray(clips, np.int64)
        return Catalog(
            dataset=self.dataset,
            clip_id=[self.clip_id[i] for i in index],
            label_sets={name: labels.take(index) for name, labels in self.label_sets.items()},
            default_label_set=self.default_label_set,
            path=[self.path[i] for i in index],
            clip_split=[self.clip_split[i] for i in index],
            attrs=dict(self.attrs),
            facts={name: values[index] for name, values in self.facts.items()},
            group=[self.group[i] for i in index],
            sources=self.sources.take(index),
        )

    def groups(self) -> np.ndarray:
        """The group of each clip, object [n] of texts, None where none is known."""
        return np.array([group or None for group in self.group], object)

    def write(self, folder: Path) -> None:
        """Write ``folder/catalog.h5`` whole or not at all. Raises CacheError where the file cannot be written."""
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(folder / "catalog.h5", KIND, self._fill)

    def _fill(self, file: h5py.File) -> None:
        text = h5py.string_dtype()
        file.attrs.update(
            kind=KIND,
            schema=READ_SCHEMAS[KIND][0],
            fsmm_version=__version__,
            dataset=self.dataset,
            default_label_set=self.default_label_set,
        )
        described = file.create_group("about")
        described.attrs.update(self.attrs)
        clips = file.create_group("clips")
        clips.create_dataset("id", data=_encoded(self.clip_id), dtype=text)
        clips.create_dataset("path", data=_encoded(self.path), dtype=text)
        clips.create_dataset("split", data=self.clip_split, dtype=text)
        if any(self.group):
            clips.create_dataset("group", data=_encoded(self.group), dtype=text)
        self.sources.write(clips)
        for name, values in self.facts.items():
            clips.create_dataset(name, data=values)
        for name, labels in self.label_sets.items():
            group = file.create_group(f"label_sets/{name}")
            group.create_dataset("class_names", data=labels.class_names, dtype=text)
            group.create_dataset("words", data=labels.words, dtype=text)
            group.create_dataset("label", data=labels.label)
            splits = group.create_group("splits")
            for split, codes in labels.splits.items():
                stored = splits.create_dataset(split, data=codes)
                if split in labels.split_origin:
                    stored.attrs["origin"] = labels.split_origin[split]

    @classmethod
    def read(cls, folder: Path) -> Catalog:
        """Read ``folder/catalog.h5``; ``schema`` says where it is of an older schema, which is read only.

        Raises CacheError where the file is absent, damaged or of a schema that is not known.
        """
        path = folder / "catalog.h5"
        if not path.is_file():
            raise CacheError(f"There is no catalog at {str(path)!r}; extract or import the dataset first.")
        try:
            if not header_is_right(path, KIND):
                refuse_other_schema(path, KIND)
                raise ValueError(empty_claim(path) or "its checksum is wrong")
            with h5py.File(path, "r") as file:
                check_schema(file, path, KIND)
                return cls._from_file(file)
        except CacheError:
            raise
        except (
            Exception
        ) as error:  # Damaged or crafted HDF5 makes h5py raise nearly anything: OSError, MemoryError, ...
            raise CacheError(
                f"The catalog {str(path)!r} is damaged ({error}); delete it and run the same extract or import again: "
                "the features are kept."
            ) from None

    @classmethod
    def _from_file(cls, file: h5py.File) -> Catalog:
        clips = own_object(file, "clips")
        held = own_object(file, "label_sets")
        schema = int(file.attrs["schema"])
        catalog = cls(
            dataset=str(file.attrs["dataset"]),
            clip_id=_texts(clips, "id"),
            label_sets={name: _read_labels(own_object(held, name)) for name in held},
            default_label_set=str(file.attrs["default_label_set"]),
            path=_texts(clips, "path"),
            clip_split=_texts(clips, "split"),
            attrs={key: str(value) for key, value in own_object(file, "about").attrs.items()},
            facts={name: stored_values(clips, name) for name in FACTS if name in clips},
            group=_texts(clips, "group") if "group" in clips else [],
            sources=ClipSources.read(clips) if schema > 1 else ClipSources.unknown(0),
            schema=schema,
        )
        n = len(catalog)
        if not len(catalog.path) == len(catalog.clip_split) == len(catalog.group) == n:
            raise ValueError("its lists of clips differ in length")
        for name, values in catalog.facts.items():
            if values.shape != (n,) or values.dtype.kind != np.dtype(FACTS[name][0]).kind:
                raise ValueError(f"its fact {name!r} does not match its clips")
        return catalog


def _read_labels(group: h5py.Group) -> LabelSet:
    label = stored_values(group, "label")
    if label.ndim not in (1, 2) or label.dtype.kind not in "iu":
        raise ValueError("its labels are no whole numbers")
    splits = own_object(group, "splits")
    return LabelSet(
        _texts(group, "class_names"),
        label,
        _texts(group, "words"),
        {split: stored_values(splits, split) for split in splits},
        {split: str(data.attrs["origin"]) for split, data in splits.items() if "origin" in data.attrs},
    )


def together(parts: Mapping[str, LabelSet]) -> LabelSet:
    """Several label sets of the same n clips as one, multi-hot [n, sum of C]; class c of part A is named ``A: c``.

    The words are those of the parts, one part after another. The class splits are those that every part has.
    """
    hot = []
    for labels in parts.values():
        classes = len(labels.class_names)
        hot.append(
            labels.label if labels.multi else (labels.label[:, None] == np.arange(classes)).astype(np.uint8)
        )
    common = set.intersection(*(set(labels.splits) for labels in parts.values()))
    return LabelSet(
        [f"{part}: {name}" for part, labels in parts.items() for name in labels.class_names],
        np.concatenate(hot, 1),
        [text for labels in parts.values() for text in labels.words],
        {
            split: np.concatenate([labels.splits[split] for labels in parts.values()])
            for split in sorted(common)
        },
    )


def check_key(key: str) -> str:
    """Return ``key`` if HDF5 text can hold it as a clip id, and raise CacheError otherwise.

    File names that are not valid UTF-8 can be ids; the empty text and texts with a NUL character cannot.
    """
    if not key or "\0" in key:
        raise CacheError(f"Clip id {key!r} cannot be stored: ids must not be empty or hold a NUL character.")
    try:
        key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise CacheError(f"Clip id {key!r} cannot be stored: it is not valid Unicode.") from None
    return key


def check_inside(path: str) -> None:
    """Raise CacheError where a clip's path leaves its data folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise CacheError(
            f"Clip path {path!r} leaves the data folder; paths must be relative and hold no '..'."
        )


def _check_keys(keys: Sequence[str]) -> None:
    """The same for many keys; where they are plain when joined, none needs to be looked at by itself."""
    joined = "\n".join(keys)
    if not (joined.isascii() and "\0" not in joined and all(keys)):
        for key in keys:
            check_key(key)


def _check_all_inside(paths: Sequence[str]) -> None:
    """Raise CacheError where a path leaves its data folder; paths that are harmless when joined are so one by one."""
    joined = "\n".join(paths)
    if ".." in joined or "\n/" in joined or joined.startswith("/"):
        for path in paths:
            check_inside(path)


def readable(class_name: str) -> str:
    """A class name as words: ``ApplyEyeMakeup`` and ``apply_eye-makeup`` both give ``apply eye makeup``."""
    text = "".join(
        f" {c}"
        if i and c.isupper() and not class_name[i - 1].isupper() and class_name[i - 1].isalnum()
        else c
        for i, c in enumerate(class_name)
    )
    return " ".join(text.replace("_", " ").replace("-", " ").lower().split())


def split_codes(
    class_names: Sequence[str], base: Sequence[str], val: Sequence[str], novel: Sequence[str]
) -> np.ndarray:
    """The codes [C] of a class split given by lists of names, in either spelling of an accent.

    Raises UsageError for unknown or repeated names.
    """
    codes = np.zeros(len(class_names), np.int8)
    index = {composed(name): i for i, name in enumerate(class_names)}
    index.update((name, i) for i, name in enumerate(class_names))
    for split, names in (("base", base), ("val", val), ("novel", novel)):
        for name in names:
            row = index.get(name, index.get(composed(name)))
            if row is None:
                raise unknown("class", name, class_names)
            if codes[row]:
                raise UsageError(f"Class {name!r} is in two splits; base, val and novel must be disjoint.")
            codes[row] = _SPLIT_CODE[split]
    return codes


def draw_split(classes: int, base: int, val: int, novel: int, seed: int) -> np.ndarray:
    """The codes [C] of a class split drawn by seed. Raises UsageError for more classes than there are.

    >>> codes = draw_split(10, base=5, val=2, novel=3, seed=0)
    >>> np.bincount(codes).tolist()  # none, base, val, novel
    [0, 5, 2, 3]
    """
    if min(base, val, novel) < 0 or base + val + novel > classes:
        raise UsageError(
            f"A split of {base} base, {val} val and {novel} novel classes needs {base + val + novel} classes; "
            f"there are {classes}."
        )
    order = np.random.Generator(np.random.Philox(seed)).permutation(classes)
    codes = np.zeros(classes, np.int8)
    for code, chosen in zip((1, 2, 3), np.split(order, np.cumsum([base, val, novel]))[:3]):
        codes[chosen] = code
    return codes


def drawn_split(classes: int, sizes: Sequence[int], seed: int) -> str:
    """The origin of a class split drawn by ``draw_split``, in words.

    >>> drawn_split(10, (5, 2, 3), seed=0)
    'drawn by seed 0 from 10 classes: 5 base, 2 val, 3 novel'
    """
    base, val, novel = sizes
    return f"drawn by seed {seed} from {classes} classes: {base} base, {val} val, {novel} novel"


def default_split_sizes(classes: int) -> tuple[int, int, int]:
    """The default numbers of base, val and novel classes: 64 : 16 : 20 of a hundred, as in miniImageNet."""
    val, novel = max(round(0.16 * classes), 0), max(round(0.2 * classes), min(5, classes))
    return max(classes - val - novel, 0), min(val, max(classes - novel, 0)), novel


def _texts(group: h5py.Group, name: str) -> list[str]:
    """The texts of a dataset; they are decoded together, in a fraction of the time that each would take by itself."""
    values = stored_array(group, name)[()].tolist()
    texts = b"\0".join(values).decode("utf-8", "surrogateescape").split("\0") if values else []
    if len(texts) != len(values):
        raise ValueError(f"a text of {name!r} holds a NUL character")
    return texts


def _encoded(texts: Sequence[str]) -> list[bytes]:
    return [text.encode("utf-8", "surrogateescape") for text in texts]
