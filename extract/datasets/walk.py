"""One walk over a folder finds the media files below it, by kind, and notes the files that are left aside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UsageError

VIDEO = frozenset(
    (
        "3g2", "3gp", "asf", "avi", "divx", "f4v", "flv", "gif", "m1v", "m2ts", "m2v", "m4v",
        "mjpeg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "nut", "ogm", "ogv", "rm",
        "rmvb", "ts", "vob", "webm", "wmv", "y4m",
    )
)  # fmt: skip
IMAGE = frozenset(
    (
        "bmp", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp",
    )
)  # fmt: skip
SOUND = frozenset(
    (
        "aac", "ac3", "aif", "aiff", "amr", "au", "caf", "flac", "m4a", "mka", "mp2", "mp3", "oga",
        "ogg", "opus", "wav", "wma",
    )
)  # fmt: skip
_NAMED = 5  # names that a warning gives


@dataclass
class Walk:
    """The files below ``root`` (a real path), sorted by path; hidden files and folders are passed over.

    videos, images, sounds, others: relative paths by extension, whatever its case. Links to files are
    followed if they stay inside the root; links to folders are not, since the files inside are found at their real
    place.
    """

    root: Path
    videos: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    sounds: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """One sentence for each kind of file that was left aside, except ``others``."""
        kinds = (
            ("that lead out of the data folder or nowhere are refused", "link", self.outside),
            (
                "are not followed: their content is read where it really lies",
                "link to a folder",
                self.linked_folders,
            ),
            ("cannot be read", "folder", self.unreadable),
        )
        return [f"{counted(kind, names)} {what}: {some(names)}." for what, kind, names in kinds if names]


def walk(root: Path) -> Walk:
    """Walk the folder once. Raises UsageError if it is not a folder."""
    if not root.is_dir():
        raise UsageError(f"{str(root)!r} is not a folder; point --data to the folder that holds the videos.")
    found = Walk(Path(os.path.realpath(root)))
    for path in _files(found):
        extension = path.rpartition(".")[2].lower()
        kinds = ((found.videos, VIDEO), (found.images, IMAGE), (found.sounds, SOUND))
        next((held for held, extensions in kinds if extension in extensions), found.others).append(path)
    for held in (found.videos, found.images, found.sounds, found.others):
        held.sort()
    return found


def _files(found: Walk) -> Iterator[str]:
    """The relative paths of all regular files; the files passed over are noted in ``found``."""
    top = str(found.root)
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(os.path.join(top, folder)) as entries:
                listed = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            found.unreadable.append(folder or ".")
            continue
        for entry in listed:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_symlink():
                if _link_to_file(top, path, found):
                    yield path
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path


def _link_to_file(top: str, path: str, found: Walk) -> bool:
    """Whether a link leads to a regular file inside the root; if not, the reason is noted in ``found``."""
    target = os.path.realpath(os.path.join(top, path))
    if not is_inside(top, target) or not os.path.exists(target):  # A loop of links does not exist either.
        found.outside.append(path)
    elif os.path.isdir(target):
        found.linked_folders.append(path)
    else:
        return os.path.isfile(target)
    return False


def is_inside(root: str, path: str) -> bool:
    """Whether one real path is the other or lies below it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def counted(thing: str, names: list[str]) -> str:
    """The number and the thing, such as "1 link", "3 links" or "2 links to a folder"."""
    head, space, rest = thing.partition(" ")
    return f"{len(names)} {head}{'s' if len(names) != 1 else ''}{space}{rest}"


def some(names: list[str]) -> str:
    """The first few names, quoted, on one line."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(repr(name) for name in names[:_NAMED]) + more
