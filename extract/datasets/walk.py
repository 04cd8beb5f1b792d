"""One walk over a folder finds the media files below it, by kind, and notes the files that are left aside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UsageError
from .base import Series, Source
from .frame_folders import advice, frames_by_folder

VIDEO = frozenset(
    (
        "3g2", "3gp", "asf", "avi", "divx", "f4v", "flv", "gif", "m1v", "m2ts", "m2v", "m4v",
        "mjpeg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "nut", "ogm", "ogv", "rm",
        "rmvb", "ts", "vob", "webm", "wmv", "y4m",
    )
)  # fmt: skip
IMAGE = frozenset(
    (
        "avif", "bmp", "heic", "heif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp",
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
    place. follow_links: whether all links are followed, but for those to a folder that holds the link. frame_rate: the
    frames a second of folders of numbered images, which are videos then; frames: those of each such folder.
    """

    root: Path
    follow_links: bool = False
    frame_rate: float | None = None
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    videos: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    sounds: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def source(
        self, video: str | None, *, audio: Path | None = None, series: tuple[Series, ...] = ()
    ) -> Source:
        """The files of a clip whose video is one of ``videos``, a file or a folder of frames; None for no video."""
        if video is not None and video in self.frames:
            images = tuple(self.root / frame for frame in self.frames[video])
            return Source(images=images, audio=audio, series=series, frame_rate=self.frame_rate or 0.0)
        return Source(video=None if video is None else self.root / video, audio=audio, series=series)

    def advice(self) -> str:
        """A sentence where folders of numbered images are there and were not asked for; else ""."""
        return advice(self.without_media()) if self.frame_rate is None else ""

    def without_media(self) -> list[str]:
        """The images that are neither thumbnails of videos nor stills with sound, by their names."""
        stems = {os.path.splitext(path)[0] for path in (*self.videos, *self.sounds)}
        return [path for path in self.images if os.path.splitext(path)[0] not in stems]

    def warnings(self) -> list[str]:
        """One sentence for each kind of file that was left aside, except ``others``."""
        inner = (
            "the folder holds the link" if self.follow_links else "the content is read where it really lies"
        )
        kinds = (
            ("link", self.outside, "refused for leading out of the data folder", FOLLOW),
            ("link", self.dangling, "passed over for leading nowhere", ""),
            ("link to a folder", self.linked_folders, f"not followed, since {inner}", ""),
            ("folder", self.unreadable, "left out, since it cannot be read", ""),
        )
        return [
            f"{counted(kind, names)} {what}: {some(names)}{remedy}."
            for kind, names, what, remedy in kinds
            if names
        ]


FOLLOW = "; give --follow-links if you trust where they lead"
_USUAL_NESTING, _MOST_NESTED = (
    2,
    300,
)  # links to folders that lie one within another, and those that lie deeper


def walk(root: Path, *, follow_links: bool = False, frame_rate: float | None = None) -> Walk:
    """Walk the folder once.

    frame_rate: the frames a second of folders of numbered images; None where these are no videos. Raises UsageError if
    it is not a folder, or its links lead round without end.
    """
    if not root.is_dir():
        raise UsageError(f"{str(root)!r} is not a folder; point --data to the folder that holds the videos.")
    found = Walk(Path(os.path.realpath(root)), follow_links, frame_rate)
    for path in _files(found):
        extension = path.rpartition(".")[2].lower()
        kinds = ((found.videos, VIDEO), (found.images, IMAGE), (found.sounds, SOUND))
        next((held for held, extensions in kinds if extension in extensions), found.others).append(path)
    if found.frame_rate is not None:
        alone = found.without_media()
        found.frames = frames_by_folder(alone)
        frames = {path for path in alone if path.rpartition("/")[0] in found.frames}
        found.images = [path for path in found.images if path not in frames]
        found.videos += found.frames
    for held in (found.videos, found.images, found.sounds, found.others):
        held.sort()
    return found


def _files(found: Walk) -> Iterator[str]:
    """The relative paths of all regular files; the files passed over are noted in ``found``."""
    top = str(found.root)
    # Each is a folder, and the real places of the folders that lead to it by links.
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (top,))]
    nested = 0
    while waiting:
        folder, above = waiting.pop()
        try:
            with os.scandir(os.path.join(top, folder)) as entries:
                listed = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            found.unreadable.append(folder or ".")
            continue
        for entry in listed:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_symlink():
                target = _followed(top, path, above, found)
                if os.path.isfile(target):
                    yield path
                elif target:
                    waiting.append((path, (*above, target)))
                    nested += len(above) > _USUAL_NESTING
                    if nested > _MOST_NESTED:
                        raise UsageError(f"The links below {top!r} lead round; leave out --follow-links.")
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((path, above))
            elif entry.is_file(follow_symlinks=False):
                yield path


def _followed(top: str, path: str, above: Sequence[str], found: Walk) -> str:
    """The real file or folder that a link leads to; "" if it is not followed, which is noted in ``found``."""
    here = os.path.join(top, path)
    target = os.path.realpath(here)
    if not os.path.exists(target):  # A loop of links does not exist either.
        found.dangling.append(path)
    elif not is_inside(top, target) and not found.follow_links:
        found.outside.append(path)
    elif os.path.isdir(target):
        holders = [*above, os.path.realpath(os.path.dirname(here))]
        if found.follow_links and not any(is_inside(target, holder) for holder in holders):
            return target
        found.linked_folders.append(path)
    elif os.path.isfile(target):
        return target
    return ""


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
