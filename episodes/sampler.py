"""The sampler draws the classes and clips of many episodes at once.

Draws depend on (seed, episode) through the counter-based generator alone; the modalities and missing rates of a
protocol never change which clips are drawn, so protocols can be compared on the same tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..errors import FsmmError, UsageError
from . import counter
from .protocol import Protocol, bounds


class TooFew(FsmmError):
    """The split has too few classes or clips for the protocol."""


@dataclass
class EpisodeIndex:
    """The rows of a bank that make up B episodes of one shape, as int64 tensors on the CPU."""

    episode: Tensor
    """The numbers of the episodes, [B]."""
    classes: Tensor
    """The classes of the bank, [B, N]."""
    support: Tensor
    """The bank rows of the supports, [B, N, K]."""
    query: Tensor
    """The bank rows of the queries, [B, Q], shuffled over classes; -1 for padding."""
    query_label: Tensor
    """The labels of the queries, [B, Q] in 0..N-1; -1 for padding."""
    unlabelled: Tensor
    """The rows of the clips in the bank of unlabelled clips, [B, U]; U may be 0."""

    def __len__(self) -> int:
        return len(self.episode)

    def __getitem__(self, part: slice) -> EpisodeIndex:
        return EpisodeIndex(
            episode=self.episode[part],
            classes=self.classes[part],
            support=self.support[part],
            query=self.query[part],
            query_label=self.query_label[part],
            unlabelled=self.unlabelled[part],
        )


class Sampler:
    """A sampler of the episodes of ``protocol`` from the clips of a ``bank`` with one label a clip.

    unlabelled: the number of clips without labels.
    excluded: the names of the classes that are left out because they are too small (unless small_classes is "refuse").
    Raises TooFew, with the numbers and the remedy, when the bank cannot serve the protocol, UsageError for a multi-hot
    bank.
    """

    def __init__(self, bank: FeatureBank, protocol: Protocol, unlabelled: int = 0) -> None:
        if bank.multi:
            raise UsageError(
                f"Label set {bank.label_set!r} is multi-hot, and this study needs one label a clip; choose a "
                "single-label set with --label-set."
            )
        self.bank, self.protocol, self.pool = bank, protocol, unlabelled
        label = bank.label.cpu().numpy()
        by_class = np.argsort(label, kind="stable")
        counts = bank.counts()
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        need = bounds(protocol.k_shot)[1] + protocol.n_query
        enough = counts >= (bounds(protocol.k_shot)[1] + 1 if protocol.small_classes == "short" else need)
        self.excluded = [] if protocol.small_classes == "refuse" else _names(bank, ~enough)
        if protocol.small_classes == "refuse" and not enough.all():
            raise TooFew(_too_small(bank, protocol, counts, need))
        usable = np.flatnonzero(enough)
        self._class, self._count, self._first = usable, counts[usable], first[usable]
        self._rows = by_class
        ways = bounds(protocol.n_way)[1]
        if len(usable) < max(ways, 1):
            raise TooFew(
                _too_few_classes(bank=bank, ways=ways, usable=len(usable), excluded=self.excluded, need=need)
            )
        if protocol.unlabelled > unlabelled:
            raise TooFew(
                f"The protocol asks for {protocol.unlabelled} unlabelled clips an episode; dataset {bank.dataset!r} "
                f"has {unlabelled}: lower --unlabelled or extract a folder of unlabelled videos."
            )
        self._keys = {
            purpose: counter.key(protocol.seed, purpose)
            for purpose in ("shape", "classes", "support", "query", "order", "dirichlet", "unlabelled")
        }

    def shapes(self, episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The way and the shot of each episode, int [E] each."""
        words = counter.words(self._keys["shape"], episode, 2)
        (way_low, way_high), (shot_low, shot_high) = bounds(self.protocol.n_way), bounds(self.protocol.k_shot)
        if way_high == 0:
            way_low = way_high = len(self._class)
        ways = way_low + counter.below(words[:, 0], way_high - way_low + 1)
        shots = shot_low + counter.below(words[:, 1], shot_high - shot_low + 1)
        return ways, shots

    def batches(self, first: int, count: int, size: int) -> Iterator[EpisodeIndex]:
        """The episodes first .. first+count-1 in batches of at most ``size``, each of one way and shot."""
        episode = np.arange(first, first + count, dtype=np.int64)
        ways, shots = self.shapes(episode)
        for way, shot in np.unique(np.stack([ways, shots], 1), axis=0):
            same = episode[(ways == way) & (shots == shot)]
            for start in range(0, len(same), size):
                yield self.draw(same[start : start + size], int(way), int(shot))

    def draw(self, episode: np.ndarray, ways: int, shots: int) -> EpisodeIndex:
        """The episodes of the given numbers, all of the same way and shot."""
        classes = self._draw_classes(episode, ways)
        support = self._draw_support(episode, classes, shots)
        query, padded = self._draw_query(episode, classes, support)
        first = self._first[classes]
        return EpisodeIndex(
            torch.from_numpy(np.asarray(episode, np.int64)),
            torch.from_numpy(self._class[classes]),
            torch.from_numpy(self._rows[first[..., None] + support]),
            *self._shuffled(episode, first, query, padded),
            torch.from_numpy(self._draw_unlabelled(episode)),
        )

    def _draw_classes(self, episode: np.ndarray, ways: int) -> np.ndarray:
        """The indices [B, N] into the usable classes, in random order, so that labels tell nothing about the class."""
        classes = len(self._class)
        words = counter.words(self._keys["classes"], episode, 2 * ways)
        drawn = counter.subset(words[:, :ways], np.full(len(episode), classes))
        return np.take_along_axis(drawn, counter.order(words[:, ways:]), 1)

    def _draw_support(self, episode: np.ndarray, classes: np.ndarray, shots: int) -> np.ndarray:
        """The positions [B, N, K] of the supports within their class."""
        words = counter.words(self._keys["support"], episode, classes.shape[1] * shots)
        return counter.subset(words.reshape(*classes.shape, shots), self._count[classes])

    def _draw_query(
        self, episode: np.ndarray, classes: np.ndarray, support: np.ndarray
    ) -> tuple[np.ndarray, bool]:
        """The positions [B, N, slots] of the queries within their class, and whether some may be padding (-1)."""
        ways, shots = support.shape[1:]
        left = self._count[classes] - shots
        slots, share = self._shares(episode, left)
        words = counter.words(self._keys["query"], episode, ways * slots).reshape(len(episode), ways, slots)
        drawn = counter.subset(words, left, share)
        drawn = counter.outside(drawn, support)
        return drawn, share is not None

    def _shares(self, episode: np.ndarray, left: np.ndarray) -> tuple[int, np.ndarray | None]:
        """The query slots of a class, and the number that each class fills, int [B, N], or None where it fills all."""
        if self.protocol.dirichlet is not None:
            total = self.protocol.n_query * left.shape[1]
            return total, dirichlet_counts(
                key=self._keys["dirichlet"],
                episode=episode,
                left=left,
                total=total,
                alpha=self.protocol.dirichlet,
            )
        if self.protocol.small_classes == "short":
            return self.protocol.n_query, np.minimum(left, self.protocol.n_query)
        return self.protocol.n_query, None

    def _shuffled(
        self, episode: np.ndarray, first: np.ndarray, query: np.ndarray, padded: bool
    ) -> tuple[Tensor, Tensor]:
        """The bank rows and labels [B, Q] of the queries in random order.

        Padding comes last and is cut where no episode needs it.
        """
        batch, ways, slots = query.shape
        real = query.reshape(batch, -1) >= 0 if padded else None
        words = counter.words(self._keys["order"], episode, ways * slots)
        order = counter.order(words, None if real is None else ~real)
        place = (query + first[..., None]).reshape(batch, -1)
        row = self._rows[np.take_along_axis(place, order, 1)]
        label = order // slots
        if real is not None:
            real = np.take_along_axis(real, order, 1)
            longest = int(real.sum(1).max(initial=0))
            row, label = (np.where(real, x, -1)[:, :longest] for x in (row, label))
        return torch.from_numpy(row), torch.from_numpy(label)

    def _draw_unlabelled(self, episode: np.ndarray) -> np.ndarray:
        words = counter.words(self._keys["unlabelled"], episode, self.protocol.unlabelled)
        return counter.subset(words, np.full(len(episode), self.pool)).astype(np.int64)


def dirichlet_counts(
    key: np.uint64, episode: np.ndarray, left: np.ndarray, total: int, alpha: float
) -> np.ndarray:
    """The numbers of queries of each class, int64 [B, N], in Dirichlet(alpha) proportions.

    They sum to ``total``, or to the sum of ``left`` where that is smaller. left: the clips [B, N] that each class can
    give; a class's deficit is shared among the others in proportion. Fractions are rounded by largest remainders, so
    alpha -> infinity gives total / N to each class. Gamma variates come from inverting their distribution function.
    """
    from scipy.special import gammaincinv

    gamma = np.maximum(
        gammaincinv(alpha, counter.uniform(counter.words(key, episode, left.shape[1]))), 1e-300
    )
    counts = np.zeros(left.shape, np.int64)
    for _ in range(left.shape[1]):
        room = left - counts
        missing = total - counts.sum(1, keepdims=True)
        weight = np.where(room > 0, gamma, 0.0)
        share = missing * weight / np.maximum(weight.sum(1, keepdims=True), 1e-300)
        counts += np.minimum(_largest_remainders(share, missing), room)
    return counts


def _largest_remainders(share: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The whole numbers [B, N] nearest to ``share`` that sum to ``total`` [B, 1]."""
    floor = np.floor(share).astype(np.int64)
    rank = np.argsort(np.argsort(floor - share, axis=1, kind="stable"), axis=1, kind="stable")
    return floor + (rank < total - floor.sum(1, keepdims=True))


def _names(bank: FeatureBank, which: np.ndarray) -> list[str]:
    return [bank.class_names[i] for i in np.flatnonzero(which)]


def _too_small(bank: FeatureBank, protocol: Protocol, counts: np.ndarray, need: int) -> str:
    worst = int(np.argmin(counts))
    small = int((counts < need).sum())
    shots = bounds(protocol.k_shot)[1]
    fits = int(counts[worst]) - shots
    lower = f"lower --n-query to {fits}" if fits >= 1 else "lower --k-shot and --n-query"
    more = f" ({small} classes are too small)" if small > 1 else ""
    return (
        f"Class {bank.class_names[worst]!r} has {counts[worst]} clips; {shots}-shot with {need - shots} queries needs "
        f"{need}{more}: {lower}, or use --small-classes exclude (or short)."
    )


def _too_few_classes(bank: FeatureBank, ways: int, usable: int, excluded: list[str], need: int) -> str:
    left_out = f" ({len(excluded)} more have fewer than {need} clips)" if excluded else ""
    return (
        f"Split {bank.split!r} of label set {bank.label_set!r} has {usable} usable classes{left_out}; {ways}-way "
        f"episodes need {max(ways, 1)}: lower --n-way{' or --n-query' if excluded else ''}, or choose another --split."
    )
