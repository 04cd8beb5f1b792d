"""Evaluating a head on many episodes, in chunks that fit the processor's cache, with one accuracy for each episode."""

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
from ..heads.scoring.cost import Cost, cost_of
from ..heads.scoring.episode_test import EpisodeTest
from ..heads.scoring.plan import scorer
from ..machine.local_engine import share
from ..machine.memory import keep_freed_memory
from . import statistics
from .result import Result
from .statistics import DrawCounts

# Episodes are drawn in blocks of this many and scored in chunks whose features fit the processor's cache.
_BLOCK = 512
# Forking costs tens of milliseconds, so it does not pay off for fewer episodes than this.
FORK_FROM = 2000
# The memory of a chunk, as one episode is measured. All that is alive counts, of which a part is in use, so the bound
# lies above the caches. Operations on a few kilobytes cost little more than their call, and gain from larger chunks.
_CPU_BUDGET, _CPU_BUDGET_SMALL, _SMALL = 9 << 20, 16 << 20, 2 << 10
# A few operations that mostly read features are bound by memory: what they read at once must fit the cache.
_CPU_BUDGET_READING, _FEW = 4 << 20, 64
# The cost of calling an operation is amortised no better by more episodes at once than this.
_CPU_MOST = 50
_CUDA_BUDGET = 1 << 30


@dataclass(kw_only=True)
class Evaluation(Result):
    """The result of an evaluation on E episodes over C classes."""

    accuracy: np.ndarray
    """float32 [E], the share of each episode's queries that are classified rightly, in the order of episode numbers."""
    confusion: np.ndarray
    """int64 [C, C], the number of queries by true class and predicted class."""
    class_names: list[str]
    """The names of the C classes."""
    counts: DrawCounts
    """The draws of clips and classes, from which the intervals are computed."""
    ways: float
    """The mean number of classes of an episode."""
    seconds: float
    """The time of the evaluation in seconds."""
    chunk: int
    """The number of episodes that were scored at once."""
    excluded: list[str] = field(default_factory=list)
    """The names of the classes that were left out because they are too small."""
    balanced: bool = True
    """Whether every episode draws the same number of clips of the same number of classes.

    The intervals over clips and classes were derived and verified for such episodes alone; others do not get them.
    """

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
        """The accuracy of each episode, float32 [E]."""
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
    """Evaluate ``head`` on the episodes first .. first+episodes-1 of the protocol over ``bank``.

    unlabelled: the bank of the clips that episodes give without labels.
    progress: called with the number of episodes just scored.
    workers: the number of threads or processes that score blocks side by side, one core each; None takes as many as
        torch would use. Results depend on neither the chunk nor the workers.
    Raises TooFew where the bank cannot serve the protocol.
    """
    head.eval()
    keep_freed_memory()
    started = time.perf_counter()
    sampler = Sampler(bank, protocol, 0 if unlabelled is None else len(unlabelled))
    label, classes = bank.label.cpu().numpy(), len(bank.class_names)

    @torch.no_grad()
    def work(part: Sequence[Block], tick: Callable[[int], None]) -> Tally:
        tally = Tally.empty(label, classes)
        for block in part:
            index = block.draw(sampler)
            # one tensor for the block: small results that outlive large temporaries would scatter over the memory
            predicted, done = torch.empty(index.query.shape, dtype=torch.int64), 0
            for chunked in chunks(index, chunk):
                predicted[done : done + len(chunked)] = score(chunked).argmax(-1)
                done += len(chunked)
                tick(len(chunked))
            tally.add(index, predicted)
        return tally

    test = EpisodeTest(bank=bank, protocol=protocol, episodes=episodes, unlabelled=unlabelled)
    score = scorer(head, test)
    cost = cost_of(lambda: score(largest_episode(sampler, protocol, first)))
    chunk = chunk_size(cost, bank.device)
    cores = workers or (torch.get_num_threads() if bank.device.type == "cpu" else 1)
    forked = not cost.gradients and bank.device.type == "cpu" and episodes >= FORK_FROM
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
    """Whether every episode draws the same number of clips of the same number of classes."""
    (way_low, way_high), (shot_low, shot_high) = bounds(protocol.n_way), bounds(protocol.k_shot)
    fixed = way_low == way_high and shot_low == shot_high
    return fixed and protocol.dirichlet is None and protocol.small_classes != "short"


@dataclass
class Block:
    """A block of episodes of one way and shot, which are drawn together."""

    episode: np.ndarray
    """The numbers of the episodes, int64."""
    ways: int
    """The number of classes of each episode."""
    shots: int
    """The number of supports of each class."""

    def draw(self, sampler: AnySampler) -> EpisodeIndex:
        return sampler.draw(self.episode, self.ways, self.shots)


def chunks(index: EpisodeIndex, size: int) -> Iterator[EpisodeIndex]:
    """The drawn episodes, ``size`` at a time."""
    for start in range(0, len(index), size):
        yield index[start : start + size]


def blocks(sampler: AnySampler, first: int, count: int, chunk: int, workers: int = 1) -> Iterator[Block]:
    """The episodes first .. first+count-1 in blocks of one shape, large enough to draw at full speed.

    Blocks are smaller where there are few episodes, so that every worker gets several of them.
    """
    wanted = _BLOCK if workers == 1 else min(_BLOCK, count // (4 * workers))
    size = max(wanted // chunk, 1) * chunk
    episode = np.arange(first, first + count, dtype=np.int64)
    ways, shots = sampler.shapes(episode)
    for way, shot in np.unique(np.stack([ways, shots], 1), axis=0):
        same = episode[(ways == way) & (shots == shot)]
        for start in range(0, len(same), size):
            yield Block(same[start : start + size], int(way), int(shot))


def largest_episode(sampler: AnySampler, protocol: Protocol, number: int) -> EpisodeIndex:
    """The episode ``number`` with the most classes and supports that the protocol allows, for measuring costs."""
    one = np.array([number], np.int64)
    ways, shots = (int(size[0]) for size in sampler.shapes(one))
    if not sampler.bank.multi:  # A multi-label task has two classes under any protocol.
        ways = max(ways, bounds(protocol.n_way)[1])
    return sampler.draw(one, ways, max(shots, bounds(protocol.k_shot)[1]))


def chunk_size(cost: Cost, device: torch.device) -> int:
    """The number of episodes scored at once, so that their memory fits the cache (CPU) or a share of memory (CUDA).

    cost: the cost of one episode.
    """
    if device.type == "cuda":
        return int(np.clip(_CUDA_BUDGET // max(cost.bytes, 1), 1, 8192))
    return int(np.clip(_cpu_budget(cost) // max(cost.bytes, 1), 1, _CPU_MOST))


def _cpu_budget(cost: Cost) -> int:
    """The bytes that a chunk may take on a CPU, by what bounds the work: reading features, calls, or arithmetic."""
    if cost.operations < _FEW:
        return _CPU_BUDGET_READING
    return _CPU_BUDGET_SMALL if cost.bytes < _SMALL * cost.operations else _CPU_BUDGET


@dataclass
class Tally:
    """The result of one worker's episodes, as sums that can be merged."""

    confusion: np.ndarray
    """int64 [C, C], the number of queries by true class and predicted class."""
    counts: DrawCounts
    """The draws of clips and classes."""
    episode: list[np.ndarray] = field(default_factory=list)
    """The numbers of the episodes, one array for each block."""
    accuracy: list[np.ndarray] = field(default_factory=list)
    """The accuracies of the episodes, one array for each block."""
    ways: float = 0.0
    """The number of classes drawn, summed over episodes."""

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
        label, way, classes = index.query_label.numpy(), predicted.numpy(), index.classes.numpy()
        real = label >= 0
        value = ((way == label).sum(1) / np.maximum(real.sum(1), 1)).astype(np.float32)
        size = len(self.confusion)
        true_class = np.take_along_axis(classes, np.maximum(label, 0), 1)
        pair = true_class * size + np.take_along_axis(classes, way, 1)
        pair = pair.ravel() if real.all() else pair[real]
        self.confusion += np.bincount(pair, minlength=size * size).reshape(size, size)
        clips = np.concatenate([index.support.flatten(1).numpy(), index.query.numpy()], 1)
        self.counts.add(classes, clips, value)
        self.episode.append(index.episode.numpy())
        self.accuracy.append(value)
        self.ways += classes.size

    def accuracies(self, first: int, episodes: int) -> np.ndarray:
        """The accuracies, float32 [E], in the order of episode numbers."""
        out = np.zeros(episodes, np.float32)
        out[np.concatenate(self.episode) - first] = np.concatenate(self.accuracy)
        return out


def _number(value: float) -> float | None:
    """The value as a JSON number, or None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)
