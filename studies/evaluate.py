"""Evaluate a head on many episodes: chunks sized to the cache, one accuracy an episode, everything that was drawn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..episodes.draw import AnySampler
from ..episodes.protocol import Protocol, bounds
from ..episodes.sampler import EpisodeIndex, Sampler
from ..heads.base import Head
from . import statistics
from .statistics import DrawCounts

R = TypeVar("R")
# Episodes are drawn in blocks of this many and scored in chunks whose features fit the processor's cache.
_BLOCK = 512
_CPU_BUDGET = 8 << 20
_CUDA_BUDGET = 1 << 30


@dataclass
class Evaluation:
    """What an evaluation found.

    accuracy: float32 [E], each episode's share of queries classified rightly, in the order of episode numbers.
    confusion: int64 [C, C], true by predicted class, over all queries.
    balanced: every episode draws as many clips of as many classes; the intervals over clips and classes were derived
        and verified for such episodes alone, and are not given for others.
    """

    accuracy: np.ndarray
    confusion: np.ndarray
    class_names: list[str]
    counts: DrawCounts
    ways: float
    seconds: float
    chunk: int
    excluded: list[str] = field(default_factory=list)
    balanced: bool = True

    @property
    def mean(self) -> float:
        return float(self.accuracy.mean(dtype=np.float64))

    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored; fractions in 0..1, intervals as half widths at 95 %."""
        values = self.accuracy.astype(np.float64)
        seen = self.confusion.sum(1)
        right = np.diag(self.confusion) / np.maximum(seen, 1)
        return {
            "accuracy": self.mean,
            "ci95": _number(statistics.draw_interval(values)),
            "ci95_clips": _number(statistics.clip_interval(values, self.counts)) if self.balanced else None,
            "ci95_classes": (
                _number(statistics.class_interval(values, self.counts, self.ways)) if self.balanced else None
            ),
            "per_class": {n: float(r) for n, r, s in zip(self.class_names, right, seen) if s},
            "episodes": len(self.accuracy),
            "eval_seconds": self.seconds,
            "episodes_per_second": len(self.accuracy) / max(self.seconds, 1e-9),
            "chunk": self.chunk,
            "excluded_classes": self.excluded,
        }


def evaluate(
    head: Head,
    bank: FeatureBank,
    protocol: Protocol,
    episodes: int = 10_000,
    first: int = 0,
    unlabelled: FeatureBank | None = None,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Accuracy of ``head`` on episodes first .. first+episodes-1 of the protocol over ``bank``.

    progress: called with the number of episodes just scored. workers: threads that score blocks side by side (one
    core each; None: as many as torch would use). Results depend on neither the chunk nor the workers.
    Raises TooFew where the bank cannot serve the protocol.
    """
    head.eval()
    started = time.perf_counter()
    sampler = Sampler(bank, protocol, 0 if unlabelled is None else len(unlabelled))
    classes = len(bank.class_names)
    accuracy = np.zeros(episodes, np.float32)
    confusion = np.zeros((classes, classes), np.int64)
    counts = DrawCounts.empty(bank.label.cpu().numpy(), classes)
    chunk = chunk_size(head, bank, protocol)
    drawn_ways = 0.0

    def score(block: Block) -> list[tuple[EpisodeIndex, Tensor]]:
        return [
            (i, head.score(bank, i, protocol, unlabelled).argmax(-1).cpu())
            for i in block.chunks(sampler, chunk)
        ]

    for scored in side_by_side(score, blocks(sampler, first, episodes, chunk), bank.device, workers):
        for index, predicted in scored:
            value = _tally(index, predicted, confusion)
            accuracy[index.episode.numpy() - first] = value
            clips = torch.cat([index.support.flatten(1), index.query], 1).numpy()
            counts.add(index.classes.numpy(), clips, value)
            drawn_ways += index.classes.shape[1] * len(index)
            if progress:
                progress(len(index))
    seconds = time.perf_counter() - started
    return Evaluation(
        accuracy,
        confusion,
        bank.class_names,
        counts,
        drawn_ways / episodes,
        seconds,
        chunk,
        sampler.excluded,
        is_balanced(protocol),
    )


def is_balanced(protocol: Protocol) -> bool:
    """Whether every episode draws as many clips of as many classes."""
    (way_low, way_high), (shot_low, shot_high) = bounds(protocol.n_way), bounds(protocol.k_shot)
    fixed = way_low == way_high and shot_low == shot_high
    return fixed and protocol.dirichlet is None and protocol.small_classes != "short"


@dataclass
class Block:
    """Episodes of one way and shot, drawn together."""

    episode: np.ndarray
    ways: int
    shots: int

    def chunks(self, sampler: AnySampler, size: int) -> Iterator[EpisodeIndex]:
        """The drawn block, ``size`` episodes at a time."""
        drawn = sampler.draw(self.episode, self.ways, self.shots)
        for start in range(0, len(drawn), size):
            yield drawn[start : start + size]


def blocks(sampler: AnySampler, first: int, count: int, chunk: int) -> Iterator[Block]:
    """Episodes first .. first+count-1 in blocks of one shape, large enough to draw at full speed."""
    size = max(_BLOCK // chunk, 1) * chunk
    episode = np.arange(first, first + count, dtype=np.int64)
    ways, shots = sampler.shapes(episode)
    for way, shot in np.unique(np.stack([ways, shots], 1), axis=0):
        same = episode[(ways == way) & (shots == shot)]
        for start in range(0, len(same), size):
            yield Block(same[start : start + size], int(way), int(shot))


def side_by_side(
    work: Callable[[Block], R], items: Iterable[Block], device: torch.device, workers: int | None = None
) -> Iterator[R]:
    """``work`` over the items, results in order; on the CPU in threads of one core each.

    Operations of a few hundred microseconds gain nothing from splitting over cores and lose much when a core is
    busy elsewhere; whole blocks a core do not wait for each other. A bounded window keeps memory bounded.
    """
    count = workers or (torch.get_num_threads() if device.type == "cpu" else 1)
    if count == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def chunk_size(head: Head, bank: FeatureBank, protocol: Protocol) -> int:
    """Episodes scored at once, so that what the head touches fits the cache (CPU) or a share of memory (CUDA)."""
    ways = bounds(protocol.n_way)[1] or len(bank.class_names)
    clips = ways * (bounds(protocol.k_shot)[1] + protocol.n_query) + protocol.unlabelled
    features = sum(table.steps * table.dim for table in bank.tables.values()) * clips * 4
    cost = max(features, head.episode_bytes(ways, bounds(protocol.k_shot)[1], protocol.n_query * ways), 1)
    budget = _CUDA_BUDGET if bank.device.type == "cuda" else _CPU_BUDGET
    return int(np.clip(budget // cost, 1, 1024 if bank.device.type == "cpu" else 8192))


def _tally(index: EpisodeIndex, predicted: Tensor, confusion: np.ndarray) -> np.ndarray:
    """Each episode's accuracy [B]; adds the queries to the confusion matrix."""
    label = index.query_label
    there = label >= 0
    right = ((predicted == label) & there).sum(1).numpy()
    value = (right / np.maximum(there.sum(1).numpy(), 1)).astype(np.float32)
    true_class = torch.gather(index.classes, 1, label.clamp(min=0))
    said_class = torch.gather(index.classes, 1, predicted)
    pair = (true_class * len(confusion) + said_class)[there].numpy()
    confusion += np.bincount(pair, minlength=confusion.size).reshape(confusion.shape)
    return value


def _number(value: float) -> float | None:
    """NaN is not JSON: an interval that has no value is null."""
    return None if np.isnan(value) else float(value)
