"""Features that are published as one HDF5 file or pickle for each class of each stage, whose rows have names.

An HDF5 file has ``data`` [n, D] and ``video_urls`` [n]; a pickle is a dict of ``features`` (n arrays [D] or [T, D]) and
``video_names`` (n texts or bytes). The file's name is the class, and its folder the stage, such as ``stage_1_train``.
Clips are found by the names of their videos alone, never by their places, so that the files of two modalities need not
agree in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import h5py
import numpy as np

from ...errors import CacheError
from ...machine.files import refuse_special
from ...machine.texts import plain_text
from ..hdf5 import declared_bytes, own_dataset
from .columns import CLIP_BYTES, Column
from .per_clip import ClipColumn, unknown_array
from .pickles import load_plain, read_within_bounds

_ENDINGS = {".h5": "hdf5", ".hdf5": "hdf5", ".pkl": "pickle", ".pickle": "pickle"}
_SPLITS = (
    ("stage_1_train", "train"),
    ("stage_1_val", "val"),
    ("stage_2_test", "test"),
    ("stage_2_train", "train"),
)
"""The split of the clips of each kind of stage, in the order in which stages count."""
NAMES = ("features", "class", "stage", "split")


class ClassFiles:
    """The arrays of a folder of such files: the features, class, stage and split (train, val or test) of each clip.

    A video that several stages have is of the first. Raises CacheError for a folder without such files, and for a video
    in two classes.
    """

    def __init__(self, root: Path) -> None:
        self.title = root.name
        self.files = sorted(
            (path for path in root.rglob("*") if path.suffix.lower() in _ENDINGS),
            key=lambda path: _order(path, root),
        )
        if not self.files:
            raise CacheError(
                f"Source {str(root)!r} holds no .h5 or .pkl file; such a folder has one for each class of each stage."
            )
        for path in self.files:
            refuse_special(path, "source", error=CacheError)
        read_within_bounds([path for path in self.files if _ENDINGS[path.suffix.lower()] == "pickle"])
        self._last: tuple[int, list[np.ndarray] | np.ndarray] = (-1, [])
        self.place: dict[str, tuple[int, int]] = {}
        for number, path in enumerate(self.files):
            for row, name in enumerate(self._video_names(path)):
                held, _ = self.place.setdefault(name, (number, row))
                if self.files[held].stem.lower() != path.stem.lower():
                    raise CacheError(
                        f"Video {name!r} is in class {self.files[held].stem!r} and in class {path.stem!r} of "
                        f"{self.title!r}; a clip has one class there."
                    )

    def column(self, name: str) -> Column:
        """The array of that name. Raises UsageError for an unknown one."""
        if name not in NAMES:
            raise unknown_array(self.title, name, NAMES)
        return ClipColumn(name, {clip: clip for clip in self.place}, lambda clip: self._read(name, clip))

    def _read(self, name: str, clip: str) -> np.ndarray:
        number, row = self.place[clip]
        path = self.files[number]
        if name == "features":
            if self._last[0] != number:
                self._last = number, self._features(path)
            return np.asarray(self._last[1][row])
        stage = path.parent.name
        return np.array({"class": path.stem, "stage": stage, "split": _split(stage)}[name])

    def _video_names(self, path: Path) -> list[str]:
        if _ENDINGS[path.suffix.lower()] == "hdf5":
            with h5py.File(path, "r") as file:
                names: Sequence[object] = own_dataset(file, "video_urls")[()].tolist()
        else:
            names = self._pickle(path)["video_names"]
        return [plain_text(_text(name)) for name in names]

    def _features(self, path: Path) -> list[np.ndarray] | np.ndarray:
        if _ENDINGS[path.suffix.lower()] == "pickle":
            return [np.asarray(array) for array in self._pickle(path)["features"]]
        with h5py.File(path, "r") as file:
            data = own_dataset(file, "data")
            if declared_bytes(data) > CLIP_BYTES:
                raise CacheError(f"The features of {path.name!r} are too large for one class.")
            return np.asarray(data[()])

    def _pickle(self, path: Path) -> dict[str, Sequence[object]]:
        """The lists of a pickle that was read in bounds before. Raises CacheError for another form."""
        content = load_plain(path)
        held = content if isinstance(content, dict) else {}
        features, names = held.get("features"), held.get("video_names")
        if not (_is_list(features) and _is_list(names) and len(features) == len(names)):
            raise CacheError(
                f"{path.name!r} must hold a dict of 'features' and 'video_names', one of each a video."
            )
        return {"features": features, "video_names": names}


def _is_list(values: object) -> TypeGuard[Sequence[object]]:
    """Whether a value has one entry a video."""
    return isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim > 0)


def _order(path: Path, root: Path) -> tuple[int, str]:
    """The files of earlier stages come first, then those of other folders."""
    stage = path.parent.name
    starts = [start for start, _ in _SPLITS]
    place = next((i for i, start in enumerate(starts) if stage.startswith(start)), len(starts))
    return place, path.relative_to(root).as_posix()


def _split(stage: str) -> str:
    return next((split for start, split in _SPLITS if stage.startswith(start)), "")


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
