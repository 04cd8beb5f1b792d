"""`fsmm cache merge` joins caches of the same data sets, made on several machines, into one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ...errors import CacheError, UsageError
from ...machine.files import parsed_json, write_bytes
from ..attempt import first_attempt
from ..catalog import FACTS, UNLABELLED, Catalog, LabelSet
from ..header import header_is_right
from ..job import with_shards
from ..locking import FAILURES, locked, refuse_older, update_catalog
from ..origin import Origin, united_sources
from ..relations.merging import agreed_graphs, copy_graphs
from ..schema import (
    PASSPORT,
    Provenance,
    StreamName,
    check_name,
    list_datasets,
    list_streams,
    shard_paths,
    stream_folder,
)
from ..shard import KIND, read_shard
from ..stream import StreamWriter, stream_checks, stream_keys, stream_provenance
from ..thumbnails import add_thumbnails, thumbnails_of


@dataclass
class MergeReport:
    """The report of a merge."""

    cache: str
    """The folder of the cache that was merged into."""
    datasets: list[str] = field(default_factory=list)
    """The names of the data sets."""
    clips: dict[str, int] = field(default_factory=dict)
    """The number of clips of each data set after the merge."""
    copied: dict[str, int] = field(default_factory=dict)
    """The number of rows copied, by "dataset/stream"."""
    duplicates: dict[str, int] = field(default_factory=dict)
    """The number of rows dropped because the cache held them already, by "dataset/stream"."""
    graphs: dict[str, list[str]] = field(default_factory=dict)
    """The names of the relation graphs that each data set got."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def merge(
    sources: Sequence[Path],
    cache: Path,
    dataset: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
    *,
    any_origin: bool = False,
) -> MergeReport:
    """Add the data sets of ``sources`` (or one of them) to ``cache``, which may hold them already.

    any_origin: data sets of one name are united even where they share no clip and were made from other data. A source
    brings the finished shards of its shared extractions (cache/job.py) along.

    Everything is compared before anything is written. Rows are copied unchanged; a repeated merge does nothing.
    Raises CacheError, naming the clip, where caches disagree about a clip's features, labels, split, group or source
    file, and where origins, provenance, class names, class splits or relation graphs differ, or a shard is damaged.
    Raises UsageError where a source is the destination.
    """
    for source in sources:
        if source.resolve() == cache.resolve():
            raise UsageError(f"{str(source)!r} is both a source and the destination; name the caches to add.")
    if dataset is not None:
        check_name("Dataset", dataset)
    sources = [part for source in sources for part in with_shards(source, dataset)]
    held = {name for source in sources for name in list_datasets(source)}
    names = sorted(held if dataset is None else held & {dataset})
    if not names:
        what = f"dataset {dataset!r}" if dataset else "any dataset"
        raise CacheError(f"None of the caches to merge holds {what}: {', '.join(map(str, sources))}.")
    report = MergeReport(str(cache), names)
    plans = [
        _Plan(
            name,
            [
                s / name
                for s in sources
                if name in list_datasets(s) or (s / name / "failures.jsonl").is_file()
            ],
            cache / name,
            any_origin=any_origin,
        )
        for name in names
    ]
    for plan in plans:  # Nothing of a new data set is left where that fails.
        with first_attempt(plan.target, is_worth_keeping=lambda held: True, whole=True):
            plan.carry_out(report, progress)
    return report


class _Plan:
    """The merge of one data set, whose caches have been compared and agree."""

    def __init__(self, dataset: str, folders: list[Path], target: Path, *, any_origin: bool) -> None:
        self.dataset, self.target = dataset, target
        self.with_failures = folders
        self.folders = folders = [folder for folder in folders if (folder / "catalog.h5").is_file()]
        is_held = (target / "catalog.h5").is_file()
        self.all = [target, *folders] if is_held else folders
        self.parts = [(str(folder.parent), Catalog.read(folder)) for folder in self.all]
        if is_held:
            refuse_older(target, self.parts[0][1])
        if not any_origin:
            _refuse_other_data(self.parts)
        unite(self.parts)
        self.streams = {
            stream: _agreed(stream, self.all)
            for stream in sorted({s for f in self.all for s in list_streams(f)})
        }
        self.graphs = agreed_graphs(self.all)

    def carry_out(self, report: MergeReport, progress: Callable[[str], None]) -> None:
        report.clips[self.dataset] = len(update_catalog(self.target, self._united))
        for stream, provenance in self.streams.items():
            progress(f"{self.dataset}/{stream}")
            copied, dropped = self._copy(stream, provenance)
            report.copied[f"{self.dataset}/{stream}"] = copied
            report.duplicates[f"{self.dataset}/{stream}"] = dropped
        report.graphs[self.dataset] = copy_graphs(self.graphs, self.target)
        unite_failures(self.with_failures, self.target)
        clips = Catalog.read(self.target).clip_id
        held = set(thumbnails_of(self.target, clips))
        for folder in self.folders:
            found = thumbnails_of(folder, clips)
            add_thumbnails(self.target, {clip: jpeg for clip, jpeg in found.items() if clip not in held})
            held.update(found)

    def _united(self, held: Catalog | None) -> Catalog:
        """The union with the target's catalog as it is now, which another process may have changed meanwhile."""
        others = self.parts[1:] if self.all[0] == self.target else self.parts
        return unite(others if held is None else [(str(self.target.parent), held), *others])

    def _copy(self, stream: StreamName, provenance: Provenance) -> tuple[int, int]:
        copied = dropped = 0
        with StreamWriter(self.target, provenance) as writer:
            held = set(stream_checks(self.target, stream))
            for path in (p for folder in self.folders for p in shard_paths(folder, stream)):
                shard = read_shard(path)
                new = [i for i, key in enumerate(shard.key) if key not in held]
                if new:
                    writer.add_shard(shard if len(new) == len(shard) else shard.take(new))
                held.update(shard.key)
                copied, dropped = copied + len(new), dropped + len(shard) - len(new)
            self._copy_passport(stream)
        return copied, dropped

    def _copy_passport(self, stream: StreamName) -> None:
        """Give the stream the first passport that it has in any of the caches."""
        target = stream_folder(self.target, stream) / PASSPORT
        found = [p for folder in self.folders if (p := stream_folder(folder, stream) / PASSPORT).is_file()]
        if found and not target.exists():
            write_bytes(target, found[0].read_bytes(), durable=True)


def _refuse_other_data(parts: Sequence[tuple[str, Catalog]]) -> None:
    """Raise CacheError where a data set shares neither a clip nor an origin with the parts before it.

    Where it shares clips, it is compared clip by clip. A part of unknown origin may belong to any other.
    """
    seen: set[str] = set()
    origins: list[Origin] = []
    for where, catalog in parts:
        mine = [origin for origin in catalog.sources.origins if origin.is_known]
        is_other = mine and not any(origin.is_same(other) for origin in mine for other in origins)
        if is_other and origins and seen.isdisjoint(catalog.clip_id):
            raise CacheError(
                f"Data set {catalog.dataset!r} of {where!r} was made from {mine[0].text()} and shares no clip with "
                f"that of {parts[0][0]!r}, made from {origins[0].text()}; unite them all the same by --any-origin."
            )
        seen.update(catalog.clip_id)
        origins += mine


def _agreed(stream: StreamName, folders: Sequence[Path]) -> Provenance:
    """The provenance that a stream has in all caches. Raises CacheError where it or a clip's features differ."""
    first: tuple[Path, Provenance] | None = None
    checks: dict[str, tuple[int, Path]] = {}
    for folder in folders:
        for path in shard_paths(folder, stream):
            if not header_is_right(path, KIND):
                raise CacheError(
                    f"Shard {str(path)!r} is damaged; run `fsmm cache verify --repair` on its cache first."
                )
        provenance = stream_provenance(folder, stream)
        if provenance is None:
            continue
        first = first or (folder, provenance)
        if differ := first[1].differences(provenance):
            raise CacheError(
                f"Stream {stream} was made differently in {str(first[0].parent)!r} (here) and {str(folder.parent)!r} "
                f"(there): {'; '.join(differ)}; extract both alike, or give one encoder another name."
            )
        for key, check in stream_checks(folder, stream).items():
            first_check, where = checks.setdefault(key, (check, folder))
            if first_check != check:
                raise CacheError(
                    f"Clip {key!r} has different features of stream {stream} in {str(where.parent)!r} and "
                    f"{str(folder.parent)!r}; delete the stream in one of them."
                )
    if first is None:
        raise CacheError(f"Stream {stream} vanished while it was being merged; run the merge again.")
    return first[1]


def unite(catalogs: Sequence[tuple[str, Catalog]]) -> Catalog:
    """One catalog of all clips, in order of first appearance, from (name for errors, catalog) pairs of one data set.

    A value that only one catalog has is taken from it. Raises CacheError where two catalogs disagree about a clip
    (label, clip split, group, SHA-256 of the source file) or about a label set (class names, words, a class split).
    """
    ids = list(dict.fromkeys(clip for _, catalog in catalogs for clip in catalog.clip_id))
    row = {clip: i for i, clip in enumerate(ids)}
    rows = [np.array([row[clip] for clip in catalog.clip_id], np.int64) for _, catalog in catalogs]
    parts = [(where, catalog, at) for (where, catalog), at in zip(catalogs, rows)]
    names = list(dict.fromkeys(name for _, catalog in catalogs for name in catalog.label_sets))
    attrs: dict[str, str] = {}
    for _, catalog in catalogs:
        attrs = {**catalog.attrs, **attrs}
    facts = {
        name: _filled(
            ids,
            [(where, catalog.facts[name], at) for where, catalog, at in parts],
            np.array(missing, dtype),
            "source file (its SHA-256)" if name == "sha256" else None,
        )
        for name, (dtype, missing) in FACTS.items()
    }
    split = [(where, np.array(catalog.clip_split, dtype=object), at) for where, catalog, at in parts]
    path = [(where, np.array(catalog.path, dtype=object), at) for where, catalog, at in parts]
    group = [(where, np.array(catalog.group, dtype=object), at) for where, catalog, at in parts]
    return Catalog(
        dataset=catalogs[0][1].dataset,
        clip_id=ids,
        label_sets={name: _united_labels(name, ids, parts) for name in names},
        default_label_set=catalogs[0][1].default_label_set,
        path=_filled(ids, path, np.array("", object), None).tolist(),
        clip_split=_filled(ids, split, np.array("", object), "clip split").tolist(),
        attrs=attrs,
        facts=facts,
        sources=united_sources(len(ids), [(catalog.sources, at) for _, catalog, at in parts]),
        group=_filled(ids, group, np.array("", object), "group").tolist(),
    )


def _united_labels(name: str, ids: list[str], parts: Sequence[tuple[str, Catalog, np.ndarray]]) -> LabelSet:
    held = [
        (where, catalog.label_sets[name], at) for where, catalog, at in parts if name in catalog.label_sets
    ]
    where, first, _ = held[0]
    splits: dict[str, np.ndarray] = {}
    for other_where, other, _ in held:
        same = (
            other.class_names == first.class_names
            and other.words == first.words
            and other.multi == first.multi
        )
        if not same:
            raise CacheError(
                f"Label set {name!r} has other classes or words in {where!r} than in {other_where!r}; "
                "only caches with the same label sets can be merged."
            )
        for split, codes in other.splits.items():
            if not np.array_equal(splits.setdefault(split, codes), codes):
                raise CacheError(
                    f"Class split {split!r} of label set {name!r} differs in {other_where!r}; draw it alike."
                )
    missing = np.zeros(len(first.class_names), np.uint8) if first.multi else np.array(UNLABELLED, np.int32)
    label = _filled(ids, [(w, s.label, at) for w, s, at in held], missing, f"label of {name!r}")
    origin = {split: text for _, labels, _ in reversed(held) for split, text in labels.split_origin.items()}
    return LabelSet(first.class_names, label, first.words, splits, origin)


def _filled(
    ids: list[str],
    parts: Sequence[tuple[str, np.ndarray, np.ndarray]],
    missing: np.ndarray,
    strict: str | None,
) -> np.ndarray:
    """The values [n, ...] of (name for errors, values, rows) parts: each clip's first value that is not ``missing``.

    strict: the word for the value where two values of a clip must not differ, else None.
    Raises CacheError where they differ nevertheless.
    """
    out = np.empty((len(ids), *missing.shape), missing.dtype)
    out[:] = missing
    for where, values, at in parts:
        mine = out[at]
        filled, offered = _differs(mine, missing), _differs(values, missing)
        if strict and (clash := filled & offered & _differs(mine, values)).any():
            clip = ids[at[np.flatnonzero(clash)[0]]]
            raise CacheError(
                f"Clip {clip!r} has another {strict} in {where!r} than in the caches before it; mend one."
            )
        take = offered & ~filled
        out[at[take]] = values[take]
    return out


def _differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether a and b differ in each row, bool [n]; NaN equals NaN."""
    unequal = np.asarray(a != b)
    if a.dtype.kind == "f":
        unequal &= ~(np.isnan(a) & np.isnan(b))
    return np.asarray(unequal.reshape(len(a), -1).any(1)) if unequal.size else np.zeros(len(a), bool)


def unite_failures(folders: Sequence[Path], target: Path) -> None:
    """Write one list of all failures, without those of clips that another cache could read after all."""
    with locked(target, FAILURES):
        _write_united_failures(folders, target / "failures.jsonl")


def _write_united_failures(folders: Sequence[Path], path: Path) -> None:
    target = path.parent
    lines: dict[str, str] = {}
    for source in (path, *(folder / "failures.jsonl" for folder in folders)):
        if source.is_file():
            for line in source.read_text("utf-8", "replace").splitlines():
                lines.setdefault(_canonical(line), line)
    if not lines:
        return
    readable = {
        (key, str(stream))
        for stream in list_streams(target)
        for key, present in stream_keys(target, stream).items()
        if present
    }
    readable |= {(key, "") for key, _ in readable}  # A line without a stream is about the whole clip.
    text = "".join(f"{line}\n" for line in lines.values() if _about(line) not in readable or _partial(line))
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise CacheError(f"{str(path)!r} could not be written: {error.strerror or error}.") from error


def _about(line: str) -> tuple[str, str]:
    try:
        entry = parsed_json(line)
        return str(entry["id"]), str(entry.get("stream", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", ""


def _partial(line: str) -> bool:
    """Whether a line tells the damage of a clip that was read in part, which stays true wherever the clip is read."""
    try:
        return bool(json.loads(line)["stage"] == "partial")
    except (ValueError, TypeError, KeyError):
        return False


def _canonical(line: str) -> str:
    try:
        return json.dumps(parsed_json(line), sort_keys=True)
    except (ValueError, RecursionError):
        return line
