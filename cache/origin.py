"""The origin of a data set: which data its clips were listed from, and the state of each clip's file at that time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import h5py
import numpy as np

from ..machine.files import parsed_json
from .hdf5 import stored_array, stored_values

UNKNOWN_KIND = "unknown"
UNSEEN = -1  # The size and the time of a file that has not been looked at.


@dataclass(frozen=True)
class Origin:
    """The data that clips were listed from. Two origins are the same where kind, root and options are.

    >>> one = Origin("folder", "/a/videos", "/a/videos")
    >>> one.is_same(Origin("folder", "/b/videos", "/b/videos")), one.text()
    (False, "folder '/a/videos'")
    """

    kind: str
    """The kind of data set: a name of ``fsmm datasets``, "import", or "unknown" in caches of schema 1."""
    root: str = ""
    """The folder or file that was named; "" where the kind and the options say all."""
    folder: str = ""
    """The folder that the paths of the clips are relative to; "" where they have none."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The options that make it other data, such as the demo's form and seed."""

    def is_same(self, other: Origin) -> bool:
        return (self.kind, self.root, dict(self.options)) == (other.kind, other.root, dict(other.options))

    def is_same_elsewhere(self, other: Origin) -> bool:
        """Whether only the place differs, as on another machine or after a move."""
        return self.kind == other.kind and dict(self.options) == dict(other.options)

    @property
    def is_known(self) -> bool:
        return self.kind != UNKNOWN_KIND

    def text(self) -> str:
        """The origin in words, such as "demo (form small, seed 0)"."""
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return self.kind + (f" {self.root!r}" if self.root else "") + (f" ({options})" if options else "")

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Origin:
        """The origin that ``to_json`` wrote. Raises ValueError or TypeError for any other text."""
        values: dict[str, Any] = parsed_json(text)
        found = cls(**values)
        texts = [found.kind, found.root, found.folder, *found.options, *found.options.values()]
        if not all(isinstance(value, str) for value in texts):
            raise TypeError("an origin holds something else than texts")
        return found


@dataclass
class ClipSources:
    """Where the n clips of a data set come from.

    >>> sources = ClipSources([Origin("folder", "/a"), Origin("folder", "/b")], origin=[0, 1, 1])
    >>> sources.listed[2] = False
    >>> sources.gone.tolist(), sources.take(np.array([2, 0])).origin.tolist()
    ([False, False, True], [1, 0])
    """

    origins: list[Origin]
    """The k origins that clips were listed from, in the order in which they came."""
    origin: np.ndarray
    """int32 [n], the origin that brought each clip, an index of ``origins``."""
    listed: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    """bool [n, k], whether the last listing of each origin had the clip."""
    size: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 [n], the bytes of the clip's files when they were last looked at, or UNSEEN."""
    mtime_ns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 [n], the time of change of the clip's files, the latest one, when they were last looked at, or UNSEEN."""
    part: np.ndarray = field(default_factory=lambda: np.zeros(0, object))
    """object [n] of texts, the part of its files that each clip is, such as "#t=12.5,20"; "" for all of them."""

    def __post_init__(self) -> None:
        self.origin = np.asarray(self.origin, np.int32)
        n, k = len(self.origin), len(self.origins)
        if not len(self.listed):
            self.listed = np.arange(k) == self.origin[:, None]
        self.listed = np.asarray(self.listed, bool)
        self.size = np.asarray(self.size, np.int64) if len(self.size) else np.full(n, UNSEEN, np.int64)
        self.mtime_ns = (
            np.asarray(self.mtime_ns, np.int64) if len(self.mtime_ns) else np.full(n, UNSEEN, np.int64)
        )
        self.part = np.asarray(self.part, object) if len(self.part) else np.full(n, "", object)
        if self.listed.shape != (n, k) or not len(self.size) == len(self.mtime_ns) == len(self.part) == n:
            raise ValueError("its clips and their sources differ in number")
        if n and not (self.origin.min() >= 0 and self.origin.max() < k):
            raise ValueError("a clip has an origin that is not there")

    @classmethod
    def unknown(cls, n: int) -> ClipSources:
        """The sources of n clips of which nothing is known."""
        return cls([Origin(UNKNOWN_KIND)], np.zeros(n, np.int32))

    @classmethod
    def of(cls, origin: Origin, n: int) -> ClipSources:
        """The sources of n clips of one origin, whose files have not been looked at."""
        return cls([origin], np.zeros(n, np.int32))

    @property
    def gone(self) -> np.ndarray:
        """bool [n], the clips that no origin lists any more."""
        return np.asarray(~self.listed.any(1))

    def take(self, clips: np.ndarray) -> ClipSources:
        """The sources of the clips at ``clips`` (int [m]), in that order."""
        return ClipSources(
            origins=self.origins,
            origin=self.origin[clips],
            listed=self.listed[clips],
            size=self.size[clips],
            mtime_ns=self.mtime_ns[clips],
            part=self.part[clips],
        )

    def with_origin(self, number: int, origin: Origin) -> ClipSources:
        """The same sources, where one origin is known better."""
        return replace(self, origins=[*self.origins[:number], origin, *self.origins[number + 1 :]])

    def write(self, clips: h5py.Group) -> None:
        """Store the sources in the group of a catalog's clips."""
        texts = [origin.to_json().encode() for origin in self.origins]
        clips.create_dataset("origins", data=texts, dtype=h5py.string_dtype())
        for name in ("origin", "listed", "size", "mtime_ns"):
            clips.create_dataset(name, data=getattr(self, name))
        if self.part.any():
            clips.create_dataset(
                "part", data=[part.encode() for part in self.part], dtype=h5py.string_dtype()
            )

    @classmethod
    def read(cls, clips: h5py.Group) -> ClipSources:
        """The sources in the group of a catalog's clips. Raises errors of any kind where it is damaged."""
        arrays = {name: stored_values(clips, name) for name in ("origin", "listed", "size", "mtime_ns")}
        if [values.dtype.kind for values in arrays.values()] != ["i", "b", "i", "i"]:
            raise ValueError("its clips' sources are no numbers")
        texts: Sequence[str] = stored_array(clips, "origins").asstr()[()]
        part = stored_array(clips, "part").asstr()[()] if "part" in clips else np.zeros(0, object)
        return cls([Origin.from_json(text) for text in texts], part=part, **arrays)


def united_sources(n: int, parts: Sequence[tuple[ClipSources, np.ndarray]]) -> ClipSources:
    """The sources of n clips from (sources, rows) parts, each clip in at least one of them.

    A clip's origin, and the state of its file, are those of the first part that knows them. A clip is listed where any
    part lists it, but a part that does not know the origin counts only for clips of which no other part knows it.
    """
    origins: list[Origin] = []
    for sources, _ in parts:
        origins += [o for o in sources.origins if not any(o.is_same(other) for other in origins)]
    origins.sort(key=lambda origin: not origin.is_known)
    united = ClipSources(origins, np.zeros(n, np.int32), np.zeros((n, len(origins)), bool))
    places = [np.array([_place(mine, origins) for mine in sources.origins], np.int64) for sources, _ in parts]
    united.origin[:] = len(origins)
    for (sources, rows), place in zip(parts, places):
        united.listed[np.ix_(rows, place)] |= sources.listed
        own = place[sources.origin]
        fresh = united.origin[rows] == len(origins)
        if not origins[-1].is_known:
            fresh |= (united.origin[rows] == len(origins) - 1) & (own < len(origins) - 1)
        united.origin[rows[fresh]] = own[fresh]
        unseen = united.size[rows] == UNSEEN
        united.size[rows[unseen]] = sources.size[unseen]
        united.mtime_ns[rows[unseen]] = sources.mtime_ns[unseen]
        united.part[rows[unseen]] = sources.part[unseen]
    return _without_needless_doubt(united)


def _place(origin: Origin, origins: Sequence[Origin]) -> int:
    return next(i for i, other in enumerate(origins) if other.is_same(origin))


def _without_needless_doubt(sources: ClipSources) -> ClipSources:
    """The same sources without the unknown origin, the last one, for clips whose origin is known."""
    last = len(sources.origins) - 1
    if not last or sources.origins[last].is_known:
        return sources
    unknown = sources.origin == last
    sources.listed[~unknown, last] = False
    if unknown.any():
        return sources
    return replace(sources, origins=sources.origins[:last], listed=sources.listed[:, :last])
