"""`fsmm cache upgrade` brings data sets of an older schema to the newest one; features are neither read nor made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..catalog import Catalog
from ..locking import CATALOG, locked
from ..schema import SCHEMA_VERSION, dataset_folders


@dataclass
class UpgradeReport:
    """The report of an upgrade."""

    cache: str
    """The cache's folder."""
    upgraded: dict[str, int] = field(default_factory=dict)
    """The schema that each data set had that was brought to the newest one."""
    newest: list[str] = field(default_factory=list)
    """The data sets that had the newest schema already."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def upgrade(
    cache: Path, dataset: str | None = None, progress: Callable[[str], None] = lambda text: None
) -> UpgradeReport:
    """Bring all data sets of a cache, or one of them, to the newest schema.

    Catalogs of schema 1 do not say where their clips came from, nor in which state their files were: the origin stays
    unknown until the first extraction that lists some of these clips, which then also compares their files.
    progress: called with the name of each data set.
    Raises CacheError where there is no such data set, or a catalog cannot be read or written.
    """
    folders = dataset_folders(cache, dataset)
    report = UpgradeReport(str(cache))
    for folder in folders:
        progress(folder.name)
        with locked(folder, CATALOG):
            catalog = Catalog.read(folder)
            if catalog.schema == SCHEMA_VERSION:
                report.newest.append(folder.name)
                continue
            catalog.write(folder)
            report.upgraded[folder.name] = catalog.schema
    return report
