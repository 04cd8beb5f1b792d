"""Tables of decisions as files: CSV, JSON or Parquet by the name's end."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import UsageError, install_hint, unknown
from ...machine.files import whole_or_absent, write_json
from ...machine.texts import without_formulas

KINDS = (".csv", ".json", ".parquet")


def check_kind(path: Path) -> None:
    """Raise UsageError where a file of this name cannot be written, before any work is done."""
    if path.suffix.lower() not in KINDS:
        raise unknown("kind of file", path.suffix or path.name, KINDS)
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UsageError(f"Parquet needs pyarrow: {install_hint('report')}.") from None


def write_labels(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write one row for each clip; the columns of a table are path, label, probability, set, note and one a class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower()
    if kind == ".json":
        write_json(path, list(rows))
        return
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    if kind == ".csv":
        with whole_or_absent(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(map(without_formulas, flat))
        return
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({column: [row.get(column) for row in flat] for column in columns})
    with whole_or_absent(path) as temporary:
        parquet.write_table(table, temporary)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without nested values: the set as a text, and a column ``p: CLASS`` for each class."""
    found = {key: value for key, value in row.items() if key not in ("probabilities", "set")}
    if "set" in row:
        found["set"] = "|".join(row["set"])
    return found | {f"p: {name}": value for name, value in row.get("probabilities", {}).items()}
