"""`fsmm cache export` writes streams and labels as plain npz, npy or CSV, for code that knows nothing of fsmm.

A mapping file lies beside the arrays, so that `fsmm cache import` of an export gives the same cache again.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from ...errors import CacheError, UsageError, unknown
from ...machine.files import whole_or_absent
from ...machine.json_text import json_text
from ...machine.texts import without_formula
from ..blocks import FeatureMaps
from ..catalog import FACTS, Catalog, LabelSet
from ..index import stream_index
from ..schema import CLASS_SPLITS, StreamName, dataset_folder, list_streams
from ..shard import clip_check, damaged_clips, read_shard

_BLOCK = 256  # The number of clips held in memory at a time.


@dataclass
class ExportReport:
    """The report of an export."""

    dataset: str
    """The name of the data set."""
    clips: int
    """The number of clips that were exported."""
    files: list[str] = field(default_factory=list)
    """The files that were written."""
    arrays: dict[str, list[int]] = field(default_factory=dict)
    """The shape of each array, by name."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def export_features(
    cache: Path,
    out: Path,
    dataset: str | None = None,
    streams: Sequence[str] | None = None,
    split: str = "all",
    label_set: str | None = None,
    class_split: str = "default",
    progress: Callable[[str], None] = lambda text: None,
) -> ExportReport:
    """Write a data set, or the clips of one split, to ``out``: an ``.npz``, a ``.csv`` (labels only), or else a folder.

    streams: the streams to write; None takes all.
    split: all, or the base, val or novel classes of ``class_split`` of ``label_set``. Clips that the data set lists no
    more are left out.

    A stream becomes an array ``modality/encoder`` [n, T, D], where T is the length of the longest clip. It is zero
    beyond ``modality/encoder.length`` [n], which is 0 for an absent clip; ``modality/encoder.times`` [n, T] has the
    seconds of the steps, where they are known. Files appear whole or not at all.
    Raises UsageError for unknown names and where ``out`` exists, CacheError where the cache cannot be read or ``out``
    cannot be written.
    """
    folder = dataset_folder(cache, dataset)
    catalog = _selected(Catalog.read(folder), split, label_set, class_split)
    if out.exists():
        raise UsageError(f"{str(out)!r} exists already; export to another name, or delete it first.")
    report = ExportReport(folder.name, len(catalog))
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            beside = stack.enter_context(whole_or_absent(out))
            if out.suffix == ".csv":
                _write_labels(beside, catalog)
            else:
                mapping = _write_arrays(
                    folder=folder,
                    beside=beside,
                    out=out,
                    catalog=catalog,
                    streams=_chosen(folder, streams),
                    report=report,
                    progress=progress,
                )
                place = out.with_suffix(".json") if out.suffix == ".npz" else beside / "mapping.json"
                # Both files of an export get their names after both have been written.
                text = json_text(mapping, indent=2, ascii_only=False) + "\n"
                stack.enter_context(whole_or_absent(place)).write_text(text, "utf-8", "surrogateescape")
                report.files.append(str(place if out.suffix == ".npz" else out / "mapping.json"))
    except OSError as error:
        raise CacheError(f"{str(out)!r} could not be written: {error.strerror or error}.") from error
    report.files.insert(0, str(out))
    return report


def _selected(catalog: Catalog, split: str, label_set: str | None, class_split: str) -> Catalog:
    if catalog.sources.gone.any():
        catalog = catalog.take(np.flatnonzero(~catalog.sources.gone))
    labels = catalog.labels(label_set)
    if split == "all":
        return catalog
    if split not in CLASS_SPLITS:
        raise unknown("split", split, (*CLASS_SPLITS, "all"))
    classes = labels.class_split(split, class_split)
    chosen = labels.label[:, classes].any(1) if labels.multi else np.isin(labels.label, classes)
    return catalog.take(np.flatnonzero(chosen))


def _chosen(folder: Path, streams: Sequence[str] | None) -> list[StreamName]:
    held = list_streams(folder)
    if streams is None:
        return held
    wanted = [StreamName.parse(name) for name in streams]
    for stream in wanted:
        if stream not in held:
            raise unknown(f"stream of dataset {folder.name!r}", str(stream), map(str, held))
    return wanted


class _Sink(Protocol):
    """A destination of arrays."""

    def open(self, name: str) -> Any:
        """Open a file for the npy bytes of the array of that name, as a context manager."""


class _NpzSink:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(f"{name}.npy", "w", force_zip64=True)


class _FolderSink:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str) -> IO[bytes]:
        path = self.folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


@contextmanager
def _sink(path: Path, npz: bool) -> Iterator[_Sink]:
    if npz:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            yield _NpzSink(archive)
    else:
        path.mkdir()
        yield _FolderSink(path)


def _write_arrays(
    folder: Path,
    beside: Path,
    out: Path,
    catalog: Catalog,
    streams: Sequence[StreamName],
    report: ExportReport,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Write every array, and return the mapping that imports them again."""
    npz = out.suffix == ".npz"
    source = {"path": out.name} if npz else {"path": ".", "format": "arrays"}
    mapping: dict[str, Any] = {
        "dataset": catalog.dataset,
        "sources": {"export": source},
        "attrs": catalog.attrs,
    }
    with _sink(beside, npz) as sink:

        def put(name: str, values: np.ndarray) -> str:
            with sink.open(name) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
            report.arrays[name] = list(values.shape)
            return name

        mapping["ids"] = put("id", np.array(catalog.clip_id, dtype=str))
        mapping["paths"] = put("path", np.array(catalog.path, dtype=str))
        mapping["clip_split"] = put("clip_split", np.array(catalog.clip_split, dtype=str))
        mapping["groups"] = put("group", np.array(catalog.group, dtype=str))
        mapping["facts"] = {
            name: put(f"fact.{name}", values.astype(FACTS[name][0]))  # The cast drops h5py's type metadata.
            for name, values in catalog.facts.items()
            if name in FACTS
        }
        mapping["label_sets"] = {name: _put_labels(name, s, put) for name, s in catalog.label_sets.items()}
        mapping["default_label_set"] = catalog.default_label_set
        mapping["arrays"], mapping["words"] = {}, {}
        for stream in streams:
            progress(str(stream))
            _put_stream(
                folder=folder,
                stream=stream,
                catalog=catalog,
                sink=sink,
                put=put,
                mapping=mapping,
                report=report,
            )
    if not npz:
        _write_labels(beside / "labels.csv", catalog)
    return mapping


def _put_labels(name: str, labels: LabelSet, put: Callable[[str, np.ndarray], str]) -> dict[str, Any]:
    return {
        "label": put(f"label.{name}", labels.label),
        "class_names": put(f"class_names.{name}", np.array(labels.class_names, dtype=str)),
        "words": put(f"words.{name}", np.array(labels.words, dtype=str)),
        "splits": {
            split: {
                part: [labels.class_names[i] for i in labels.class_split(part, split)]
                for part in CLASS_SPLITS
            }
            for split in labels.splits
        },
    }


def _put_stream(
    folder: Path,
    stream: StreamName,
    catalog: Catalog,
    sink: _Sink,
    put: Callable[[str, np.ndarray], str],
    mapping: dict[str, Any],
    report: ExportReport,
) -> None:
    rows = _Rows(folder, stream)
    name = str(stream)
    about = {
        "dtype": rows.provenance.dtype,
        "weights": rows.provenance.weights,
        "weights_sha256": rows.provenance.weights_sha256,
        "preprocessing": rows.provenance.preprocessing,
        "sampling": rows.provenance.sampling,
        "extra": dict(rows.provenance.extra),
    }
    if stream.modality == "word":
        keys = list(rows.place)
        key = put(f"{name}.key", np.array(keys, dtype=str))
        mapping["words"][name] = {"vectors": name, "keys": key, "length": f"{name}.length", **about}
    else:
        keys = catalog.clip_id
        mapping["arrays"][name] = {"stream": name, "length": f"{name}.length", **about}
    length = rows.lengths(keys)
    put(f"{name}.length", length)
    steps = int(length.max(initial=1))
    if stream.modality != "word" and (times := rows.times(keys, steps)) is not None:
        mapping["arrays"][name]["times"] = put(f"{name}.times", times)
    shape = (len(keys), steps, rows.provenance.dim)
    with sink.open(name) as file:
        dtype = np.dtype(rows.provenance.dtype)
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, described)
        for start in range(0, len(keys), _BLOCK):
            file.write(rows.padded(keys[start : start + _BLOCK], steps).tobytes())
    report.arrays[name] = list(shape)


_NOWHERE = (0, 0, 0, 0)


class _Rows:
    """The rows of a stream by key, read from memory-mapped shards.

    place: the (shard, start, length, checksum) of each key.
    """

    def __init__(self, folder: Path, stream: StreamName) -> None:
        index = stream_index(folder, stream)
        if not index.paths:
            raise CacheError(f"Stream {stream} vanished while it was being read; run the export again.")
        self.paths, self.maps, self.provenance = index.paths, FeatureMaps(index.blocks), index.origins[-1]
        self.place: dict[str, tuple[int, int, int, int]] = {}
        columns = (index.shard, index.start, index.length, index.check)
        for key, shard, start, length, check in zip(index.key, *(values.tolist() for values in columns)):
            if length or key not in self.place:
                self.place[key] = shard, start, length, check

    def lengths(self, keys: Sequence[str]) -> np.ndarray:
        return np.array([self.place.get(key, _NOWHERE)[2] for key in keys], np.int64)

    def times(self, keys: Sequence[str], steps: int) -> np.ndarray | None:
        """The seconds float32 [n, steps] of the steps of the clips ``keys``, NaN where unknown; None if all are."""
        out = np.full((len(keys), steps), np.nan, np.float32)
        row = {key: i for i, key in enumerate(keys)}
        for number, path in enumerate(self.paths):
            shard = read_shard(path, features=False, facts=False)
            for i, key in enumerate(shard.key):
                known = shard.clip_times(i)
                if known is not None and key in row and self.place[key][0] == number:
                    out[row[key], : len(known)] = known
        return None if np.isnan(out).all() else out

    def padded(self, keys: Sequence[str], steps: int) -> np.ndarray:
        """The features [n, steps, D] of the clips ``keys``, with zeros beyond each clip's length.

        Raises CacheError for a clip with a wrong checksum.
        """
        out = np.zeros((len(keys), steps, self.provenance.dim), self.provenance.dtype)
        for row, key in enumerate(keys):
            shard, start, length, check = self.place.get(key, _NOWHERE)
            part = self.maps[shard][start : start + length]
            if length and clip_check(key, True, part) != check:
                raise damaged_clips(self.paths[shard], [key])
            out[row, :length] = part
        return out


def _write_labels(path: Path, catalog: Catalog) -> None:
    """Write a CSV with one line for each clip: its labels are class names, several of one clip a JSON list.

    The ids, paths and class names may come from a stranger, and the file may be opened by a spreadsheet.
    """
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "clip_split", "group", *catalog.label_sets])
        for row, clip in enumerate(catalog.clip_id):
            labels = [_label_text(labels, row) for labels in catalog.label_sets.values()]
            cells = [clip, catalog.path[row], catalog.clip_split[row], catalog.group[row], *labels]
            writer.writerow([without_formula(cell) for cell in cells])


def _label_text(labels: LabelSet, row: int) -> str:
    if labels.multi:
        return json.dumps(
            [labels.class_names[i] for i in np.flatnonzero(labels.label[row])], ensure_ascii=False
        )
    return "" if labels.label[row] < 0 else labels.class_names[labels.label[row]]
