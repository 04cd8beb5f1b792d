"""Evaluate a head on many episodes: chunks sized to the cache, one accuracy an episode, everything that was drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..episodes.protocol import Protocol, bounds
from ..episodes.sampler import EpisodeIndex, Sampler
from ..heads.base import Head
from . import statistics
from .statistics import DrawCounts

# Episodes are drawn in blocks of this many and scored in chunks whose features fit the processor's cache.
_BLOCK = 1000
_CPU_BUDGET = 24 << 20
_CUDA_BUDGET = 1 << 30


@dataclass
class Evaluation:
    """What an evaluation found.

    accuracy: float32 [E], each episode's share of queries classified rightly, in the order of episode numbers.
    confusion: int64 [C, C], true by predicted class, over all queries.
    """

    accuracy: np.ndarray
    confusion: np.ndarray
    class_names: list[str]
    counts: DrawCounts
    ways: float
    seconds: float
    chunk: int
    excluded: list[str] = field(default_factory=list)

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
            "ci95_clips": _number(statistics.clip_interval(values, self.counts)),
            "ci95_classes": _number(statistics.class_interval(values, self.counts, self.ways)),
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
) -> Evaluation:
    """Accuracy of ``head`` on episodes first .. first+episodes-1 of the protocol over ``bank``.

    progress: called with the number of episodes just scored. Results do not depend on the chunk.
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
    for index in chunks(sampler, first, episodes, chunk):
        logits = head.score(bank, index, protocol, unlabelled)
        predicted = logits.argmax(-1).cpu()
        value = _tally(index, predicted, confusion)
        accuracy[index.episode.numpy() - first] = value
        clips = torch.cat([index.support.flatten(1), index.query], 1).numpy()
        counts.add(index.classes.numpy(), clips, value)
        drawn_ways += index.classes.shape[1] * len(index)
        if progress:
            progress(len(index))
    seconds = time.perf_counter() - started
    return Evaluation(
        accuracy, confusion, bank.class_names, counts, drawn_ways / episodes, seconds, chunk, sampler.excluded
    )


def chunks(sampler: Sampler, first: int, count: int, size: int) -> Iterator[EpisodeIndex]:
    """Episodes drawn in large blocks, handed out ``size`` at a time."""
    for block in sampler.batches(first, count, max(_BLOCK, size)):
        for start in range(0, len(block), size):
            part = slice(start, start + size)
            yield EpisodeIndex(
                block.episode[part],
                block.classes[part],
                block.support[part],
                block.query[part],
                block.query_label[part],
                block.unlabelled[part],
            )


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


def validation_protocol(protocol: Protocol, val: FeatureBank) -> Protocol:
    """The protocol on val classes: same task, as many ways as there are val classes at most, another seed."""
    ways = bounds(protocol.n_way)[1] or len(val.class_names)
    seed = protocol.seed + 1_000_003
    return replace(protocol, split="val", n_way=min(ways, len(val.class_names)), seed=seed, small_classes="short")
