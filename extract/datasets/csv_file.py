"""Dataset ``csv`` is a table of clips with any number of label columns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.catalog import CLIP_SPLITS, UNLABELLED, Catalog, LabelSet
from ...cache.groups import group_by_name
from ...cache.origin import Origin
from ...errors import UsageError, listed
from ...machine.texts import class_warnings, composed, is_unlabelled, plain_text, read_csv
from .base import DatasetOptions, Listing, Source
from .common import dataset_name, finish, safe_name
from .excerpts import END, LENGTH, START, span_of, time_columns, without_other_units
from .listed_paths import ListedPaths
from .walk import FOLLOW, counted, some

_NOT_LABELS = ("path", "id", "split", "group", START, END)


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of a CSV file with a header row.

    The columns are ``path`` (relative to the file's folder, or to ``options.root``, and inside it; with a frame rate it
    may be a folder of numbered images), optionally ``id``
    (else the path is the id, with ``#t=START,END`` for a part of a file), ``split`` (train, val, test), ``group`` (the
    clip's source: a long video, a person), and ``start`` and ``end`` in seconds; every other column is a label set. A
    cell may name several classes divided by ``|``, which makes the whole column multi-label; an empty cell is
    unlabelled. ``label`` is the default label set, else the first label column is. docs/csv.md states the rules.

    data: the file, or a folder that holds one CSV file only. Raises UsageError, with the line, for a file of
    another form.
    """
    if data is None:
        raise UsageError("Dataset 'csv' needs --data: a CSV file with a column 'path' and label columns.")
    file = _only_csv(data)
    table = _read(file)
    root = Path(os.path.realpath(file)).parent if options.root is None else _folder(options.root)
    clips = _Clips(ListedPaths(root, follow_links=options.follow_links), file.name, options.frame_rate)
    for line, row in table.rows:
        clips.add(line, row)
    if not clips.sources:
        raise UsageError(clips.why_none(file))
    label_sets = _label_sets(table, clips)
    default = "label" if "label" in label_sets else next(iter(label_sets))
    catalog = Catalog(
        dataset=dataset_name(file),
        clip_id=list(clips.sources),
        label_sets=label_sets,
        default_label_set=default,
        path=clips.path,
        clip_split=clips.splits,
        group=clips.groups(),
    )
    return finish(
        Listing(
            catalog=catalog,
            sources=clips.sources,
            root=clips.paths.root,
            missing=clips.missing,
            warnings=[*table.warnings, *clips.warnings(), *_about_classes(label_sets)],
            origin=Origin("csv", os.path.realpath(file), str(clips.paths.root)),
            is_table=True,
        ),
        options,
    )


def _only_csv(data: Path) -> Path:
    if not data.is_dir():
        return data
    files = sorted(p for p in data.iterdir() if p.suffix.lower() == ".csv" and not p.name.startswith("."))
    if len(files) != 1:
        held = some([p.name for p in files]) if files else "none"
        raise UsageError(f"Name the CSV file with --data; {str(data)!r} holds {held}.")
    return files[0]


def _folder(root: Path) -> Path:
    root = root.expanduser()
    if not root.is_dir():
        raise UsageError(f"The folder {str(root)!r} of --root does not exist.")
    return root


@dataclass
class _Table:
    """The file's content. labels: the label columns, as written. rows: (line number, cells by column name)."""

    labels: list[str]
    rows: list[tuple[int, dict[str, str]]]
    warnings: list[str]


def _read(file: Path) -> _Table:
    table = read_csv(file)
    header = [_column(name) for name in time_columns(table.columns)]
    _check_header(file, header)
    times = (LENGTH,) if START in header else ()
    labels = [name for name in without_other_units(header) if name not in (*_NOT_LABELS, *times)]
    return _Table(labels, [(line, dict(zip(header, cells))) for line, cells in table.rows], table.warnings)


def _column(name: str) -> str:
    known = name.lower() in (*_NOT_LABELS, "label")
    return name.lower() if known else name


def _check_header(file: Path, header: list[str]) -> None:
    if "path" not in header:
        raise UsageError(
            f"The first line of {str(file)!r} must name its columns, one of them 'path'; it has {listed(header)}. "
            "Rename the one that names files."
        )
    safe = [safe_name(name, "") for name in header]
    if "" in safe or len(set(safe)) < len(safe):
        raise UsageError(
            f"The columns of {str(file)!r} need different names with letters or digits; they are {listed(header)}."
        )


@dataclass
class _Clips:
    """The rows whose file exists, in the order of the file.

    paths: where files lie. file: the table's name. frame_rate: that of folders of frames; None where these are no
    clips. missing, lost: ids and paths of the rows without a file.
    """

    paths: ListedPaths
    file: str
    frame_rate: float | None = None
    sources: dict[str, Source] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    kept: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, row: dict[str, str]) -> None:
        path = self.paths.named(row["path"], line)
        span = span_of(row, line, self.file)
        clip = plain_text(row.get("id", "").strip() or path + (span.fragment if span else ""))
        if clip in self.seen:
            raise UsageError(
                f"Lines {self.seen[clip]} and {line} of the CSV file are the same clip {clip!r}; "
                "ids must differ."
            )
        self.seen[clip] = line
        split = row.get("split", "").strip().lower()
        split = "" if is_unlabelled(split) else split
        if split not in CLIP_SPLITS:
            raise UsageError(
                f"Line {line} of the CSV file has split {split!r}; use train, val, test or leave it empty."
            )
        found = self.paths.found(path)
        frames = () if found is not None or self.frame_rate is None else self.paths.frames(path)
        if found is None and not frames:
            self.missing.append(clip)
            self.lost.append(path)
        elif self.paths.leads_out(found or path):
            self.outside.append(found or path)
        else:
            self.sources[clip] = (
                Source(images=frames, span=span, frame_rate=self.frame_rate or 0.0)
                if found is None
                else Source(video=self.paths.root / found, span=span)
            )
            self.path.append(plain_text(found or path))
            self.splits.append(CLIP_SPLITS[split])
            self.kept.append(row)

    def groups(self) -> list[str]:
        """The group of each clip: the one that its row names, else for parts of files the file; "" for none."""
        cells = [composed(plain_text(row.get("group", "").strip())) for row in self.kept]
        named = ["" if is_unlabelled(cell) else cell for cell in cells]
        if any(named) or all(source.span is None for source in self.sources.values()):
            return named
        return [group_by_name(path) or path for path in self.path]

    def warnings(self) -> list[str]:
        causes = self.paths.causes(self.lost)
        if not self.outside:
            return causes
        return [
            f"{counted('link', self.outside)} refused for leading out of {str(self.paths.root)!r}: "
            f"{some(self.outside)}{FOLLOW}.",
            *causes,
        ]

    def why_none(self, file: Path) -> str:
        """The sentence of the error where no row has a file that is used."""
        if self.outside:
            return f"No clip of {str(file)!r} can be used: {' '.join(self.warnings())}"
        told = (
            f"None of the {len(self.lost)} files named in {str(file)!r} exists below {str(self.paths.root)!r}"
        )
        if not self.lost:
            return f"{told}; it has no row below its header."
        first = self.lost[0]
        cause = self.paths.why_missing(first)
        remedy = (
            "; mend the column 'path'"
            if cause
            else ("; check the column 'path', or name the folder that paths are relative to by --root")
        )
        return f"{told}; the first is {first!r}{f', which {cause}' if cause else ''}{remedy}."


def _label_sets(table: _Table, clips: _Clips) -> dict[str, LabelSet]:
    """The label sets, whose sorted classes come from all rows of the file, whichever clips are available."""
    columns = {safe_name(name): name for name in table.labels}
    made = {
        safe: _label_set([row[name] for _, row in table.rows], [row[name] for row in clips.kept])
        for safe, name in columns.items()
    }
    return made or {"label": LabelSet([], np.full(len(clips.kept), UNLABELLED))}


def _label_set(all_cells: list[str], cells: list[str]) -> LabelSet:
    names = sorted({name for cell in all_cells for name in _classes(cell)})
    index = {name: i for i, name in enumerate(names)}
    if not any("|" in cell for cell in all_cells):
        return LabelSet(
            names, np.array([index[found[0]] if (found := _classes(c)) else UNLABELLED for c in cells])
        )
    label = np.zeros((len(cells), len(names)), np.uint8)
    for row, cell in enumerate(cells):
        label[row, [index[name] for name in _classes(cell)]] = 1
    return LabelSet(names, label)


def _classes(cell: str) -> list[str]:
    """The classes that a cell names, in Unicode's composed spelling."""
    return [composed(plain_text(name.strip())) for name in cell.split("|") if not is_unlabelled(name)]


def _about_classes(label_sets: Mapping[str, LabelSet]) -> list[str]:
    return [
        sentence
        for name, labels in label_sets.items()
        for sentence in class_warnings(name, labels.class_names)
    ]
