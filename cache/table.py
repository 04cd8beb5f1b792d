"""Tables hold the features of n clips through one encoder, in memory or memory-mapped, gathered by one index."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CacheError, UsageError
from .alignment import Resampling
from .blocks import FeatureMaps
from .index import StreamIndex, stream_index
from .schema import StreamName
from .shard import clip_check, damaged_clips


@dataclass
class Stream:
    """The features of clips in any arrangement [...], such as [n] or [B, N, K].

    Steps from ``length`` on are zero; an absent clip has length 0 and x = 0, and must not be read as data.

    >>> x = torch.tensor([[[2.0], [4.0], [0.0]], [[0.0], [0.0], [0.0]]])
    >>> clips = Stream(x, torch.tensor([True, False]), torch.tensor([2, 0]))
    >>> clips.pooled().tolist()
    [[3.0], [0.0]]
    >>> clips.mask().tolist()
    [[True, True, False], [False, False, False]]
    """

    x: Tensor
    """The features, [..., T, D]."""
    present: Tensor
    """Whether each clip is present, bool [...]."""
    length: Tensor
    """The number of valid steps of each clip, int64 [...]."""

    def pooled(self) -> Tensor:
        """The mean [..., D] over the valid steps; zeros where a clip is absent."""
        if self.x.shape[-2] == 1:
            return self.x.squeeze(-2)
        count = self.length.clamp(min=1).to(self.x.dtype)
        return self.x.sum(-2) / count[..., None]

    def mask(self) -> Tensor:
        """The mask of the valid steps, bool [..., T]."""
        steps = torch.arange(self.x.shape[-2], device=self.x.device)
        return steps < self.length[..., None]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Stream:
        return Stream(
            self.x.to(device, dtype or self.x.dtype), self.present.to(device), self.length.to(device)
        )

    def __getitem__(self, index: Any) -> Stream:
        return Stream(self.x[index], self.present[index], self.length[index])


class Table(ABC):
    """The features of n clips through one encoder."""

    length: Tensor
    """The number of valid steps of each clip, int64 [n]."""
    present: Tensor
    """Whether each clip is present, bool [n]."""
    all_present: bool
    """Whether every clip is present."""
    steps: int
    """The number of steps T."""
    dim: int
    """The width D."""

    def __len__(self) -> int:
        return len(self.length)

    @abstractmethod
    def gather(self, rows: Tensor) -> Stream:
        """The clips at ``rows`` [...] as a Stream [..., T, D], gathered by one index operation."""

    @abstractmethod
    def pooled(self) -> TensorTable:
        """The same clips averaged over their valid steps (T = 1), in memory; the average is computed once."""

    @abstractmethod
    def normalised(self, unit: bool, centre: Tensor | None = None) -> Table:
        """The same clips with ``centre`` [D] subtracted and, with ``unit``, every step scaled to length one."""

    def mean(self) -> Tensor:
        """The mean [D] of the pooled features over the clips that are present."""
        pooled = self.pooled()
        return pooled.x[pooled.present, 0].float().mean(0)


def normalise(x: Tensor, length: Tensor, unit: bool, centre: Tensor | None) -> Tensor:
    """The features x [..., T, D], centred and scaled step by step; steps beyond ``length`` [...] stay zero."""
    if centre is not None:
        valid = torch.arange(x.shape[-2], device=x.device) < length[..., None]
        x = (x - centre.to(x)) * valid[..., None].to(x.dtype)
    return torch.nn.functional.normalize(x, dim=-1) if unit else x


class TensorTable(Table):
    """A table held as one tensor x [n, T, D] on a device."""

    def __init__(self, x: Tensor, length: Tensor, present: Tensor) -> None:
        self.x, self.length, self.present = x, length, present
        self.steps, self.dim = x.shape[1], x.shape[2]
        self.all_present = bool(present.all())
        self._pooled: TensorTable | None = None

    def gather(self, rows: Tensor) -> Stream:
        return Stream(self.x[rows], self.present[rows], self.length[rows])

    def pooled(self) -> TensorTable:
        if self.steps == 1:
            return self
        if self._pooled is None:
            mean = Stream(self.x, self.present, self.length).pooled()[:, None]
            self._pooled = TensorTable(mean, self.present.to(self.length.dtype), self.present)
        return self._pooled

    def normalised(self, unit: bool, centre: Tensor | None = None) -> TensorTable:
        return TensorTable(normalise(self.x, self.length, unit, centre), self.length, self.present)


class MappedTable(Table):
    """A table that stays on disk: rows are read from the shards' memory maps when they are gathered.

    maps: one array [sum of T, D] for each shard.
    shard, start: int64 [n], the shard of each clip and the row at which the clip begins in it.
    source_length: int64 [n], the number of steps on disk; a clip with more than ``max_steps`` is averaged down.
    resampling: how the steps on disk become others before that, if they do.
    """

    def __init__(
        self,
        maps: Sequence[np.ndarray],
        shard: np.ndarray,
        start: np.ndarray,
        source_length: np.ndarray,
        max_steps: int,
        device: torch.device | str,
        dtype: torch.dtype,
        resampling: Resampling | None = None,
    ) -> None:
        self.maps, self.shard, self.start, self.source_length = maps, shard, start, source_length
        self.resampling = resampling
        length = np.minimum(source_length if resampling is None else resampling.length, max_steps)
        self.length = torch.from_numpy(length).to(device)
        self.present = self.length > 0
        self.all_present = bool(self.present.all())
        self.steps = int(max(length.max(initial=0), 1))
        self.dim = int(maps[0].shape[1])
        self.device, self.dtype = torch.device(device), dtype
        self._unit = False
        self._centre: Tensor | None = None
        self._pooled: TensorTable | None = None

    def gather(self, rows: Tensor) -> Stream:
        flat = rows.reshape(-1).cpu().numpy()
        x = torch.from_numpy(self._read(flat)).to(self.device, self.dtype)
        shape = rows.shape
        rows = rows.to(self.length.device)
        x = x.reshape(*shape, self.steps, self.dim)
        if self._unit or self._centre is not None:
            x = normalise(x, self.length[rows], self._unit, self._centre)
        return Stream(x, self.present[rows], self.length[rows])

    def normalised(self, unit: bool, centre: Tensor | None = None) -> MappedTable:
        other = copy.copy(self)
        other._unit, other._centre, other._pooled = unit, centre, None
        return other

    def pooled(self) -> TensorTable:
        if self._pooled is None:
            blocks = torch.arange(len(self)).split(256)
            total = torch.cat([self.gather(block).x.sum(-2) for block in blocks])
            mean = (total / self.length.clamp(min=1)[:, None]).to(self.dtype)
            self._pooled = TensorTable(mean[:, None], self.present.to(self.length.dtype), self.present)
        return self._pooled

    def _read(self, rows: np.ndarray) -> np.ndarray:
        out = np.zeros((len(rows), self.steps, self.dim), np.float32)
        for i, row in enumerate(rows):
            if n := int(self.source_length[row]):
                start = int(self.start[row])
                x = self.shortened(row, self.maps[self.shard[row]][start : start + n])
                out[i, : len(x)] = x
        return out

    def shortened(self, row: int, x: np.ndarray) -> np.ndarray:
        """The stored features x [T, D] of the clip at ``row``, resampled and averaged down as the table has them."""
        return shorten(x if self.resampling is None else self.resampling.applied(row, x), self.steps)


def shorten(x: np.ndarray, steps: int) -> np.ndarray:
    """The sequence x [T, D], averaged into ``steps`` equal parts of time where T is larger."""
    if len(x) <= steps:
        return x
    edges = np.linspace(0, len(x), steps + 1).round().astype(int)
    return np.add.reduceat(x.astype(np.float32), edges[:-1], axis=0) / np.diff(edges)[:, None]


def load_table(
    folder: Path,
    stream: StreamName,
    keys: Sequence[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    max_steps: int = 64,
    memory: int = 4 << 30,
    index: StreamIndex | None = None,
    resampling: Resampling | None = None,
) -> Table:
    """The table of the n clips ``keys``, in that order; it is memory-mapped where it would exceed ``memory`` bytes.

    index: the stream's index where it has been read already. resampling: the new steps of the clips (alignment.py).

    Clips that the stream does not hold are absent. Features that are read into memory are compared with their
    checksums; features that stay on disk are not (``fsmm cache verify`` compares them). Raises UsageError for
    max_steps below 1, CacheError for a stream that is damaged or mixes provenance.
    """
    if max_steps < 1:
        raise UsageError(f"max_steps is {max_steps}; it must be at least 1.")
    index = index or stream_index(folder, stream)
    if mixture := index.mixture():
        path, differ = mixture
        raise CacheError(
            f"Stream {stream} mixes features of different origin ({path.name}: {'; '.join(differ)}); "
            "run `fsmm cache verify --repair`."
        )
    place = _Places.of(index, keys)
    dim = index.blocks[-1].dim
    mapped = MappedTable(
        maps=FeatureMaps(index.blocks),
        shard=place.shard,
        start=place.start,
        source_length=place.length,
        max_steps=max_steps,
        device=device,
        dtype=dtype,
        resampling=resampling,
    )
    size = len(keys) * mapped.steps * dim * torch.empty((), dtype=dtype).element_size()
    if size > memory:
        return mapped
    x = _read_all(mapped, keys, place.check, index.paths).to(device)
    return TensorTable(x, mapped.length, mapped.present)


@dataclass(frozen=True)
class _Places:
    """Where the features of n clips lie: the shard (-1 where a clip is absent), the first row, steps, checksum [n]."""

    shard: np.ndarray
    start: np.ndarray
    length: np.ndarray
    check: np.ndarray

    @classmethod
    def of(cls, index: StreamIndex, keys: Sequence[str]) -> _Places:
        """The places of the clips ``keys``; of a key that the stream holds twice, the last row with features counts."""
        n = len(keys)
        row = index.positions(keys)
        wanted = np.flatnonzero((row >= 0) & index.present)
        row = row[wanted]
        shard, start, length = np.full(n, -1, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
        check = np.zeros(n, np.uint64)
        for ours, theirs in (
            (shard, index.shard),
            (start, index.start),
            (length, index.length),
            (check, index.check),
        ):
            ours[row] = theirs[wanted]
        return cls(shard, start, length, check)


def _read_all(mapped: MappedTable, keys: Sequence[str], check: np.ndarray, paths: Sequence[Path]) -> Tensor:
    """The features x [n, T, D] of the clips ``keys``, read shard by shard and compared with their checksums [n].

    Raises CacheError where the features of clips are not the bytes that were written.
    """
    x = torch.zeros((len(mapped), mapped.steps, mapped.dim), dtype=mapped.dtype)
    order = np.argsort(mapped.shard, kind="stable")
    ends = np.searchsorted(mapped.shard[order], np.arange(len(mapped.maps) + 1))
    damaged: list[int] = []
    for number in np.flatnonzero(np.diff(ends)).tolist():
        rows, features = order[ends[number] : ends[number + 1]], mapped.maps[number]
        start, length = mapped.start[rows], mapped.source_length[rows]
        places = (values.tolist() for values in (rows, start, length, check[rows]))
        damaged += [
            row
            for row, first, count, right in zip(*places)
            if clip_check(keys[row], True, features[first : first + count]) != right
        ]
        _copy(x, mapped, features, rows, start, length)
    if damaged:
        damaged.sort()
        raise damaged_clips(paths[mapped.shard[damaged[0]]], [keys[row] for row in damaged])
    return x


def _copy(
    x: Tensor,
    mapped: MappedTable,
    features: np.ndarray,
    rows: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
) -> None:
    """Copy the clips that begin at ``start`` in the features of one shard to ``rows`` of x [n, T, D].

    Clips of T steps or fewer are copied at once, unless their steps are resampled.
    """
    steps = x.shape[1]
    whole = (length <= steps) & (mapped.resampling is None)
    source, target = (_steps(first[whole], length[whole]) for first in (start, rows * steps))
    if len(source):
        x.view(-1, x.shape[2])[torch.from_numpy(target)] = torch.from_numpy(features[source]).to(x.dtype)
    for row, first, count in zip(rows[~whole], start[~whole], length[~whole]):
        part = torch.from_numpy(mapped.shortened(int(row), features[first : first + count]))
        x[row, : len(part)] = part.to(x.dtype)


def _steps(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The numbers first[i], first[i] + 1, ... first[i] + length[i] - 1 of every i, one after another."""
    before = np.cumsum(length) - length
    return np.repeat(first - before, length) + np.arange(int(length.sum()))
