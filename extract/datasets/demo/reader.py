"""Dataset ``demo`` has short synthetic videos with sound, made on the spot, whose classes need every modality.

design.py defines the classes; docs/demo.md reports the measurements on them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ....cache.origin import Origin
from ....machine.progress import reporter
from ..base import DatasetOptions, Listing, Source
from ..common import finish
from .design import VERSION
from .labels import catalog_of
from .make import make_clips
from .plan import Clip, plan_clips


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """The demo's clips; the clips that the options leave in are made first if they do not exist yet.

    data: folder for the clips, by default ``fsmm-demo-clips`` in the user's cache directory. Each form, seed and
    version of the demo has a folder of its own in it. The class splits are the design's, unless ``split_file``,
    ``split_sizes`` or a ``split_seed`` other than 0 requests others for the default label set.
    Raises UsageError for options that cannot be met, FsmmError if the clips cannot be written.
    """
    form = "small" if options.small else "full"
    root = (data or default_folder()) / f"{form}-seed{options.seed}-v{VERSION}"
    clips = plan_clips(options.small, options.seed)
    catalog = catalog_of(clips, options.small, options.seed)
    sources = {clip.clip_id: Source(video=root / clip.path) for clip in clips}
    about = {"form": form, "seed": str(options.seed), "version": str(VERSION)}
    made = Listing(catalog, sources, root, origin=Origin("demo", folder=str(root), options=about))
    done = _finish(made, options)
    wanted = done.catalog.rows()
    _make([clip for clip in clips if clip.clip_id in wanted], root)
    return done


def default_folder() -> Path:
    """The default folder of the clips: ``fsmm-demo-clips`` in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fsmm-demo-clips"


def _finish(made: Listing, options: DatasetOptions) -> Listing:
    """Apply the options that all datasets share, with the design's class splits unless others are requested."""
    designed = {name: labels.splits["default"].copy() for name, labels in made.catalog.label_sets.items()}
    chosen = options.label_set or made.catalog.default_label_set
    drawn = options.split_seed != 0 or options.split_sizes is not None
    if drawn and options.split_sizes is None and chosen in designed:
        base, val, novel = np.bincount(designed[chosen], minlength=4)[1:].tolist()
        options = replace(options, split_sizes=(base, val, novel))
    # The small form is already a smaller design, whose clips without a label must stay.
    done = finish(made, replace(options, small=False))
    for name, labels in done.catalog.label_sets.items():
        if name != chosen or not (drawn or options.split_file):
            labels.splits["default"], labels.split_origin["default"] = designed[name], "the demo's design"
    return done


def _make(clips: Sequence[Clip], root: Path) -> None:
    """Make the clips that do not exist yet, with their progress on standard error."""
    ready = 0
    with reporter("making demo clips") as shown:

        def advance(more: int) -> None:
            nonlocal ready
            ready += more
            shown(ready, len(clips))

        make_clips(clips, root, progress=advance)
