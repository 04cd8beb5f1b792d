"""Dataset ``3massiv`` reads 3MASSIV (Gupta et al., CVPR 2022) from its official files.

--data holds ``3massiv_{train,val,test}.csv``, optionally ``3massiv_concept_{train,val,test}.csv``, and the
videos, named by post id (``<id>.mp4`` or another container), all at any depth.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ...cache.catalog import Catalog
from ...errors import UsageError
from ...machine.texts import plain_text
from .base import DatasetOptions, Listing
from .common import finish
from .massiv_tables import LABEL_SETS, SPLITS, TOPIC, Tables, annotation_files, label_set, read_tables
from .walk import Walk, some, walk


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The posts that have a video, in the order of the official files, with all five label sets.

    clip id: the post id; clip_split: train, val or test; ``missing``: posts without a video. Classes come from
    the official files, whichever videos are present. Raises UsageError if the files or all videos are absent.
    """
    if data is None:
        raise UsageError("Dataset '3massiv' needs --data: the folder with 3massiv_train.csv and the videos.")
    found = walk(data, follow_links=options.follow_links, frame_rate=options.frame_rate)
    tables = read_tables(annotation_files([found.root / path for path in found.others]))
    video_of, repeated = _videos_by_post(found)
    posts = [post for post in tables.split if post in video_of]
    if not posts:
        raise UsageError(
            f"No video of the {len(tables.split)} posts is in {str(data)!r}; videos are named by post id, "
            f"such as {next(iter(tables.split), 1000)}.mp4, at any depth. {found.advice()}".rstrip()
        )
    catalog = Catalog(
        "3massiv",
        [str(post) for post in posts],
        {name: label_set(tables, name, posts) for name in LABEL_SETS},
        TOPIC,
        path=[plain_text(video_of[post]) for post in posts],
        clip_split=[tables.split[post] for post in posts],
        attrs={"title": "3MASSIV: multilingual, multimodal and multi-aspect short videos"},
    )
    sources = {str(post): found.source(video_of[post]) for post in posts}
    missing = [str(post) for post in tables.split if post not in video_of]
    warnings = [*tables.warnings, *found.warnings(), *_what_is_left(tables, video_of)]
    if repeated:
        warnings.append(
            f"{len(repeated)} videos are there more than once, the first counts: {some(repeated)}."
        )
    return finish(
        Listing(
            catalog=catalog,
            sources=sources,
            root=found.root,
            missing=missing,
            warnings=warnings,
            is_table=True,
        ),
        options,
    )


def _what_is_left(tables: Tables, video_of: Mapping[int, str]) -> list[str]:
    """A sentence about the published split where videos are gone: the posts of each part that are left."""
    listed = Counter(tables.split.values())
    left = Counter(split for post, split in tables.split.items() if post in video_of)
    if left == listed:
        return []
    gone = 1 - left.total() / listed.total()
    parts = ", ".join(f"{split} {left[split]:,} of {listed[split]:,}" for split in SPLITS if listed[split])
    return [f"{gone:.1%} of the posts have no video; of the published split are left: {parts}."]


def _videos_by_post(found: Walk) -> tuple[dict[int, str], list[str]]:
    """A mapping from post id to its video's relative path (the first by name), and the further videos of these ids."""
    video_of: dict[int, str] = {}
    repeated = []
    for path in found.videos:
        stem = os.path.splitext(path.rpartition("/")[2])[0]
        if not (stem.isascii() and stem.isdecimal()):
            continue
        if int(stem) in video_of:
            repeated.append(path)
        else:
            video_of[int(stem)] = path
    return video_of, repeated
