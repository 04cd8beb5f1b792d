"""Writes the pages of docs/results/ from the figures in its JSON files and the prose in docs/results/sources/.

    python scripts/results.py                 write every page
    python scripts/results.py --check         exit 1 and name the first page that is not up to date
    python scripts/results.py add RUN --page demo --table demo-events --row "ProtoNet, frame" --column event
    python scripts/results.py demo --home fsmm-demo      compare the runs of `make demo` with the data

Every figure is one row of a JSON file: its value, its interval, the command that gives it and the commit that gave
it. A row without a commit comes from a run whose commit was not recorded. A placeholder of the prose is one of

    {{ table: NAME }}                                    the whole table, as Markdown
    {{ figure: TABLE | ROW | COLUMN }}                   one value; a fourth word picks another field, a fifth the part
    {{ gap: TABLE | ROW | COLUMN minus TABLE | ROW | COLUMN }}   how far two values lie apart
    {{ command: TABLE | ROW | COLUMN }}                  the command that gives a figure
    {{ count: figures }}, {{ count: commits }}           how many figures the data has, and how many with a commit
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDER = re.compile(r"\{\{\s*(\w+):\s*(.*?)\s*\}\}", re.DOTALL)
TOLERANCE = 2.0
"""Points by which an accuracy of the small demo may differ: encoders round differently on other processors."""
DRAWS_MARK = "ᵈ"
"""Marks the interval of a difference that is over episode draws alone, from runs that hold no more."""
OVERVIEW = "overview"
"""The source of docs/results.md; every other source NAME.md.in gives docs/results/NAME.md."""


@dataclass(frozen=True)
class Figure:
    """One figure, and where it stands. ``value`` or ``difference`` is None where it was not measured."""

    page: str
    table: str
    row: str
    column: str
    part: str | None
    """Which of several figures of one cell this is, such as a class split; None for the only one."""
    details: str | None
    """The text of the second label column, for tables that have one."""
    value: float | None
    unit: str
    interval: float | None
    """The half width of the 95 % interval of ``value``, in its unit."""
    interval_over: str | None
    """What the intervals are taken over: draws, clips or classes."""
    difference: float | None
    """The paired difference on the same episodes, from what the table's ``difference_from`` names."""
    difference_interval: float | None
    episodes: int | None
    command: str | None
    """What gives the figure again; None where no single command does."""
    commit: str | None
    note: str | None
    run: str | None
    """The name of the run kept under docs/results/runs/."""

    @property
    def place(self) -> tuple[str | None, ...]:
        """What tells this figure from every other."""
        return self.table, self.row, self.details, self.column, self.part


@dataclass(frozen=True)
class Table:
    """How the figures of one table are laid out; its lines stand in the order of the figures."""

    name: str
    corner: str = ""
    """The header of the label column."""
    details: str | None = None
    """The header of a second label column, or None."""
    columns: tuple[str, ...] = ()
    digits: int | None = None
    """Digits after the point of a figure that is stored with one; None prints every figure as it is stored."""
    difference_from: str | None = None
    named_parts: bool = False
    show_units: bool = False


@dataclass
class Data:
    """The figures of one file, or of all files together."""

    tables: dict[str, Table] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    if given.step == "add":
        add(given)
    elif given.step == "demo":
        compare_demo(given.root, given.home)
    elif given.check:
        check(given.root)
    else:
        write(given.root)


def parser() -> argparse.ArgumentParser:
    """The options of this script."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--root", type=Path, default=ROOT, help="the checkout whose docs/ are meant")
    options.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    steps = options.add_subparsers(dest="step")
    adding = steps.add_parser("add", help="record a run as a figure")
    adding.add_argument("run", type=Path, help="a run's folder, with config.json and metrics.json")
    for name in ("--page", "--table", "--row", "--column"):
        adding.add_argument(name, required=True)
    adding.add_argument("--part", help="which figure of a cell that has several")
    adding.add_argument(
        "--minus", type=Path, help="the folder of a run whose paired difference is recorded, over clips"
    )
    adding.add_argument("--details", help="the text of the second label column")
    adding.add_argument("--note")
    adding.add_argument("--metric", default="accuracy", help="the key of metrics.json, a share of one")
    adding.add_argument("--cache", default="CACHE", help="the cache folder that the command names")
    adding.add_argument("--command", help="the command that makes the run (default: from config.json)")
    adding.add_argument("--name", help="of the kept run (default: the table and the run's folder)")
    adding.add_argument("--checkout", type=Path, help="the checkout that made the run (default: this one)")
    adding.add_argument("--dirty", action="store_true", help="allow uncommitted changes; stores no commit")
    comparing = steps.add_parser("demo", help="compare the runs of `make demo` with the data")
    comparing.add_argument("--home", type=Path, required=True, help="the demo's folder, with runs/ in it")
    return options


# Reading and writing the data


def read_file(path: Path) -> Data:
    """The tables and figures of one JSON file. Exits with a sentence if a row has other keys than Figure."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    known = {f.name for f in fields(Figure)}
    for row in stored["rows"]:
        if set(row) != known:
            sys.exit(f"{path.name}: the row {row} has other keys than {', '.join(sorted(known))}.")
    tables = [Table(**{**table, "columns": tuple(table["columns"])}) for table in stored["tables"]]
    return Data({table.name: table for table in tables}, [Figure(**row) for row in stored["rows"]])


def write_file(path: Path, data: Data) -> None:
    """One line a table and one a figure, so that a changed figure is one changed line."""
    tables = [
        json.dumps(asdict(table), ensure_ascii=False, allow_nan=False) for table in data.tables.values()
    ]
    rows = [json.dumps(asdict(figure), ensure_ascii=False, allow_nan=False) for figure in data.figures]
    first, second = (",\n".join(lines) for lines in (tables, rows))
    text = f'{{\n"tables": [\n{first}\n],\n"rows": [\n{second}\n]\n}}\n'
    path.write_text(text, encoding="utf-8")


def put_tables(path: Path, data: Data) -> None:
    """Write tables with their figures into a file, in place of those of the same names; the others stay."""
    held = read_file(path) if path.exists() else Data()
    rest = [figure for figure in held.figures if figure.table not in data.tables]
    write_file(path, Data({**held.tables, **data.tables}, [*rest, *data.figures]))


def read_all(root: Path) -> Data:
    """Every file's tables and figures. Exits with a sentence if two figures claim one place."""
    joined = Data()
    for path in sorted((root / "docs" / "results").glob("*.json")):
        data = read_file(path)
        joined.tables.update(data.tables)
        joined.figures.extend(data.figures)
    places: set[tuple[str | None, ...]] = set()
    for figure in joined.figures:
        if figure.place in places:
            sys.exit(f"Two figures have the place {figure.place}; remove one of them.")
        places.add(figure.place)
    return joined


# Writing pages


def write(root: Path) -> None:
    """Write every page that has changed, and say which."""
    for path, text in pages(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(root)} is written.")


def check(root: Path) -> None:
    """Exit 1 with the name of the first page that differs from what the data gives."""
    for path, text in pages(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.relative_to(root)} is not up to date; run python scripts/results.py.")


def pages(root: Path) -> dict[Path, str]:
    """Every page's path and the text that it should have."""
    data = read_all(root)
    found = {}
    for source in sorted((root / "docs" / "results" / "sources").glob("*.md.in")):
        name = source.name.removesuffix(".md.in")
        folder = root / "docs" if name == OVERVIEW else root / "docs" / "results"
        made = f"<!-- Made by scripts/results.py from docs/results/sources/{source.name}: edit that. -->\n"
        path = folder / ("results.md" if name == OVERVIEW else f"{name}.md")
        found[path] = made + fill(source.read_text(encoding="utf-8"), data, name)
    return found


def fill(text: str, data: Data, page: str) -> str:
    """The prose with every placeholder replaced. Exits with a sentence if one names nothing."""

    def replaced(match: re.Match[str]) -> str:
        kind, what = match[1], " ".join(match[2].split())
        try:
            return placeholder(kind, what, data)
        except LookupError as error:
            sys.exit(f"{page}: {{{{ {kind}: {what} }}}} cannot be filled: {error.args[0]}.")

    return PLACEHOLDER.sub(replaced, text)


def placeholder(kind: str, what: str, data: Data) -> str:
    """The text of one placeholder. Raises LookupError if it names no figure, or more than one."""
    if kind == "table":
        return table_text(what, data)
    if kind == "figure":
        return figure_text(what, data)
    if kind == "gap":
        first, second = (find(text, data) for text in what.split(" minus "))
        return gap_text(first, second, data.tables[first.table].digits)
    if kind == "command":
        return find(what, data).command or "no command"
    if kind == "count":
        measured = [f for f in data.figures if f.value is not None or f.difference is not None]
        counted = [f for f in measured if what == "figures" or f.commit]
        return f"{len(counted):,}"
    raise LookupError(f"there is no placeholder named {kind}")


def find(what: str, data: Data) -> Figure:
    """The figure that ``TABLE | ROW | COLUMN | field | PART`` names. Raises LookupError unless there is one."""
    table, row, column, _, part = [*(text.strip() for text in what.split("|")), None, None][:5]
    named = [f for f in data.figures if (f.table, f.row, f.column) == (table, row, column)]
    found = [f for f in named if part in (None, f.part)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} figures have this place")
    return found[0]


def figure_text(what: str, data: Data) -> str:
    """One field of one figure: its value unless the placeholder names another field."""
    figure, words = find(what, data), what.split("|")
    digits = data.tables[figure.table].digits
    name = words[3].strip() if len(words) > 3 else "value"
    content = getattr(figure, name)
    if content is None:
        raise LookupError(f"its {name} was not measured")
    if name == "difference":
        return number(content, digits, signed=True)
    return half_width(content, digits) if "interval" in name else number(content, digits)


def gap_text(first: Figure, second: Figure, digits: int | None) -> str:
    """How far two values lie apart. Raises LookupError if one of them was not measured."""
    if first.value is None or second.value is None:
        raise LookupError("a value was not measured")
    return number(float(abs(first.value - second.value)), 1 if digits is None else digits)


def table_text(name: str, data: Data) -> str:
    """A table as Markdown. Raises LookupError if the data has no table of this name."""
    if name not in data.tables:
        raise LookupError("no file has a table of this name")
    table = data.tables[name]
    cells: dict[tuple[str, str | None], dict[str, list[Figure]]] = {}
    for figure in data.figures:
        if figure.table == name:
            line = cells.setdefault((figure.row, figure.details), {})
            line.setdefault(figure.column, []).append(figure)
    header = [table.corner, *([table.details] if table.details else []), *table.columns]
    lines = [header, ["---"] * len(header)]
    for (row, details), line in cells.items():
        labels = [row, *([details or ""] if table.details else [])]
        lines.append([*labels, *(cell_text(line.get(column, []), table) for column in table.columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell_text(figures: list[Figure], table: Table) -> str:
    """The figures of one cell: values, then a common interval, the difference in brackets, and notes."""
    if not figures:
        return ""
    if all(f.value is None and f.difference is None for f in figures):
        return "–"
    intervals = {f.interval if f.value is not None else f.difference_interval for f in figures}
    common = intervals.pop() if len(intervals) == 1 else None
    texts = [part_text(f, table, with_interval=common is None) for f in figures]
    text = (", " if table.named_parts or table.show_units else " / ").join(texts)
    if common is not None:
        text += f" ± {half_width(common, table.digits)}"
        if all(f.value is None and f.interval_over == "draws" for f in figures):
            text += DRAWS_MARK
    differences = [f for f in figures if f.value is not None and f.difference is not None]
    text += "".join(f" ({difference_text(f, table)})" for f in differences)
    notes = {f.note for f in figures if f.note}
    return " ".join([text, *sorted(notes)])


def part_text(figure: Figure, table: Table, *, with_interval: bool) -> str:
    """One figure of a cell; a figure that is a difference alone has its sign."""
    if figure.value is None:
        return difference_text(figure, table) if with_interval else signed_difference(figure, table)
    text = number(figure.value, table.digits)
    if with_interval and figure.interval is not None:
        text += f" ± {half_width(figure.interval, table.digits)}"
    if table.named_parts and figure.part:
        text = f"{figure.part} {text}"
    return f"{text} {figure.unit}" if table.show_units else text


def difference_text(figure: Figure, table: Table) -> str:
    """``+1.2 ± 0.1``, with a mark where the interval is over episode draws alone."""
    text = signed_difference(figure, table)
    if figure.difference_interval is None:
        return text
    mark = DRAWS_MARK if figure.interval_over == "draws" else ""
    return f"{text} ± {half_width(figure.difference_interval, table.digits)}{mark}"


def signed_difference(figure: Figure, table: Table) -> str:
    """``+1.2``; an en dash where the difference was not measured."""
    return "–" if figure.difference is None else number(figure.difference, table.digits, signed=True)


def number(value: float, digits: int | None, *, signed: bool = False) -> str:
    """``1,234.5``, with a sign if ``signed``; whole numbers, and all if ``digits`` is None, are printed as stored."""
    sign, places = "+" if signed else "", "" if digits is None or isinstance(value, int) else f".{digits}f"
    return format(value, f"{sign},{places}")


def half_width(value: float, digits: int | None) -> str:
    """The half width of an interval; one that rounds to zero is printed as less than the last digit."""
    places = 1 if digits is None else digits
    return f"< {10**-places:.{places}f}" if round(value, places) == 0 else number(value, digits)


# Recording a run


def add(given: argparse.Namespace) -> None:
    """Record a run: its small row under docs/results/runs/, and its figure in the page's JSON file."""
    from fsmm.machine.digests import changed_files

    if changed := changed_files(given.run, ["config.json", "metrics.json"]):
        sys.exit(f"{given.run.name}: {' and '.join(changed)} changed after the run ended; run it again.")
    config = json.loads((given.run / "config.json").read_text(encoding="utf-8"))
    metrics = json.loads((given.run / "metrics.json").read_text(encoding="utf-8"))
    if metrics.get(given.metric) is None:
        sys.exit(
            f"{given.run.name}: metrics.json has no {given.metric}; it has {', '.join(sorted(metrics))}."
        )
    commit = commit_of(given.checkout or given.root, dirty=given.dirty)
    command = given.command or command_of(config, given.cache)
    name = given.name or f"{given.table}-{given.run.name}"
    key, over = ("ci95", "draws") if given.minus is None else ("ci95_clips", "clips")
    interval = metrics.get(key) if given.metric == "accuracy" else None
    difference, width = (None, None) if given.minus is None else paired_difference(given.run, given.minus)
    figure = Figure(
        page=given.page,
        table=given.table,
        row=given.row,
        column=given.column,
        part=given.part,
        details=given.details,
        value=round(100 * metrics[given.metric], 2),
        unit="%",
        interval=None if interval is None else round(100 * interval, 2),
        interval_over=over if interval is not None or width is not None else None,
        difference=difference,
        difference_interval=width,
        episodes=metrics.get("episodes"),
        command=command,
        commit=commit,
        note=given.note,
        run=name,
    )
    keep_run(given.root, name, small_row(given.run.name, config, metrics, command=command, commit=commit))
    path = given.root / "docs" / "results" / f"{given.page}.json"
    data = read_file(path) if path.is_file() else Data()
    write_file(path, with_figure(data, figure))
    print(f"{figure.row}, {figure.column}: {figure.value} % is recorded in {path.name} with {name}.json.")


def paired_difference(run: Path, base: Path) -> tuple[float, float | None]:
    """The paired difference of two runs in points, and its half width over clips.

    Exits with a sentence if the runs cannot be paired; the half width is None where it has no value.
    """
    from fsmm.errors import FsmmError
    from fsmm.studies.compare import compare

    try:
        (pair,) = compare([run, base]).pairs
    except FsmmError as error:
        sys.exit(str(error))
    width = None if pair.clips is None else pair.clips.ci95
    return round(100 * pair.difference, 2), None if width is None else round(100 * width, 2)


def with_figure(data: Data, figure: Figure) -> Data:
    """The data with this figure in its place: instead of an older one, or at the end of its table."""
    table = data.tables.get(figure.table, Table(figure.table, digits=1))
    if figure.column not in table.columns:
        table = Table(**{**asdict(table), "columns": (*table.columns, figure.column)})
    known = {f.place: number for number, f in enumerate(data.figures)}
    if figure.place in known:
        at = known[figure.place]
        figures = [*data.figures[:at], figure, *data.figures[at + 1 :]]
    else:
        figures = [*data.figures, figure]
    return Data({**data.tables, table.name: table}, figures)


def commit_of(checkout: Path, *, dirty: bool) -> str | None:
    """The commit of a checkout without changes outside docs/results; None for a changed one if ``dirty``.

    Exits with a sentence if the checkout has changes and ``dirty`` is not given.
    """
    if git(checkout, "status", "--porcelain", "--", ".", ":!docs/results", ":!docs/results.md"):
        if not dirty:
            sys.exit(
                "The checkout has uncommitted changes, so no commit made this run; commit, or give --dirty."
            )
        return None
    return git(checkout, "rev-parse", "HEAD")


def git(checkout: Path, *arguments: str) -> str:
    """What git prints. Exits with a sentence if it fails."""
    done = subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"git {shlex.join(arguments)} failed in {checkout}: {done.stderr.strip()}")
    return done.stdout.strip()


_PATHS = ("out", "cache")  # The fields of a run that name places on the machine that made it.


def small_row(
    folder: str, config: Mapping[str, Any], metrics: Mapping[str, Any], *, command: str, commit: str | None
) -> dict[str, Any]:
    """A run without its tables by class and episode, and without the paths of the machine that made it."""
    kept = {k: v for k, v in metrics.items() if k not in _PATHS and not k.startswith("per_")}
    asked = {k: v for k, v in config.items() if k not in _PATHS}
    return {"folder": folder, "command": command, "commit": commit, "config": asked, "metrics": kept}


def keep_run(root: Path, name: str, row: Mapping[str, Any]) -> None:
    """Write a small row to docs/results/runs/NAME.json."""
    folder = root / "docs" / "results" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


# The fields of config.json beside what `fsmm episode-eval` does without an option; None: always written.
RUN_DEFAULTS: dict[str, Any] = {
    "method": None,
    "dataset": None,
    "modalities": None,
    "fusion": None,
    "streams": None,
    "train_modalities": None,
    "train_missing": "auto",
    "when_missing": "auto",
    "settings": None,
    "words": "auto",
    "normalise": "l2",
    "dtype": "float32",
    "train_seed": 0,
    "seen_unseen": "auto",
    "episodes": None,
    "reliability": None,
    "train_dataset": None,
    "align": None,
}
# Where a run was made is not what it is: the command names the cache that `add` was told. What base classes chose in it
# follows from what it is.
NOT_GIVEN = {"cache", "device", "fingerprint", "chosen"}
PROTOCOL_DEFAULTS: dict[str, Any] = {
    "n_way": 5,
    "k_shot": 1,
    "n_query": 15,
    "split": "novel",
    "label_set": None,
    "class_split": "default",
    "clip_split": None,
    "seed": 0,
    "support_modalities": None,
    "query_modalities": None,
    "missing": None,
    "noisy": None,
    "may_lose_all": None,
    "dirichlet": None,
    "query_classes": None,
    "small_classes": "refuse",
    "unlabelled": 0,
    "generalised": None,
    "retrieval": None,
    "shared_group": True,
    "support_groups": None,
    "query_groups": None,
    "support_group_share": None,
    "replay": None,
}
RANGES = ("n_way", "k_shot")
REPEATED = ("missing", "noisy", "train_missing", "settings")


def command_of(config: Mapping[str, Any], cache: str) -> str:
    """The ``fsmm episode-eval`` command that makes a run again, from its config.json.

    Exits with a sentence if the configuration has a field that no option is known for.
    """
    protocol = config["protocol"]
    words = ["fsmm", "episode-eval"]
    for values, defaults in ((config, RUN_DEFAULTS), (protocol, PROTOCOL_DEFAULTS)):
        unknown = [k for k, v in values.items() if k not in {*defaults, "protocol", *NOT_GIVEN} and v]
        if unknown:
            sys.exit(
                f"config.json has {', '.join(unknown)}, which this script knows no option for; use --command."
            )
    defaults = {**RUN_DEFAULTS, **PROTOCOL_DEFAULTS, "train_seed": protocol.get("seed", 0)}
    for name, value in {**{k: config.get(k) for k in RUN_DEFAULTS}, **protocol}.items():
        if name != "replay" and value != defaults[name]:  # The file of episodes is named by its path.
            words += option(name, value)
    return shlex.join([*words, "--cache", cache])


def option(name: str, value: Any) -> list[str]:
    """One field of a configuration as command-line words; none for False and for what is empty."""
    flag = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    if value is None and name == "words":
        return [flag, "none"]
    if value is False and PROTOCOL_DEFAULTS.get(name) is True:
        return [f"--no-{flag[2:]}"]
    if value is None or value is False or value in ([], {}):
        return []
    if name in REPEATED:
        return [word for text in repeated(value) for word in (flag, text)]
    if isinstance(value, list):
        return [flag, ("-" if name in RANGES else ",").join(map(str, value))]
    return [flag, str(value)]


def repeated(value: Any) -> list[str]:
    """Settings as ``key=value``, missing modalities as ``audio=0.5@query``."""
    if isinstance(value, dict):
        return [f"{key}={setting}" for key, setting in value.items()]
    return [f"{m['modality']}={m['rate']:g}@{m['side']}" for m in value]


# Comparing the small demo


def compare_demo(root: Path, home: Path) -> None:
    """Exit 1 with a sentence if a run of the small demo differs from its recorded figure by more than TOLERANCE."""
    figures = read_file(root / "docs" / "results" / "demo-small.json").figures
    for figure in figures:
        name = f"{figure.row}, {figure.column}"
        row = json.loads(
            (root / "docs" / "results" / "runs" / f"{figure.run}.json").read_text(encoding="utf-8")
        )
        path = home / "runs" / row["folder"] / "metrics.json"
        if not path.is_file():
            sys.exit(f"{name}: there is no run {row['folder']} in {home / 'runs'}.")
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if metrics["episodes"] != figure.episodes:
            sys.exit(
                f"{name}: this run has {metrics['episodes']} episodes, the recorded one {figure.episodes}."
            )
        found = 100 * metrics["accuracy"]
        if figure.value is None or abs(found - figure.value) > TOLERANCE:
            sys.exit(
                f"{name}: this run has {found:.1f} %, the recorded one {figure.value} %; "
                f"they may differ by {TOLERANCE:g} points."
            )
    print(
        f"All {len(figures)} accuracies of the small demo are within {TOLERANCE:g} points of the recorded ones."
    )


if __name__ == "__main__":
    main()
