"""The clips of a few-shot benchmark: videos in class folders, or numbered ones, with or without published lists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from ...cache.catalog import Catalog, LabelSet
from ...errors import UsageError
from ...machine.texts import composed, plain_text
from .base import DatasetOptions, Listing
from .class_facts import DEFAULT, LABEL_SET, PARTS, ClassFacts, class_facts, class_key
from .common import finish
from .video_lists import Listed, read_lists, stem_of
from .walk import Walk, counted, some, walk

_CODES = {"base": 1, "val": 2, "novel": 3}
_TIMES = re.compile(r"_\d{6}_\d{6}")
"""The part of a Kinetics video's name that says where it was cut out; some lists and downloads leave it out."""
_STAND_IN = re.compile(r"(?:train|val|test)\d+")
"""The name of a class that published lists number and nothing published names."""


@dataclass(frozen=True)
class Benchmark:
    """What tells one benchmark from another.

    name: the data set's. hints: parts of file names by which its lists are told from those of others. timed: whether
    videos may be named with or without the seconds at which they were cut out. cut: whether a video is a part of the
    one that its name says before the last ``_``, which is its group then. read: reads its lists. labels: the class of
    each numbered video of a walk, by the video's name without ending; None where folders are classes.
    """

    name: str
    hints: tuple[str, ...]
    timed: bool = False
    cut: bool = False
    read: Callable[[Path, Sequence[str]], list[Listed]] = read_lists
    labels: Mapping[str, str] | None = None


def benchmark_listing(benchmark: Benchmark, found: Walk, data: Path, options: DatasetOptions) -> Listing:
    """The clips of a benchmark below ``data``, by the lists of ``options.lists`` or all of its classes.

    A clip's id is ``class/video`` without the file's ending, or the video's number where videos are numbered. Classes
    and class splits are the published ones, whichever clips are there. Raises UsageError where no video is found.
    """
    facts = class_facts(benchmark.name)
    videos = _Videos(benchmark, facts, found)
    lines = None if options.lists is None else benchmark.read(options.lists, benchmark.hints)
    clips = _all_clips(videos) if lines is None else _listed_clips(videos, lines)
    if not clips.path:
        raise UsageError(" ".join(filter(None, (_why_none(benchmark, data, clips), found.advice()))))
    ids = list(clips.path)
    labels = facts.label_set([clips.label[clip] for clip in ids], clips.class_names(facts))
    if lines is not None:
        _split_by_lists(labels, clips, options.lists)
    catalog = Catalog(
        dataset=benchmark.name,
        clip_id=[plain_text(clip) for clip in ids],
        label_sets={LABEL_SET: labels},
        default_label_set=LABEL_SET,
        path=[plain_text(clips.path[clip]) for clip in ids],
        clip_split=[clips.clip_split.get(clip, "") for clip in ids],
        group=[name_of(clips.path[clip]).rpartition("_")[0] for clip in ids] if benchmark.cut else [],
    )
    sources = {plain_text(clip): found.source(clips.path[clip]) for clip in ids}
    listing = Listing(
        catalog=catalog,
        sources=sources,
        root=found.root,
        missing=[plain_text(clip) for clip in clips.missing],
        warnings=[*found.warnings(), *clips.warnings(), *videos.warnings()],
        is_table=lines is not None,
    )
    return finish(listing, options)


def in_class_folders(benchmark: Benchmark, data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of a benchmark whose videos lie in one folder a class, at any depth. Raises UsageError for none."""
    if data is None:
        raise UsageError(
            f"Dataset {benchmark.name!r} needs --data: the folder that holds one folder a class."
        )
    return benchmark_listing(
        benchmark, walk(data, follow_links=options.follow_links, frame_rate=options.frame_rate), data, options
    )


class _Videos:
    """The videos of a walk, by name and class. class_of: the class that labels or a folder give a path, else ""."""

    def __init__(self, benchmark: Benchmark, facts: ClassFacts, found: Walk) -> None:
        self.benchmark, self.facts, self.paths = benchmark, facts, found.videos
        self.by_key = facts.by_key()
        self.class_of = {path: self._class_of(path) for path in found.videos}
        self.by_name: dict[str, list[str]] = defaultdict(list)
        self.by_source: dict[str, list[str]] = defaultdict(list)
        self.repeated: list[str] = []
        for path in found.videos:
            name = name_of(path)
            self.by_name[name].append(path)
            if benchmark.timed:
                self.by_source[_TIMES.sub("", name)].append(path)

    def _class_of(self, path: str) -> str:
        """The class of a video: by its label, else by the nearest folder above it that is called like a class."""
        labels = self.benchmark.labels
        if labels is not None:
            return labels.get(name_of(path), "")
        folders = reversed(PurePosixPath(path).parts[:-1])
        return next((name for folder in folders if (name := self.by_key.get(class_key(folder)))), "")

    def find(self, video: str, class_name: str) -> str | None:
        """The path of a listed video; None where it is not there.

        A video in the folder of another class is another one. A name without times is that of any excerpt.
        """
        if self.benchmark.labels is not None:  # A number names one video, whatever a file says of its class.
            return next(iter(self.by_name.get(video, ())), None)
        found = self._fitting(self.by_name.get(video, ()), class_name)
        if not found and self.benchmark.timed:
            source = _TIMES.sub("", video)
            same = self.by_source.get(source, ())
            found = self._fitting([p for p in same if source in (video, name_of(p))], class_name)
        self.repeated += found[1:]
        return found[0] if found else None

    def _fitting(self, paths: Sequence[str], class_name: str) -> list[str]:
        same = [path for path in paths if self.class_of[path] == class_name]
        return same or [path for path in paths if not self.class_of[path]]

    def warnings(self) -> list[str]:
        if not self.repeated:
            return []
        return [
            f"{counted('video', self.repeated)} there more than once, the first counts: {some(self.repeated)}."
        ]


@dataclass
class _Clips:
    """The clips of a benchmark by id, and what is amiss with them."""

    path: dict[str, str] = field(default_factory=dict)
    label: dict[str, str] = field(default_factory=dict)
    part: dict[str, str] = field(default_factory=dict)
    """The part that the lists give each class."""
    clip_split: dict[str, str] = field(default_factory=dict)
    """The published split of each clip, where the lists have one."""
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    def class_names(self, facts: ClassFacts) -> list[str]:
        """The published classes, and those that only the lists have."""
        published = [name for name in facts.class_names() if not _STAND_IN.fullmatch(name)]
        return sorted({*published, *self.part, *self.label.values()})

    def warnings(self) -> list[str]:
        told = []
        if self.unlisted:
            told.append(
                f"{counted('video', self.unlisted)} there in no list, left out: {some(self.unlisted)}."
            )
        if self.strange:
            told.append(
                f"Of the classes of the lists, {len(self.strange)} are not in the published split: "
                f"{some(self.strange)}."
            )
        return told


def _all_clips(videos: _Videos) -> _Clips:
    """The videos of all classes of the benchmark; those of other classes are left out."""
    clips = _Clips()
    for path in videos.paths:
        if not (label := videos.class_of[path]):
            clips.unlisted.append(path)
            continue
        clip = _clip_id(videos, label, name_of(path))
        if clip in clips.path:
            videos.repeated.append(path)
            continue
        clips.path[clip], clips.label[clip] = path, label
    return clips


def _listed_clips(videos: _Videos, lines: Sequence[Listed]) -> _Clips:
    """The videos that the lists name, in their order."""
    clips, names = _Clips(), _class_names(videos, lines)
    used: set[str] = set()
    of_class: dict[str, list[str]] = defaultdict(list)
    for path, label in videos.class_of.items():
        of_class[label].append(path)
    for line in lines:
        label = names[line.part, line.class_name, line.number]
        if line.part:
            clips.part.setdefault(label, line.part)
        wanted = [line.video] if line.video else [name_of(path) for path in of_class[label]]
        for video in wanted:
            found = videos.find(video, label)
            clip = _clip_id(videos, label, video if found is None else name_of(found))
            if found is None:
                clips.missing.append(clip)
            elif found not in used:
                used.add(found)
                clips.path[clip], clips.label[clip], clips.clip_split[clip] = found, label, line.clip_split
    clips.unlisted = [path for path in videos.paths if path not in used]
    clips.strange = sorted(set(names.values()) - set(videos.facts.class_names()))
    return clips


def _class_names(videos: _Videos, lines: Sequence[Listed]) -> dict[tuple[str, str, int], str]:
    """The class that each spelling and number of the lists stands for.

    The labels of the videos name the classes that are only numbered; else the published order does.
    """
    votes: dict[tuple[str, str, int], list[str]] = {}
    for line in lines:
        told = (videos.benchmark.labels or {}).get(line.video, "")
        votes.setdefault((line.part, line.class_name, line.number), []).append(told)
    return {key: _class_name(videos.facts, videos.by_key, key, told) for key, told in votes.items()}


def _class_name(
    facts: ClassFacts, by_key: Mapping[str, str], key: tuple[str, str, int], told: Sequence[str]
) -> str:
    part, spelt, number = key
    if spelt:
        return by_key.get(class_key(spelt), spelt)
    if labels := [label for label in told if label]:
        return max(sorted(set(labels)), key=labels.count)
    word = {"base": "train", "novel": "test"}.get(part, part)
    return facts.numbered(part, number) or f"{word}{number}"


def _clip_id(videos: _Videos, label: str, name: str) -> str:
    return name if videos.benchmark.labels is not None else f"{label}/{name}"


def name_of(path: str) -> str:
    """The name of a video's file without its ending, in Unicode's composed spelling."""
    return composed(stem_of(PurePosixPath(path).name))


def _split_by_lists(labels: LabelSet, clips: _Clips, lists: Path | None) -> None:
    """Let the lists decide the parts that they list: their classes are those of the list, and no others."""
    codes = labels.splits[DEFAULT].copy()
    for part in PARTS:
        if part in clips.part.values():
            codes[codes == _CODES[part]] = 0
    for row, name in enumerate(labels.class_names):
        if name in clips.part:
            codes[row] = _CODES[clips.part[name]]
    if not np.array_equal(codes, labels.splits[DEFAULT]):
        labels.splits[DEFAULT] = codes
        labels.split_origin[DEFAULT] = f"the lists {lists.name if lists is not None else ''}"


def _why_none(benchmark: Benchmark, data: Path, clips: _Clips) -> str:
    if clips.missing:
        return (
            f"None of the {len(clips.missing):,} listed videos of {benchmark.name!r} is below {str(data)!r}; the first "
            f"is {clips.missing[0]!r}, whose file is found by its name at any depth."
        )
    some_class = next(iter(class_facts(benchmark.name).class_names()))
    where = (
        "labelled by the JSON files beside them"
        if benchmark.labels is not None
        else "in folders of their classes"
    )
    return (
        f"No video of {benchmark.name!r} is below {str(data)!r}; videos are expected {where}, such as that of "
        f"{some_class!r}."
    )
