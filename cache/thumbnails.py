"""Small pictures of clips, which reports show: one JPEG a clip, in one SQLite file beside the streams of a data set.

They belong to no stream and change no figure; a data set without them is whole. SQLite keeps the file whole when a
writer is killed, and lets several processes write it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from ..errors import CacheError

THUMBNAILS = "thumbnails.sqlite"
"""The file's name in a data set's folder: table ``thumbnail`` with columns ``clip`` and ``jpeg``."""
_PATIENCE = 30.0  # seconds that a writer waits for another


def add_thumbnails(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Keep the pictures of clips, by id, in place of older ones. Raises CacheError where they cannot be written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> add_thumbnails(folder, {"a": b"1", "b": b"2"})
    >>> thumbnails_of(folder, ["b", "c"])
    {'b': b'2'}
    """
    if pictures:
        with _opened(folder) as file:
            file.executemany("INSERT OR REPLACE INTO thumbnail VALUES (?, ?)", pictures.items())


def rename_thumbnails(folder: Path, moved: Mapping[str, str]) -> None:
    """Give the pictures of clips their new ids, by old id, where there are pictures at all. Raises CacheError."""
    if moved and (folder / THUMBNAILS).is_file():
        held = thumbnails_of(folder, moved)
        with _opened(folder) as file:
            file.executemany("DELETE FROM thumbnail WHERE clip = ?", [(clip,) for clip in held])
            named = [(moved[clip], jpeg) for clip, jpeg in held.items()]
            file.executemany("INSERT OR REPLACE INTO thumbnail VALUES (?, ?)", named)


def forget_thumbnails(folder: Path, clips: Collection[str]) -> None:
    """Remove the pictures of clips, where there are pictures at all. Raises CacheError."""
    if clips and (folder / THUMBNAILS).is_file():
        with _opened(folder) as file:
            file.executemany("DELETE FROM thumbnail WHERE clip = ?", [(clip,) for clip in clips])


def thumbnails_of(folder: Path, clips: Collection[str]) -> dict[str, bytes]:
    """The pictures of those of the clips that have one; none where the file is absent or cannot be read."""
    path = folder / THUMBNAILS
    if not path.is_file():
        return {}
    wanted = set(clips)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            rows = file.execute("SELECT clip, jpeg FROM thumbnail")
            return {clip: bytes(jpeg) for clip, jpeg in rows if clip in wanted}
    except (sqlite3.Error, TypeError):
        return {}


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The table of a data set's pictures, for one change, which is made whole or not at all."""
    try:
        with closing(sqlite3.connect(folder / THUMBNAILS, timeout=_PATIENCE)) as file, file:
            file.execute("PRAGMA secure_delete = ON")  # A clip that is removed leaves no picture behind.
            file.execute("CREATE TABLE IF NOT EXISTS thumbnail (clip TEXT PRIMARY KEY, jpeg BLOB NOT NULL)")
            yield file
    except sqlite3.Error as error:
        raise CacheError(
            f"The thumbnails of data set {folder.name!r} cannot be written ({error}); make room, or delete "
            f"{THUMBNAILS}."
        ) from None
