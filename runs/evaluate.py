"""Evaluate a head on many episodes: chunks sized to the cache, one accuracy an episode, everything that was drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..episodes.draw import AnySampler
from ..episodes.protocol import Protocol, bounds
from ..episodes.sampler import EpisodeIndex, Sampler
from ..heads.head import Head
from ..machine.local_engine import share
from ..machine.memory import keep_freed_memory
from . import statistics
from .result import Result
from .statistics import DrawCounts

# Episodes are drawn in blocks of this many and scored in chunks whose features fit the processor's cache.
_BLOCK = 512
# Forking costs tens of milliseconds; fewer episodes than this are done before it pays.
FORK_FROM = 2000
_CPU_BUDGET = 4 << 20
# Episodes at once where no features are gathered: enough to amortise operations, and still in the cache.
_NUMBERS_CHUNK = 50
_CUDA_BUDGET = 1 << 30


@dataclass(kw_only=True)
class Evaluation(Result):
    """What an evaluation on episodes found.

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
        """The figures that are printed and stored: fractions in 0..1, intervals as half widths at 95 %."""
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

    def per_episode(self) -> np.ndarray:
        """float32 [E], the accuracy of each episode."""
        return self.accuracy

    def arrays(self) -> dict[str, np.ndarray]:
        """The accuracies [E], the confusion [C, C] and the names of its classes."""
        return {
            "accuracy": self.accuracy,
            "confusion": self.confusion,
            "class_names": np.array(self.class_names),
        }


def evaluate(
    head: Head,
    bank: FeatureBank,
    protocol: Protocol,
    episodes: int = 10_000,
    *,
    first: int = 0,
    unlabelled: FeatureBank | None = None,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Accuracy of ``head`` on episodes first .. first+episodes-1 of the protocol over ``bank``.

    progress: called with the number of episodes just scored. workers: threads or processes that score blocks side by
    side (one core each; None: as many as torch would use). Results depend on neither the chunk nor the workers.
    Raises TooFew where the bank cannot serve the protocol.
    """
    head.eval()
    keep_freed_memory()
    started = time.perf_counter()
    sampler = Sampler(bank, protocol, 0 if unlabelled is None else len(unlabelled))
    label, classes = bank.label.cpu().numpy(), len(bank.class_names)

    def work(part: Sequence[Block], tick: Callable[[int], None]) -> Tally:
        tally = Tally.empty(label, classes)
        for block in part:
            index, predicted = block.draw(sampler), []
            for chunked in chunks(index, chunk):
                predicted.append(score(chunked).argmax(-1).cpu())
                tick(len(chunked))
            tally.add(index, torch.cat(predicted))
        return tally

    score = head.scorer(bank, protocol, episodes, unlabelled)
    chunk = max(chunk_size(head, bank, protocol), _NUMBERS_CHUNK if score.of_numbers else 1)
    cores = workers or (torch.get_num_threads() if bank.device.type == "cpu" else 1)
    forked = head.light and bank.device.type == "cpu" and episodes >= FORK_FROM
    total = Tally.sum(
        share(
            work,
            list(blocks(sampler, first, episodes, chunk, workers=cores)),
            cores,
            forked=forked,
            progress=progress,
        )
    )
    return Evaluation(
        accuracy=total.accuracies(first, episodes),
        confusion=total.confusion,
        class_names=bank.class_names,
        counts=total.counts,
        ways=total.ways / episodes,
        seconds=time.perf_counter() - started,
        chunk=chunk,
        excluded=sampler.excluded,
        balanced=is_balanced(protocol),
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

    def draw(self, sampler: AnySampler) -> EpisodeIndex:
        return sampler.draw(self.episode, self.ways, self.shots)


def chunks(index: EpisodeIndex, size: int) -> Iterator[EpisodeIndex]:
    """Drawn episodes, ``size`` at a time."""
    for start in range(0, len(index), size):
        yield index[start : start + size]


def blocks(sampler: AnySampler, first: int, count: int, chunk: int, workers: int = 1) -> Iterator[Block]:
    """Episodes first .. first+count-1 in blocks of one shape, large enough to draw at full speed.

    Where there are few episodes, smaller: every worker gets several blocks.
    """
    wanted = _BLOCK if workers == 1 else min(_BLOCK, count // (4 * workers))
    size = max(wanted // chunk, 1) * chunk
    episode = np.arange(first, first + count, dtype=np.int64)
    ways, shots = sampler.shapes(episode)
    for way, shot in np.unique(np.stack([ways, shots], 1), axis=0):
        same = episode[(ways == way) & (shots == shot)]
        for start in range(0, len(same), size):
            yield Block(same[start : start + size], int(way), int(shot))


def chunk_size(head: Head, bank: FeatureBank, protocol: Protocol) -> int:
    """Episodes scored at once, so that what the head touches fits the cache (CPU) or a share of memory (CUDA)."""
    ways = bounds(protocol.n_way)[1] or len(bank.class_names)
    clips = ways * (bounds(protocol.k_shot)[1] + protocol.n_query) + protocol.unlabelled
    features = sum(table.steps * table.dim for table in bank.tables.values()) * clips * 4
    cost = max(features, head.episode_bytes(ways, bounds(protocol.k_shot)[1], protocol.n_query * ways), 1)
    budget = _CUDA_BUDGET if bank.device.type == "cuda" else _CPU_BUDGET
    return int(np.clip(budget // cost, 1, 1024 if bank.device.type == "cpu" else 8192))


@dataclass
class Tally:
    """What a worker found in its episodes, as sums that merge.

    episode, accuracy: one array a block. confusion: int64 [C, C]. ways: classes drawn, summed over episodes.
    """

    confusion: np.ndarray
    counts: DrawCounts
    episode: list[np.ndarray] = field(default_factory=list)
    accuracy: list[np.ndarray] = field(default_factory=list)
    ways: float = 0.0

    @classmethod
    def empty(cls, clip_class: np.ndarray, classes: int) -> Tally:
        return cls(np.zeros((classes, classes), np.int64), DrawCounts.empty(clip_class, classes))

    @classmethod
    def sum(cls, parts: Sequence[Tally]) -> Tally:
        """The first part with the others added to it."""
        total = parts[0]
        for part in parts[1:]:
            total.confusion += part.confusion
            total.counts.merge(part.counts)
            total.episode += part.episode
            total.accuracy += part.accuracy
            total.ways += part.ways
        return total

    def add(self, index: EpisodeIndex, predicted: Tensor) -> None:
        """Count the predictions [B, Q] of drawn episodes."""
        label, said, classes = index.query_label.numpy(), predicted.numpy(), index.classes.numpy()
        there = label >= 0
        value = ((said == label).sum(1) / np.maximum(there.sum(1), 1)).astype(np.float32)
        size = len(self.confusion)
        true_class = np.take_along_axis(classes, np.maximum(label, 0), 1)
        pair = true_class * size + np.take_along_axis(classes, said, 1)
        pair = pair.ravel() if there.all() else pair[there]
        self.confusion += np.bincount(pair, minlength=size * size).reshape(size, size)
        clips = np.concatenate([index.support.flatten(1).numpy(), index.query.numpy()], 1)
        self.counts.add(classes, clips, value)
        self.episode.append(index.episode.numpy())
        self.accuracy.append(value)
        self.ways += classes.size

    def accuracies(self, first: int, episodes: int) -> np.ndarray:
        """float32 [E] in the order of episode numbers."""
        out = np.zeros(episodes, np.float32)
        out[np.concatenate(self.episode) - first] = np.concatenate(self.accuracy)
        return out


def _number(value: float) -> float | None:
    """NaN is not JSON: an interval that has no value is null."""
    return None if np.isnan(value) else float(value)
