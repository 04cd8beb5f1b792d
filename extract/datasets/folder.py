"""Dataset ``folder`` has one subfolder a class, with clips anywhere below it.

A clip is a video, or a still image with sound of the same stem (``x.jpg`` and ``x.wav``), or sound alone. A
video with a sound file of the same stem takes its sound from that file. With a frame rate, a folder of numbered images
is a video as well (frame_folders.py), whose sound may lie beside it (``x/0001.jpg`` and ``x.wav``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...cache.catalog import UNLABELLED, Catalog, LabelSet
from ...errors import UsageError
from ...machine.texts import class_warnings, composed, is_unlabelled, plain_text
from .base import DatasetOptions, Listing, Source
from .common import dataset_name, finish
from .walk import Walk, counted, some, walk

LABEL_SET = "class"


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """All clips of a folder: a clip's id is its relative path, its class the first part of that path.

    Files directly in the folder, images without sound and files of unknown kinds are left aside with a
    warning. Raises UsageError if ``data`` is not a folder or holds no clip.
    """
    if data is None:
        raise UsageError("Dataset 'folder' needs --data: a folder with one subfolder a class.")
    found = walk(data, follow_links=options.follow_links, frame_rate=options.frame_rate)
    sources, lone = clips_below(found)
    classless = [path for path in sources if "/" not in path]
    sources = {path: source for path, source in sources.items() if "/" in path}
    if not sources:
        raise UsageError(_why_none(data, found))
    ids = [plain_text(path) for path in sources]
    labels, nameless = _labels(ids)
    catalog = Catalog(dataset_name(data), ids, {LABEL_SET: labels}, LABEL_SET, path=list(ids))
    warnings = [*found.warnings(), *_left_aside(classless, lone, found.others)]
    if lone and (sentence := found.advice()):
        warnings.append(sentence)
    if nameless:
        warnings.append(
            f"{counted('clip', nameless)} of folders such as {nameless[0]!r} are without a label."
        )
    warnings += class_warnings(LABEL_SET, labels.class_names)
    return finish(Listing(catalog, dict(zip(ids, sources.values())), found.root, warnings=warnings), options)


def _why_none(data: Path, found: Walk) -> str:
    """The sentence of the error where a folder holds no clip."""
    if found.outside or found.dangling or found.linked_folders:
        return f"No clip was found in {str(data)!r}: {' '.join(found.warnings())}"
    return (
        f"No clip was found in {str(data)!r}; put each class's videos into a subfolder of its own, such as "
        f"<data>/dancing/1.mp4. {found.advice()}"
    ).rstrip()


def _labels(ids: Sequence[str]) -> tuple[LabelSet, list[str]]:
    """The labels of clips by the first part of their ids, and for each clip without a label the name of its folder.

    Folders whose names Unicode spells in two ways are one class; a folder named nan, None or the like is no class.
    """
    folders = [composed(clip.partition("/")[0]) for clip in ids]
    names = sorted({folder for folder in folders if not is_unlabelled(folder)})
    index = {name: i for i, name in enumerate(names)}
    label = np.array([index.get(folder, UNLABELLED) for folder in folders])
    return LabelSet(names, label), [folder for folder in folders if folder not in index]


def clips_below(found: Walk) -> tuple[dict[str, Source], list[str]]:
    """A sorted mapping from relative path to files, and the images that have no sound and belong to no video."""
    sound_of = {_stem(path): found.root / path for path in found.sounds}
    stem_of = {path: path if path in found.frames else _stem(path) for path in found.videos}
    video_stems = set(stem_of.values())
    clips = {path: found.source(path, audio=sound_of.get(stem)) for path, stem in stem_of.items()}
    lone = []
    image_stems = set()
    for path in found.images:
        stem = _stem(path)
        if stem in video_stems:
            continue  # The image is the video's thumbnail.
        if stem in sound_of and stem not in image_stems:
            clips[path] = Source(images=(found.root / path,), audio=sound_of[stem])
            image_stems.add(stem)
        else:
            lone.append(path)
    clips.update(
        (path, Source(audio=found.root / path))
        for path in found.sounds
        if _stem(path) not in video_stems | image_stems
    )
    return dict(sorted(clips.items())), lone


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _left_aside(classless: list[str], lone: list[str], others: list[str]) -> list[str]:
    kinds = (
        ("file", classless, "of no class (not in a subfolder) left aside"),
        ("image", lone, "without a sound file of the same name left aside"),
        ("file", others, "of an unknown kind left aside"),
    )
    return [f"{counted(kind, names)} {what}: {some(names)}." for kind, names, what in kinds if names]
