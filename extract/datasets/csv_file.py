"""Dataset ``csv`` is a table of clips with any number of label columns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.catalog import CLIP_SPLITS, UNLABELLED, Catalog, LabelSet
from ...cache.origin import Origin
from ...errors import UsageError, listed
from ...machine.texts import plain_text, read_csv
from .base import DatasetOptions, Listing, Source
from .common import dataset_name, finish, safe_name
from .walk import is_inside, some

_NOT_LABELS = ("path", "id", "split", "group")


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of a CSV file with a header row.

    The columns are ``path`` (relative to the file's folder, and inside it), optionally ``id`` (else the path is
    the id), ``split`` (train, val, test) and ``group`` (the clip's source: a long video, a person); every other
    column is a label set. A cell may name several classes divided by ``|``, which makes the whole column multi-label;
    an empty cell is unlabelled. ``label`` is the default label set, else the first label column is.

    data: the file, or a folder that holds one CSV file only. Raises UsageError, with the line, for a file of
    another form.
    """
    if data is None:
        raise UsageError("Dataset 'csv' needs --data: a CSV file with a column 'path' and label columns.")
    file = _only_csv(data)
    table = _read(file)
    root = Path(os.path.realpath(file)).parent
    clips = _Clips(root)
    for line, row in table.rows:
        clips.add(line, row)
    if not clips.sources:
        raise UsageError(
            f"None of the {len(table.rows)} files named in {str(file)!r} exists; check its column 'path'."
        )
    label_sets = _label_sets(table, clips)
    default = "label" if "label" in label_sets else next(iter(label_sets))
    catalog = Catalog(
        dataset=dataset_name(file),
        clip_id=list(clips.sources),
        label_sets=label_sets,
        default_label_set=default,
        path=clips.paths,
        clip_split=clips.splits,
        group=[plain_text(row.get("group", "").strip()) for row in clips.kept],
    )
    return finish(
        Listing(
            catalog=catalog,
            sources=clips.sources,
            root=root,
            missing=clips.missing,
            warnings=clips.warnings(),
            origin=Origin("csv", os.path.realpath(file), str(root)),
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


@dataclass
class _Table:
    """The file's content. labels: the label columns, as written. rows: (line number, cells by column name)."""

    labels: list[str]
    rows: list[tuple[int, dict[str, str]]]


def _read(file: Path) -> _Table:
    table = read_csv(file)
    header = [_column(name) for name in table.columns]
    _check_header(file, header)
    labels = [name for name in header if name not in _NOT_LABELS]
    return _Table(labels, [(line, dict(zip(header, cells))) for line, cells in table.rows])


def _column(name: str) -> str:
    return name.lower() if name.lower() in (*_NOT_LABELS, "label") else name


def _check_header(file: Path, header: list[str]) -> None:
    if "path" not in header:
        raise UsageError(
            f"The first line of {str(file)!r} must name its columns, one of them 'path'; it has {listed(header)}."
        )
    safe = [safe_name(name, "") for name in header]
    if "" in safe or len(set(safe)) < len(safe):
        raise UsageError(
            f"The columns of {str(file)!r} need different names with letters or digits; they are {listed(header)}."
        )


@dataclass
class _Clips:
    """The rows whose file exists, in the order of the file."""

    root: Path
    sources: dict[str, Source] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    kept: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, row: dict[str, str]) -> None:
        path = self._relative(line, row["path"])
        clip = plain_text(row.get("id", "").strip() or path)
        if clip in self.seen:
            raise UsageError(
                f"Lines {self.seen[clip]} and {line} of the CSV file are the same clip {clip!r}; "
                "ids must differ."
            )
        self.seen[clip] = line
        split = row.get("split", "").strip().lower()
        if split not in CLIP_SPLITS:
            raise UsageError(
                f"Line {line} of the CSV file has split {split!r}; use train, val, test or leave it empty."
            )
        full = self.root / path
        real = os.path.realpath(full)
        if not os.path.isfile(real):
            self.missing.append(clip)
        elif not is_inside(str(self.root), real):
            self.outside.append(path)
        else:
            self.sources[clip] = Source(video=full)
            self.paths.append(plain_text(path))
            self.splits.append(CLIP_SPLITS[split])
            self.kept.append(row)

    def _relative(self, line: int, cell: str) -> str:
        """The normalised path inside the root. Raises UsageError if it is empty or leaves the root."""
        cell = cell.strip(" \t")
        path = os.path.normpath(os.path.join(self.root, cell))
        if not cell or "\0" in cell or path == str(self.root) or not is_inside(str(self.root), path):
            raise UsageError(
                f"Line {line} of the CSV file: path {cell!r} is not a file inside {str(self.root)!r}."
            )
        return Path(os.path.relpath(path, self.root)).as_posix()

    def warnings(self) -> list[str]:
        if not self.outside:
            return []
        return [
            f"{len(self.outside)} links that lead out of the CSV file's folder are refused: "
            f"{some(self.outside)}."
        ]


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
    return [plain_text(name.strip()) for name in cell.split("|") if name.strip()]
