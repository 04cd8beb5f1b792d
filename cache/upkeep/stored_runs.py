"""The check of the runs that lie beside a data set: their files are compared with the digests that they carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import FsmmError
from ...machine.digests import SUMS, changed_files, read_sums


def changed_runs(runs: Path) -> Iterator[tuple[Path, str]]:
    """The folders below ``runs`` whose files are not those of their SHA256SUMS, each with a sentence that says so."""
    for sums in sorted(runs.rglob(SUMS)):
        folder = sums.parent
        try:
            changed = changed_files(folder, list(read_sums(folder) or ()))
        except FsmmError as error:
            yield folder, str(error)
            continue
        if changed:
            yield folder, f"Of this run, {' and '.join(changed)} changed after it ended; run it again."
