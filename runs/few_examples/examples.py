"""Examples are clips by their features, one row a clip, in the forms in which people have them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.schema import StreamName
from ...cache.table import Stream, Table, TensorTable
from ...errors import UsageError, unknown

ONLY = "clip"
"""The name of the modality of a plain array."""


@dataclass(frozen=True)
class Examples:
    """The features of n clips, a Stream [n, T, D] for each modality; clips may lack modalities.

    Rows are taken by an index, as those of an array, so that scikit-learn's splitters can divide examples.

    >>> clips = Examples.of({"frame": np.ones((3, 4)), "audio": np.full((3, 2, 5), np.nan)})
    >>> len(clips), clips.modalities, clips[[0, 2]].shape, clips.streams["audio"].present.tolist()
    (3, ['frame', 'audio'], (2,), [False, False, False])
    """

    streams: Mapping[str, Stream]
    """The features by modality, float32; absent clips have length 0 and x = 0."""

    @classmethod
    def of(cls, x: Any) -> Examples:
        """The examples of an array [n, D] or [n, T, D], or of a mapping from modality to such arrays.

        A clip whose numbers are all NaN lacks the modality; steps of NaN at a clip's end do not exist.
        Raises UsageError for other shapes, for unequal numbers of clips, and for other numbers that are not finite.
        """
        if isinstance(x, Examples):
            return x
        arrays = dict(x) if isinstance(x, Mapping) else {ONLY: x}
        if not arrays:
            raise UsageError("The examples have no modality; give an array of features for at least one.")
        streams = {str(name): _stream(str(name), values) for name, values in arrays.items()}
        sizes = {name: len(stream.present) for name, stream in streams.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise UsageError(f"Every modality needs one row for each clip; {told}.")
        return cls(streams)

    @classmethod
    def of_bank(cls, bank: FeatureBank) -> Examples:
        """The clips of a bank."""
        every = torch.arange(len(bank))
        return cls({name: table.gather(every) for name, table in bank.tables.items()})

    def __len__(self) -> int:
        return len(next(iter(self.streams.values())).present)

    def __getitem__(self, rows: Any) -> Examples:
        rows = rows[0] if isinstance(rows, tuple) else rows  # scikit-learn asks for x[rows, ...].
        every = np.arange(len(self))
        picked = every[rows] if isinstance(rows, slice) else every[_index(rows)]
        at = torch.from_numpy(np.atleast_1d(picked))
        return Examples({name: stream[at] for name, stream in self.streams.items()})

    @property
    def shape(self) -> tuple[int]:
        """The number of clips, as the shape of an array of clips."""
        return (len(self),)

    @property
    def modalities(self) -> list[str]:
        return list(self.streams)

    @property
    def present(self) -> Tensor:
        """Whether each clip has any modality, bool [n]."""
        return torch.stack([stream.present for stream in self.streams.values()]).any(0)

    def select(self, modalities: Sequence[str]) -> Examples:
        """The same clips with the given modalities only. Raises UsageError for one that they do not have."""
        for name in modalities:
            if name not in self.streams:
                raise unknown("modality", name, self.streams)
        return Examples({name: self.streams[name] for name in modalities})

    def joined(self, others: Examples) -> Examples:
        """These clips followed by others of the same modalities, whose sequences may have other lengths."""
        if set(self.streams) != set(others.streams):
            raise UsageError(
                f"The examples have {', '.join(self.streams)} and the new ones {', '.join(others.streams)}; "
                "both need the same modalities."
            )
        return Examples({name: _followed(mine, others.streams[name]) for name, mine in self.streams.items()})

    def fitted_to(self, steps: Mapping[str, int]) -> Examples:
        """The same clips with as many steps as ``steps`` says for each modality; longer ones are averaged down."""
        return Examples({name: with_steps(stream, steps[name]) for name, stream in self.streams.items()})

    def bank(
        self,
        label: Tensor,
        class_names: Sequence[str],
        words: Tensor | None = None,
    ) -> FeatureBank:
        """The bank of these clips with their labels int64 [n], and the vectors [N, E] of class words, if any."""
        tables: dict[str, Table] = {
            name: TensorTable(stream.x, stream.length, stream.present)
            for name, stream in self.streams.items()
        }
        return FeatureBank(
            dataset="examples",
            split="all",
            label_set="class",
            class_split="default",
            streams=dict.fromkeys(self.streams, StreamName(ONLY, "array")),
            tables=tables,
            label=label,
            class_names=list(class_names),
            class_id=torch.arange(len(class_names)),
            clip_row=np.arange(len(self)),
            words=words,
        )


def _index(rows: Any) -> np.ndarray:
    """Rows as an array that indexes another; an empty list is no row."""
    index = np.asarray(rows)
    return index if index.size else index.astype(np.int64)


def with_steps(stream: Stream, steps: int) -> Stream:
    """The clips [n, T, D] with ``steps`` steps: zeros are added, or longer clips averaged into equal parts of time."""
    n, held, width = stream.x.shape
    if held == steps:
        return stream
    if held < steps:
        return Stream(
            torch.cat([stream.x, stream.x.new_zeros(n, steps - held, width)], 1),
            stream.present,
            stream.length,
        )
    x = stream.x[:, :steps].clone()
    for row in torch.nonzero(stream.length > steps).flatten().tolist():
        parts = torch.linspace(0, int(stream.length[row]), steps + 1).round().long().tolist()
        x[row] = torch.stack([stream.x[row, a:b].mean(0) for a, b in itertools.pairwise(parts)])
    return Stream(x, stream.present, stream.length.clamp(max=steps))


def _stream(name: str, values: Any) -> Stream:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim not in (2, 3) or 0 in array.shape[1:]:
        raise UsageError(
            f"The features of modality {name!r} must be numbers of shape [clips, D] or [clips, steps, D]; they are "
            f"{array.dtype} of shape {list(array.shape)}."
        )
    x = torch.from_numpy(np.array(array, np.float32))
    x = x[:, None] if x.ndim == 2 else x
    gone = x.isnan().all(-1)
    length = (~gone * torch.arange(1, x.shape[1] + 1)).amax(1)
    x = x.masked_fill(gone[..., None], 0.0)
    inside = torch.arange(x.shape[1]) < length[:, None]
    if bool((gone & inside).any()) or not bool(x.isfinite().all()):
        raise UsageError(
            f"The features of modality {name!r} hold NaN or infinity; a clip without the modality is NaN as a whole."
        )
    return Stream(x, length > 0, length)


_SMALLEST, _LARGEST = 1e-11, 1e18  # Features whose largest number lies beyond are lost in float32's squares.


def refuse_scale(x: Any) -> None:
    """Raise UsageError for arrays of examples that float32, in which clips are compared, rounds to nothing.

    x: as ``Examples.of`` takes it. Single clips may be that small beside others.
    """
    if isinstance(x, Examples):
        return
    for name, values in (x if isinstance(x, Mapping) else {ONLY: x}).items():
        array = np.asarray(values, np.float64)
        known = np.abs(array[np.isfinite(array)])
        largest = float(known.max(initial=0.0))
        if largest and not _SMALLEST < largest < _LARGEST:
            raise UsageError(
                f"The largest number of modality {name!r} is {largest:.3g}, which is lost in float32; scale its "
                "features to be near 1."
            )


def _followed(first: Stream, second: Stream) -> Stream:
    if first.x.shape[2] != second.x.shape[2]:
        raise UsageError(
            f"The examples have features of width {first.x.shape[2]} and the new ones of width {second.x.shape[2]}; "
            "both need the same encoder."
        )
    steps = max(first.x.shape[1], second.x.shape[1])
    mine, theirs = with_steps(first, steps), with_steps(second, steps)
    return Stream(
        torch.cat([mine.x, theirs.x]),
        torch.cat([mine.present, theirs.present]),
        torch.cat([mine.length, theirs.length]),
    )
