"""Evaluating a head on many episodes, in chunks that fit the processor's cache, with one accuracy for each episode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

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
from .evaluation import Evaluation
from .extent import Auto, Extent, planned
from .only_numbers import only_numbers
from .redraw import Source, imbalance

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


def evaluate(
    head: Head,
    bank: FeatureBank,
    protocol: Protocol,
    episodes: Extent = 10_000,
    *,
    first: int = 0,
    unlabelled: FeatureBank | None = None,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
    transductive: bool = True,
) -> Evaluation:
    """Evaluate ``head`` on the episodes first .. first+episodes-1 of the protocol over ``bank``.

    episodes: their number, or Auto for as many as the precision needs.
    unlabelled: the bank of the clips that episodes give without labels.
    progress: called with the number of episodes just scored.
    workers: the number of threads or processes that score blocks side by side, one core each; None takes as many as
        torch would use. Results depend on neither the chunk nor the workers.
    transductive: whether the head may decide the queries of an episode together. Where it does not, the interval over
        clips is narrower and needs fewer clips.
    Raises TooFew where the bank cannot serve the protocol.
    """
    head.eval()
    keep_freed_memory()
    started = time.perf_counter()
    scoring = Scoring.of(head, bank, protocol, planned(episodes), first=first, unlabelled=unlabelled)
    return evaluated(
        scoring,
        episodes,
        first=first,
        progress=progress,
        workers=workers,
        transductive=transductive,
        started=started,
    )


def evaluated(
    scoring: Scoring,
    episodes: Extent,
    *,
    first: int,
    progress: Callable[[int], None] | None,
    workers: int | None,
    transductive: bool,
    started: float | None = None,
) -> Evaluation:
    """The evaluation of the episodes that a scoring scores; the parameters are those of ``evaluate``.

    started: the time at which the evaluation began, if it was not now.
    """
    started = time.perf_counter() if started is None else started
    total: list[Tally] = []

    def so_far() -> Evaluation:
        """The result of the episodes that were scored."""
        return scoring.evaluation(Tally.sum(total), first=first, started=started, transductive=transductive)

    if not isinstance(episodes, Auto):
        total.append(scoring.tally(first, episodes, workers, progress))
        return so_far()
    done = 0
    for count in episodes.steps():
        total[:] = [Tally.sum([*total, scoring.tally(first + done, count - done, workers, progress)])]
        found, done = so_far(), count
        sure = found.uncertainties
        found.why_so_many = episodes.verdict(sure["ci95"], sure["ci95_clips"], count)
        if found.why_so_many:
            break
    return found


@dataclass
class Scoring:
    """What scores the episodes of one test, chosen once: a head's quickest way, and how many episodes at once."""

    sampler: Sampler
    """The sampler of the episodes."""
    score: Callable[[EpisodeIndex], Tensor]
    """The logits [B, Q, N] of drawn episodes."""
    chunk: int
    """The number of episodes that are scored at once."""
    forked: bool
    """Whether workers are forked processes where the platform has them; they are threads otherwise."""

    @classmethod
    def of(
        cls,
        head: Head,
        bank: FeatureBank,
        protocol: Protocol,
        episodes: int,
        *,
        first: int,
        unlabelled: FeatureBank | None,
    ) -> Scoring:
        """The scoring of about so many episodes, whose cost is measured on the first. Raises TooFew."""
        sampler = Sampler(bank, protocol, 0 if unlabelled is None else len(unlabelled))
        test = EpisodeTest(bank=bank, protocol=protocol, episodes=episodes, unlabelled=unlabelled)
        way = scorer(head, test)
        cost = cost_of(lambda: way(largest_episode(sampler, protocol, first)))
        forked = not cost.gradients and bank.device.type == "cpu" and episodes >= FORK_FROM
        return cls(sampler, lambda index: only_numbers(way(index)), chunk_size(cost, bank.device), forked)

    def tally(
        self, first: int, episodes: int, workers: int | None, progress: Callable[[int], None] | None
    ) -> Tally:
        """The tally of the episodes first .. first+episodes-1."""
        cores = workers or workers_of(self.sampler.bank)
        parts = list(blocks(self.sampler, first, episodes, self.chunk, workers=cores))
        return Tally.sum(share(self._work, parts, cores, forked=self.forked, progress=progress))

    @torch.no_grad()
    def _work(self, part: Sequence[Block], tick: Callable[[int], None]) -> Tally:
        """The tally of some blocks; tick is called with the number of episodes just scored."""
        tally = Tally.empty(len(self.sampler.bank.class_names), keep=not imbalance(self.sampler.protocol))
        for block in part:
            index = block.draw(self.sampler)
            # one tensor for the block: small results that outlive large temporaries would scatter over the memory
            predicted, done = torch.empty(index.query.shape, dtype=torch.int64), 0
            for chunked in chunks(index, self.chunk):
                predicted[done : done + len(chunked)] = self.score(chunked).argmax(-1)
                done += len(chunked)
                tick(len(chunked))
            tally.add(index, predicted)
        return tally

    def evaluation(self, total: Tally, *, first: int, started: float, transductive: bool) -> Evaluation:
        """The evaluation of the episodes of a tally, which begin at ``first``; it began at the time ``started``."""
        order = np.argsort(np.concatenate(total.episode), kind="stable")
        bank, protocol = self.sampler.bank, self.sampler.protocol
        uneven = imbalance(protocol)
        return Evaluation(
            accuracy=np.concatenate(total.accuracy)[order],
            confusion=total.confusion,
            class_names=bank.class_names,
            seconds=time.perf_counter() - started,
            chunk=self.chunk,
            excluded=self.sampler.excluded,
            first=first,
            right_bits=None if uneven else np.concatenate(total.right_bits)[order],
            source=None if uneven else Source.of(bank, protocol),
            imbalance=uneven,
            transductive=transductive,
            effective=np.concatenate(total.effective)[order],
        )


def workers_of(bank: FeatureBank) -> int:
    """The number of workers that score episodes of a bank where it is not given: as many as torch would use."""
    return torch.get_num_threads() if bank.device.type == "cpu" else 1


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
    """The result of one worker's episodes, which can be merged."""

    confusion: np.ndarray
    """int64 [C, C], the number of queries by true class and predicted class."""
    keep: bool
    """Whether the outcome of every query is kept; episodes then have one number of queries."""
    episode: list[np.ndarray] = field(default_factory=list)
    """The numbers of the episodes, one array for each block."""
    accuracy: list[np.ndarray] = field(default_factory=list)
    """The accuracies of the episodes, float32, one array for each block."""
    right_bits: list[np.ndarray] = field(default_factory=list)
    """A bit for each query that says whether it was classified rightly, uint8, one array for each block."""
    effective: list[np.ndarray] = field(default_factory=list)
    """The number of classes that the queries of each episode come from, int64, one array for each block."""

    @classmethod
    def empty(cls, classes: int, *, keep: bool) -> Tally:
        return cls(np.zeros((classes, classes), np.int64), keep)

    @classmethod
    def sum(cls, parts: Sequence[Tally]) -> Tally:
        """The first part with the others added to it."""
        total = parts[0]
        for part in parts[1:]:
            total.confusion += part.confusion
            total.episode += part.episode
            total.accuracy += part.accuracy
            total.right_bits += part.right_bits
            total.effective += part.effective
        return total

    def add(self, index: EpisodeIndex, predicted: Tensor) -> None:
        """Count the predictions [B, Q] of drawn episodes."""
        label, way, classes = index.query_label.numpy(), predicted.numpy(), index.classes.numpy()
        real, right = label >= 0, way == label
        size = len(self.confusion)
        true_class = np.take_along_axis(classes, np.maximum(label, 0), 1)
        pair = true_class * size + np.take_along_axis(classes, way, 1)
        pair = pair.ravel() if real.all() else pair[real]
        self.confusion += np.bincount(pair, minlength=size * size).reshape(size, size)
        self.episode.append(index.episode.numpy())
        self.effective.append((label[..., None] == np.arange(classes.shape[1])).any(1).sum(1))
        self.accuracy.append((right.sum(1) / np.maximum(real.sum(1), 1)).astype(np.float32))
        if self.keep:
            self.right_bits.append(np.packbits(right, axis=1))
