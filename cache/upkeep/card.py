"""`fsmm cache card`: the paragraph on features that a paper needs, and a folder with a data-set card to hand on.

Everything in it is read from the cache: what made each stream, how many clips have it, which clips were lost and why.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import CacheError, UsageError
from ...machine.digests import file_sha256
from ...machine.files import parsed_json, write_bytes
from ..catalog import Catalog
from ..origin import Origin
from ..schema import PASSPORT, StreamName, dataset_folder, list_streams, shard_paths, stream_folder
from .info import DatasetInfo, StreamInfo, info

CARD, SUMS = "README.md", "SHA256SUMS"
_LOST = {
    "decode": "could not be decoded",
    "timeout": "took too long to decode",
    "crash": "ended the decoder",
    "prepare": "could not be prepared",
    "encode": "could not be encoded",
    "missing": "had no file",
}
_REASONS = 3  # The reasons that the paragraph repeats.


@dataclass(frozen=True, kw_only=True)
class Card:
    """What there is to say about the features of a data set."""

    dataset: DatasetInfo
    """The data set."""
    licences: Mapping[str, str]
    """The licence of the weights of each stream, by stream; streams without one are left out."""
    origins: Sequence[str] = ()
    """The kinds of data that the clips were listed from, with their options, without places of this machine."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """The number of clips that were lost, by stage."""
    reasons: Sequence[str] = ()
    """The commonest reasons, with their counts."""

    def paragraph(self) -> str:
        """The paragraph for a paper."""
        held = self.dataset
        origin = f" ({'; '.join(self.origins)})" if self.origins else ""
        versions = sorted({stream.fsmm_version for stream in held.streams})
        parts = [
            f"Features of the {held.clips:,} clips of {held.dataset}{origin} were extracted once with fsmm "
            f"{' and '.join(versions)} and read from its cache (schema {held.schema}) in all experiments."
        ]
        parts += [self._of_stream(stream) for stream in held.streams]
        parts.append(self._losses())
        if licence := held.attrs.get("licence") or held.attrs.get("license"):
            parts.append(f"The data set's licence: {licence}.")
        named = dict.fromkeys(
            f"{stream.split('/')[1]}: {licence}" for stream, licence in self.licences.items()
        )
        if named:
            parts.append(f"Licences of weights: {'; '.join(named)}.")
        return " ".join(parts)

    def _of_stream(self, stream: StreamInfo) -> str:
        """The sentence about one stream."""
        digest = f", SHA-256 {stream.weights_sha256[:16]}" if stream.weights_sha256 else ""
        weights = f"weights {stream.weights}{digest}" if stream.weights else "no weights"
        steps = "-".join(map(str, dict.fromkeys(stream.steps)))
        how = "; ".join(filter(None, (stream.preprocessing, stream.sampling)))
        rows = "classes" if stream.stream.startswith("word/") else "clips"
        absent = f", absent in {stream.absent:,}" if stream.absent else ""
        return (
            f"{stream.stream} ({weights}) gives {steps or 0} x {stream.dim} numbers stored as {stream.dtype} for "
            f"{stream.present:,} {rows}{absent}{f': {how}' if how else ''}."
        )

    def _losses(self) -> str:
        if not self.lost:
            return "No clip was lost."
        counts = ", ".join(f"{count:,} {_LOST[stage]}" for stage, count in self.lost.items())
        return f"Lost clips: {counts} ({'; '.join(self.reasons)})."

    def markdown(self, digests: Mapping[str, str]) -> str:
        """The data-set card; digests: the SHA-256 of each file beside it."""
        held = self.dataset
        licence = held.attrs.get("licence") or held.attrs.get("license") or "unknown"
        front = [
            "---",
            f"pretty_name: {_quoted(held.dataset)}",
            f"license: {_quoted(licence)}",
            "task_categories:",
            "- video-classification",
            "tags:",
            "- few-shot-learning",
            "- features",
            *(f"- {_quoted(stream.stream.split('/')[1])}" for stream in held.streams),
            "---",
            "",
        ]
        streams = [
            [s.stream, f"{s.present:,}", f"{s.absent:,}", str(s.dim), s.dtype, s.weights or "-"]
            for s in held.streams
        ]
        labels = [
            [
                labels.name,
                str(labels.classes),
                "yes" if labels.multi else "no",
                "; ".join(f"{n} {'/'.join(map(str, v.values()))}" for n, v in labels.splits.items())
                or "none",
            ]
            for labels in held.label_sets
        ]
        return "\n".join(
            [
                *front,
                f"# {held.dataset}: features of {held.clips:,} clips",
                "",
                self.paragraph(),
                "",
                "## Streams",
                "",
                *_table(["stream", "present", "absent", "dim", "dtype", "weights"], streams),
                "",
                "## Labels",
                "",
                *_table(["label set", "classes", "multi-label", "base/val/novel classes"], labels),
                "",
                "## Use",
                "",
                f"    fsmm cache verify --cache . --dataset {held.dataset}",
                f"    fsmm episode-eval --method protonet --cache . --dataset {held.dataset}",
                "",
                "The files are plain HDF5 with a checksum for every clip. The videos are not part of this folder;",
                "rights to them stay with their owners.",
                "",
                "## Files",
                "",
                *_table(["file", "SHA-256"], [[name, digest] for name, digest in digests.items()]),
                "",
            ]
        )


def card(cache: Path, dataset: str | None, licences: Mapping[str, str]) -> Card:
    """The card of a data set. licences: those of weights, by the weights' names.

    Raises CacheError for an unknown data set and for files that cannot be read.
    """
    folder = dataset_folder(cache, dataset)
    (held,) = info(cache, folder.name).datasets
    lost, reasons = _lost(folder)
    of_streams = {s.stream: licences[s.weights] for s in held.streams if s.weights in licences}
    sources = _without_places(Catalog.read(folder)).sources
    origins = list(dict.fromkeys(origin.text() for origin in sources.origins if origin.is_known))
    return Card(dataset=held, licences=of_streams, origins=origins, lost=lost, reasons=reasons)


def _lost(folder: Path) -> tuple[dict[str, int], list[str]]:
    """The number of clips that were lost, by stage, and the commonest reasons."""
    path = folder / "failures.jsonl"
    clips: dict[str, set[str]] = {}
    reasons: Counter[str] = Counter()
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines() if path.is_file() else ()):
        try:
            entry = parsed_json(line)
            stage, clip, reason = str(entry["stage"]), str(entry["id"]), str(entry["reason"])
        except (ValueError, TypeError, KeyError):
            continue
        if stage in _LOST:
            clips.setdefault(stage, set()).add(clip or f"line {number}")
            reasons[reason] += 1
    return (
        {stage: len(found) for stage, found in clips.items()},
        [f"{reason} ({count:,})" for reason, count in reasons.most_common(_REASONS)],
    )


def write_card(cache: Path, out: Path, found: Card) -> list[Path]:
    """Write a folder to hand on: the card, the data set's catalog, shards and passports, and the digests of all files.

    The folder is a cache. It names no folder of this machine. Raises UsageError where it is there already, CacheError
    where it cannot be written or a shard is damaged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{str(out)!r} is there already; name a new folder with --out.")
    folder = cache / found.dataset.dataset
    target = out / folder.name
    catalog = Catalog.read(folder)
    try:
        _without_places(catalog).write(target)
        for path in _files(folder):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        written = sorted(p for p in target.rglob("*") if p.is_file())
        digests = {path.relative_to(out).as_posix(): file_sha256(path) for path in written}
        write_bytes(out / SUMS, "".join(f"{d}  {name}\n" for name, d in digests.items()).encode())
        write_bytes(out / CARD, found.markdown(digests).encode())
    except OSError as error:
        raise CacheError(
            f"The card cannot be written to {str(out)!r} ({error.strerror or error}); name a folder of yours."
        ) from None
    return [out / CARD, out / SUMS, *written]


def _files(folder: Path) -> list[Path]:
    """The shards and the passports of a data set."""
    streams: list[StreamName] = list_streams(folder)
    shards = [path for stream in streams for path in shard_paths(folder, stream)]
    passports = [stream_folder(folder, stream) / PASSPORT for stream in streams]
    return [*shards, *(path for path in passports if path.is_file())]


def _without_places(catalog: Catalog) -> Catalog:
    """The catalog whose origins keep their kind and options, and no folder of this machine."""
    sources = catalog.sources
    for number, origin in enumerate(sources.origins):
        sources = sources.with_origin(number, Origin(origin.kind, options=origin.options))
    return replace(catalog, sources=sources)


def _quoted(text: str) -> str:
    """A text as YAML holds it on one line."""
    return json.dumps(text, ensure_ascii=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
