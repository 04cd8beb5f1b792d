"""`fsmm cache verify` checks that every byte is as it was written and that everything fits; it repairs on demand.

Each file's SHA-256 is compared first; only files that pass are opened in this process (see salvage.py for the others).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import CacheError, UsageError
from ...machine.files import parsed_json
from ..catalog import KIND as CATALOG
from ..catalog import Catalog
from ..header import empty_claim, header_is_right, header_kind, refuse_other_schema
from ..index import NAME as INDEX
from ..index import disagreement
from ..schema import PASSPORT, Provenance, StreamName, check_name, shard_paths, stream_folder
from ..shard import KIND, Shard, read_shard
from ..stream import lock_stream, stream_keys
from . import repair
from .salvage import Salvage, salvage
from .stored_runs import changed_runs

# One repair may uncover another fault: a rewritten shard may hold a clip that the stream holds twice.
_ROUNDS = 3


@dataclass
class Finding:
    """One fault that verify found."""

    level: str
    """The severity: "damage" (exit code 1 unless it is repaired) or "note"."""
    kind: str
    """A word such as catalog, schema, shard, foreign, provenance, duplicate, unknown, index, passport or run."""
    place: str
    """The path of the file, relative to the cache."""
    says: str
    """One sentence that states the fault."""
    clips: list[str] = field(default_factory=list)
    """The ids of the clips concerned."""
    done: str = ""
    """A note of the repair, "" while nothing was repaired."""
    fix: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    """The repair, which returns its note, or None where there is none."""

    def to_json(self) -> dict[str, object]:
        names = ("level", "kind", "place", "says", "clips", "done")
        return {name: getattr(self, name) for name in names}


@dataclass
class Report:
    """The report of a check."""

    cache: str
    """The cache's folder."""
    datasets: list[str] = field(default_factory=list)
    """The names of the data sets that were checked."""
    shards: int = 0
    """The number of shards that were checked."""
    clips: int = 0
    """The number of rows of shards that were checked."""
    findings: list[Finding] = field(default_factory=list)
    """The faults that were found."""
    rebuild: dict[str, list[str]] = field(default_factory=dict)
    """The ids that the next extract makes again after a repair, by "dataset/stream"."""

    @property
    def ok(self) -> bool:
        """Whether there is no damage, or all of it was repaired."""
        return all(f.done or f.level == "note" for f in self.findings)

    def to_json(self) -> dict[str, object]:
        return {
            "cache": self.cache,
            "ok": self.ok,
            "datasets": self.datasets,
            "shards": self.shards,
            "clips": self.clips,
            "findings": [finding.to_json() for finding in self.findings],
            "rebuild": self.rebuild,
        }


def verify(
    cache: Path,
    dataset: str | None = None,
    repair: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Check every data set of a cache, or one of them; ``repair`` also drops or sets aside damaged parts.

    A repair rewrites a damaged shard with the rows whose checksum is right, deletes it where nothing can be trusted,
    and renames a file that is whole but does not belong to ``*.set-aside``. Good clips are never lost.
    progress: called with the name of each file before it is read.
    Raises CacheError where there is no such data set, or, with ``repair``, where another process is writing.
    """
    report = Report(str(cache))
    for folder in _folders(cache, dataset):
        report.datasets.append(folder.name)
        check = _DatasetCheck(cache, folder, report, progress)
        for number in range(_ROUNDS if repair else 1):
            found = check.run(count=number == 0)
            new = [f for f in found if number == 0 or f.level == "damage"]
            if repair:
                check.fix(new)
            report.findings += new
            if not any(f.done for f in new):
                break
    return report


def _folders(cache: Path, dataset: str | None) -> list[Path]:
    """The folders of the data sets, including those that have lost their catalog. Raises CacheError for none."""
    found = sorted(
        {*(p.parent for p in cache.glob("*/catalog.h5*")), *(p.parent for p in cache.glob("*/streams"))}
    )
    if dataset is not None:
        found = [p for p in found if p.name == check_name("Dataset", dataset)]
    if not found:
        what = f"no dataset {dataset!r}" if dataset else "no dataset"
        raise CacheError(f"There is {what} in the cache {str(cache)!r}; check --cache and --dataset.")
    return found


class _DatasetCheck:
    """The check of one data set's folder; its findings carry their own repairs."""

    def __init__(self, cache: Path, folder: Path, report: Report, progress: Callable[[str], None]) -> None:
        self.cache, self.folder, self.report, self.progress = cache, folder, report, progress

    def run(self, count: bool) -> list[Finding]:
        self.count = count
        self.found: list[Finding] = []
        self._catalog()
        self._failures()
        for stream, folder in self._streams():
            self._stream(stream, folder)
        for run, says in changed_runs(self.folder / "runs"):
            self._add("note", "run", run, says)  # The cache is whole all the same.
        return self.found

    def fix(self, findings: Sequence[Finding]) -> None:
        """Carry out the findings' repairs under the lock of each stream concerned.

        The clips that an extract will then rebuild are added to the report.
        """
        for finding in findings:
            if finding.fix:
                with self._locked(Path(finding.place).parts):
                    finding.done = finding.fix()
        self._note_rebuild(findings)

    @contextmanager
    def _locked(self, parts: tuple[str, ...]) -> Iterator[None]:
        if len(parts) != 5:  # The file is not inside a stream.
            yield
            return
        stream = StreamName(parts[2], parts[3])
        handle = lock_stream(stream_folder(self.folder, stream), stream)
        try:
            yield
        finally:
            os.close(handle)

    def _note_rebuild(self, findings: Sequence[Finding]) -> None:
        try:
            catalog = Catalog.read(self.folder)
        except CacheError:
            return
        places = (
            Path(f.place).parts for f in findings if f.done and f.kind in ("shard", "provenance", "foreign")
        )
        for stream in {StreamName(parts[2], parts[3]) for parts in places if len(parts) == 5}:
            missing = set(_catalog_keys(catalog, stream)) - set(stream_keys(self.folder, stream))
            self.report.rebuild[f"{self.folder.name}/{stream}"] = sorted(missing)

    def _add(self, level: str, kind: str, path: Path, says: str, **more: object) -> None:
        finding = Finding(level, kind, path.relative_to(self.cache).as_posix(), says)
        for name, value in more.items():
            setattr(finding, name, value)
        self.found.append(finding)

    def _catalog(self) -> None:
        self.catalog: Catalog | None = None
        path = self.folder / "catalog.h5"
        for leftover in self.folder.glob(".*.tmp"):
            self._leftover(leftover)
        if not path.is_file():
            says = "There is no catalog; run the same extract or import again: the features are kept."
            self._add("damage", "catalog", path, says)
            return
        try:
            refuse_other_schema(path, CATALOG)
        except CacheError as error:
            self._add("damage", "schema", path, str(error))
            return
        try:
            self.catalog = Catalog.read(self.folder)
        except CacheError as error:
            self._add("damage", "catalog", path, str(error), fix=repair.set_aside(path))

    def _failures(self) -> None:
        path = self.folder / "failures.jsonl"
        if not path.is_file():
            return
        wrong: list[int] = []
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            try:
                parsed_json(line)
            except ValueError:
                wrong.append(number)
        if wrong:
            more = f", and {len(wrong) - 1:,} more are not" if len(wrong) > 1 else ""
            says = f"Line {wrong[0]} of the list of failures is not JSON{more}."
            self._add("note", "failures", path, says)

    def _leftover(self, path: Path) -> None:
        says = "A write was cut short and left this file; it holds nothing that counts."
        self._add("note", "leftover", path, says, fix=repair.deletion(path))

    def _streams(self) -> Iterator[tuple[StreamName, Path]]:
        for folder in sorted((self.folder / "streams").glob("*/*")):
            try:
                stream = StreamName(folder.parent.name, folder.name)
            except UsageError as error:
                self._add("note", "foreign", folder, f"This is no stream: {error}")
                continue
            if folder.is_dir():
                yield stream, folder

    def _stream(self, stream: StreamName, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            shard_like = path.suffix == ".h5" and path.stem.isdecimal()
            if shard_like and not path.is_file():
                says = "This is a folder, a pipe or a device where a shard should be; nothing reads it."
                self._add("damage", "foreign", path, says, fix=repair.set_aside(path))
            elif path.name.startswith(".") and path.suffix == ".tmp":
                if not _being_written(folder, stream):
                    self._leftover(path)
            elif path.name == PASSPORT:
                self._passport(path)
            elif (
                path.name not in (".lock", INDEX) and not shard_like and not path.name.endswith(repair.ASIDE)
            ):
                self._add("note", "foreign", path, "This file is not part of the cache.")
        whole: dict[Path, Shard] = {}
        damaged: list[Path] = []
        for path in shard_paths(self.folder, stream):
            self.progress(path.relative_to(self.cache).as_posix())
            if self.count:
                self.report.shards += 1
            self._shard(path, stream, whole, damaged)
        belonging = self._same_origin(stream, whole)
        origin = next(((s.dataset, s.provenance) for s in belonging.values()), None)
        for path in damaged:
            self._damaged(path, origin)
        self._keys(stream, belonging)
        if says := disagreement(folder, whole):
            self._add("damage", "index", folder / INDEX, says, fix=repair.deletion(folder / INDEX))

    def _passport(self, path: Path) -> None:
        """Report a passport that is damaged; features do not depend on it."""
        try:
            shard = read_shard(path) if header_is_right(path, KIND) else None
        except CacheError:
            shard = None
        if shard is None or not all(map(shard.is_right, range(len(shard)))):
            says = "The passport of this stream is damaged; its features are not."
            self._add("damage", "passport", path, says, fix=repair.deletion(path))

    def _shard(self, path: Path, stream: StreamName, whole: dict[Path, Shard], damaged: list[Path]) -> None:
        """Add one shard to ``whole`` or to ``damaged``, or report it as one of another schema."""
        try:
            refuse_other_schema(path, KIND)
        except CacheError as error:
            self._add("damage", "schema", path, str(error))
            return
        if not header_is_right(path, KIND):
            damaged.append(path)
            return
        try:
            shard = read_shard(path)
        except CacheError:
            damaged.append(path)
            return
        bad = [key for i, key in enumerate(shard.key) if not shard.is_right(i)]
        if self.count:
            self.report.clips += len(shard)
        if bad:
            damaged.append(path)
        else:
            shard.features = shard.features[:0]  # The features are checked; only the index stays in memory.
            whole[path] = shard

    def _damaged(self, path: Path, origin: tuple[str, Provenance] | None) -> None:
        verdict = salvage(path, None, origin)
        if claim := empty_claim(path):
            self._add("damage", "foreign", path, f"This is no shard: {claim}.", fix=repair.set_aside(path))
            return
        if not verdict.good and path.stat().st_size and header_kind(path) != KIND:
            says = "This file has a shard's name but is not one of ours."
            self._add("damage", "foreign", path, says, fix=repair.set_aside(path))
            return

        says = _damage_in_words(path, verdict)
        self._add("damage", "shard", path, says, clips=verdict.bad, fix=repair.rewriting(path, origin))

    def _same_origin(self, stream: StreamName, whole: dict[Path, Shard]) -> dict[Path, Shard]:
        """The shards that belong to this stream, whose provenance is that of most clips; the others are reported."""
        groups: list[dict[Path, Shard]] = []
        for path, shard in whole.items():
            mine = f"{shard.provenance.modality}/{shard.provenance.encoder}"
            if mine != str(stream) or shard.dataset != self.folder.name:
                says = f"This shard holds {mine} of dataset {shard.dataset!r} and lies in the wrong folder."
                self._add("damage", "provenance", path, says, fix=repair.set_aside(path))
                continue
            for group in groups:
                if not next(iter(group.values())).provenance.differences(shard.provenance):
                    group[path] = shard
                    break
            else:
                groups.append({path: shard})
        groups.sort(
            key=lambda group: -sum(map(len, group.values()))
        )  # The sort is stable: the older of two groups of equal size comes first.
        for group in groups[1:]:
            for path, shard in group.items():
                differ = shard.provenance.differences(next(iter(groups[0].values())).provenance)
                says = f"This shard was made differently from the rest of its stream: {'; '.join(differ)}."
                self._add("damage", "provenance", path, says, fix=repair.set_aside(path))
        return groups[0] if groups else {}

    def _keys(self, stream: StreamName, shards: dict[Path, Shard]) -> None:
        """Report keys that the stream holds twice, and keys that the catalog does not hold."""
        counts: dict[str, tuple[Path, int]] = {}  # The last row with features counts, as in loading.
        for path, shard in shards.items():
            for i, key in enumerate(shard.key):
                if (
                    key not in counts
                    or shard.present[i]
                    or not shards[counts[key][0]].present[counts[key][1]]
                ):
                    counts[key] = path, i
        losing = {
            path: rows
            for path, shard in shards.items()
            if (rows := [i for i, key in enumerate(shard.key) if counts[key] != (path, i)])
        }
        for path, indices in losing.items():
            names = sorted({shards[path].key[i] for i in indices})
            says = f"{_some(names)} {'is' if len(names) == 1 else 'are'} in this stream twice; the other row counts."
            self._add("damage", "duplicate", path, says, clips=names, fix=repair.without_rows(path, indices))
        if self.catalog is not None:
            expected = set(_catalog_keys(self.catalog, stream))
            for path, shard in shards.items():
                if strange := sorted(set(shard.key) - expected):
                    verb = "is" if len(strange) == 1 else "are"
                    says = f"{_some(strange)} {verb} not in the catalog, and so not used."
                    self._add("note", "unknown", path, says, clips=strange)


def _damage_in_words(path: Path, verdict: Salvage) -> str:
    if verdict.dropped:
        return f"Nothing in this shard ({path.stat().st_size} bytes) can be trusted: {verdict.dropped}."
    if verdict.good and not verdict.origin:
        return f"What made this shard is damaged, so that its {verdict.rows} clips cannot be trusted."
    if verdict.bad or verdict.good < verdict.rows:
        says = f"{_some(verdict.bad)} {'is' if len(verdict.bad) == 1 else 'are'} damaged"
        return f"{says}; the other {verdict.good} of {verdict.rows} clips are whole."
    lost = ["the facts about the clips' files"] * (not verdict.facts) + ["the times of the steps"] * (
        not verdict.times
    )
    among = f" (among it {' and '.join(lost)})" if lost else ""
    return f"The file around the features is damaged{among}; all {verdict.rows} clips are whole."


def _some(names: Sequence[str]) -> str:
    first = ", ".join(repr(name) for name in names[:3])
    return f"Clip{'s' if len(names) > 1 else ''} {first}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _catalog_keys(catalog: Catalog, stream: StreamName) -> Iterator[str]:
    if stream.modality != "word":
        yield from catalog.clip_id
    else:
        for name, labels in catalog.label_sets.items():
            yield from (f"{name}/{class_name}" for class_name in labels.class_names)


def _being_written(folder: Path, stream: StreamName) -> bool:
    try:
        os.close(lock_stream(folder, stream))
    except CacheError:
        return True
    return False
