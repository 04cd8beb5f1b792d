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
from .schema import Provenance, StreamName, shard_paths
from .shard import clip_check, damaged_clips, feature_map, read_shard


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
    ) -> None:
        self.maps, self.shard, self.start, self.source_length = list(maps), shard, start, source_length
        length = np.minimum(source_length, max_steps)
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
                out[i, : min(n, self.steps)] = shorten(
                    self.maps[self.shard[row]][start : start + n], self.steps
                )
        return out


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
) -> Table:
    """The table of the n clips ``keys``, in that order; it is memory-mapped where it would exceed ``memory`` bytes.

    Clips that the stream does not hold are absent. Features that are read into memory are compared with their
    checksums; features that stay on disk are not (``fsmm cache verify`` compares them). Raises UsageError for
    max_steps below 1, CacheError for a stream that is damaged or mixes provenance.
    """
    if max_steps < 1:
        raise UsageError(f"max_steps is {max_steps}; it must be at least 1.")
    row_of = {key: row for row, key in enumerate(keys)}
    n = len(keys)
    shard_of, start, length = np.full(n, -1, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    check = np.zeros(n, np.uint64)
    paths = shard_paths(folder, stream)
    dim = 0
    first: Provenance | None = None
    for number, path in enumerate(paths):
        shard = read_shard(path, features=False, facts=False)
        first = first or shard.provenance
        if differ := first.differences(shard.provenance):
            raise CacheError(
                f"Stream {stream} mixes features of different origin ({path.name}: {'; '.join(differ)}); "
                "run `fsmm cache verify --repair`."
            )
        dim = shard.features.shape[1]
        row_or_none = np.array([row_of.get(key, -1) for key in shard.key], np.int64)
        wanted = (row_or_none >= 0) & shard.present
        rows = row_or_none[wanted]
        shard_of[rows], start[rows] = number, shard.offset[:-1][wanted]
        length[rows] = np.diff(shard.offset)[wanted]
        check[rows] = shard.check[wanted]
    maps = [feature_map(path) for path in paths]
    mapped = MappedTable(
        maps=maps,
        shard=shard_of,
        start=start,
        source_length=length,
        max_steps=max_steps,
        device=device,
        dtype=dtype,
    )
    size = n * mapped.steps * dim * torch.empty((), dtype=dtype).element_size()
    if size > memory:
        return mapped
    _refuse_damage(mapped, paths, keys, check)
    return TensorTable(
        _read_all(mapped=mapped, shard_of=shard_of, start=start, length=length, device=device, dtype=dtype),
        mapped.length,
        mapped.present,
    )


def _refuse_damage(
    mapped: MappedTable, paths: Sequence[Path], keys: Sequence[str], check: np.ndarray
) -> None:
    """Raise CacheError where the features of a clip are not the bytes that were written."""

    def is_right(row: int) -> bool:
        start = int(mapped.start[row])
        part = mapped.maps[mapped.shard[row]][start : start + int(mapped.source_length[row])]
        return clip_check(keys[row], True, part) == int(check[row])

    bad = [row for row in np.flatnonzero(mapped.source_length).tolist() if not is_right(row)]
    if bad:
        raise damaged_clips(paths[mapped.shard[bad[0]]], [keys[row] for row in bad])


def _read_all(
    mapped: MappedTable,
    shard_of: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Tensor:
    """The features x [n, T, D], read shard by shard; the clips of T steps of a shard are copied at once."""
    steps = mapped.steps
    x = torch.zeros((len(mapped), steps, mapped.dim), dtype=dtype)
    for number, features in enumerate(mapped.maps):
        rows = np.flatnonzero(shard_of == number)
        full = rows[length[rows] == steps]
        if len(full):
            index = start[full][:, None] + np.arange(steps)
            x[torch.from_numpy(full)] = torch.from_numpy(np.asarray(features)[index]).to(dtype)
        for row in rows[length[rows] != steps]:
            part = shorten(features[start[row] : start[row] + length[row]], steps)
            x[row, : len(part)] = torch.from_numpy(np.array(part)).to(dtype)
    return x.to(device)
