"""Features that are published as one folder a video, ``<split>/<class>/<video>/video_features.pth``.

The file is a tensor [n, D] of torch.save, or [D] where n is 1, with a row for the 16 frames from every start frame. It
is read with torch's own restricted reader (weights_only), on the CPU. A clip of the cache is a video with the name of
its folder.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from ...errors import CacheError
from ...machine.files import refuse_special
from ...machine.texts import plain_text
from .columns import CLIP_BYTES, Column
from .per_clip import ClipColumn, unknown_array

FILE = "video_features.pth"
NAMES = ("features", "class", "split")
_SPLITS = ("train", "val", "test")


class VideoFolders:
    """The arrays of a folder of such folders: the features, class and split (train, val or test) of each video.

    Raises CacheError for a folder without such files, and for two videos of one name.
    """

    def __init__(self, root: Path) -> None:
        self.title, self.place = root.name, dict[str, Path]()
        for path in _files(root):
            name = plain_text(path.parent.name)
            if name in self.place:
                raise CacheError(
                    f"Video {name!r} is in {str(self.place[name].parent.parent.name)!r} and in "
                    f"{path.parent.parent.name!r} of {self.title!r}; a clip has one class there."
                )
            self.place[name] = path
        if not self.place:
            raise CacheError(f"Source {str(root)!r} holds no <split>/<class>/<video>/{FILE}; check its path.")

    def column(self, name: str) -> Column:
        """The array of that name. Raises UsageError for an unknown one."""
        if name not in NAMES:
            raise unknown_array(self.title, name, NAMES)
        return ClipColumn(name, {clip: clip for clip in self.place}, lambda clip: self._read(name, clip))

    def _read(self, name: str, clip: str) -> np.ndarray:
        path = self.place[clip]
        split = path.parents[2].name
        if name == "features":
            return read_tensor(path)
        return np.array({"class": path.parents[1].name, "split": split if split in _SPLITS else ""}[name])


def _files(root: Path) -> list[Path]:
    """The files of features, in the order of split, class and video."""
    found = []
    for split in ("", *_SPLITS):
        place = root / split
        for class_folder in sorted(place.iterdir()) if place.is_dir() else ():
            if class_folder.is_dir() and not (split == "" and class_folder.name in _SPLITS):
                found += [
                    folder / FILE for folder in sorted(class_folder.iterdir()) if (folder / FILE).is_file()
                ]
    return found


def read_tensor(path: Path) -> np.ndarray:
    """The array of a file of torch.save that holds one tensor, read without running anything in it.

    Raises CacheError where it holds something else, or cannot be read.
    """
    import torch

    refuse_special(path, "source", error=CacheError)
    if os.stat(path).st_size > CLIP_BYTES:
        raise CacheError(f"{str(path)!r} is too large for one clip.")
    try:
        with warnings.catch_warnings():  # It warns of files that are then refused.
            warnings.simplefilter("ignore")
            tensor = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises anything for a damaged or crafted file.
        reason = " ".join(str(error).split())[:200]
        raise CacheError(f"{str(path)!r} cannot be read as a tensor of torch.save ({reason}).") from None
    if not isinstance(tensor, torch.Tensor) or tensor.is_complex() or tensor.layout != torch.strided:
        raise CacheError(f"{str(path)!r} must hold one tensor of numbers.")
    return np.ascontiguousarray(tensor.detach().float().numpy())
