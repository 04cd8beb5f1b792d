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
from ..errors import UsageError
from . import counter
from .apart import ApartSupply
from .protocol import Protocol, TooFew, bounds
from .supply import ClipSupply, Supply

__all__ = ["EpisodeIndex", "Sampler", "TooFew"]


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
        self._supply = supply_of(bank, protocol)
        enough = self._supply.enough
        self.excluded = [] if protocol.small_classes == "refuse" else _names(bank, ~enough)
        if protocol.small_classes == "refuse" and not enough.all():
            raise TooFew(self._supply.refusal())
        self._class = np.flatnonzero(enough)
        ways = bounds(protocol.n_way)[1]
        if len(self._class) < max(ways, 1):
            raise TooFew(_too_few_classes(bank, protocol, usable=len(self._class), excluded=self.excluded))
        if protocol.unlabelled > unlabelled:
            raise TooFew(
                f"The protocol asks for {protocol.unlabelled} unlabelled clips an episode; dataset {bank.dataset!r} "
                f"has {unlabelled}: lower --unlabelled or extract a folder of unlabelled videos."
            )
        self._keys = {
            purpose: counter.key(protocol.seed, purpose)
            for purpose in ("shape", "classes", "order", "unlabelled")
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
        classes = self._class[self._draw_classes(episode, ways)]
        drawn = self._supply.draw(episode, classes, shots)
        return EpisodeIndex(
            torch.from_numpy(np.asarray(episode, np.int64)),
            torch.from_numpy(classes),
            torch.from_numpy(drawn.support),
            *self._shuffled(episode, drawn.query, padded=drawn.padded),
            torch.from_numpy(self._draw_unlabelled(episode)),
        )

    def _draw_classes(self, episode: np.ndarray, ways: int) -> np.ndarray:
        """The indices [B, N] into the usable classes, in random order, so that labels tell nothing about the class."""
        classes = len(self._class)
        words = counter.words(self._keys["classes"], episode, 2 * ways)
        drawn = counter.subset(words[:, :ways], np.full(len(episode), classes))
        return np.take_along_axis(drawn, counter.order(words[:, ways:]), 1)

    def _shuffled(self, episode: np.ndarray, query: np.ndarray, *, padded: bool) -> tuple[Tensor, Tensor]:
        """The rows [B, N, slots] of the queries as rows and labels [B, Q] in random order.

        Padding comes last and is cut where no episode needs it.
        """
        batch, ways, slots = query.shape
        rows = query.reshape(batch, -1)
        real = rows >= 0 if padded else None
        words = counter.words(self._keys["order"], episode, ways * slots)
        order = counter.order(words, None if real is None else ~real)
        row, label = np.take_along_axis(rows, order, 1), order // slots
        if real is not None:
            real = np.take_along_axis(real, order, 1)
            longest = int(real.sum(1).max(initial=0))
            row, label = (np.where(real, x, -1)[:, :longest] for x in (row, label))
        return torch.from_numpy(row), torch.from_numpy(label)

    def _draw_unlabelled(self, episode: np.ndarray) -> np.ndarray:
        words = counter.words(self._keys["unlabelled"], episode, self.protocol.unlabelled)
        return counter.subset(words, np.full(len(episode), self.pool)).astype(np.int64)


def supply_of(bank: FeatureBank, protocol: Protocol) -> Supply:
    """What the sampler draws supports and queries from, under the protocol's rules about groups.

    Raises UsageError where a rule cannot be kept, TooFew where there are too few groups for it.
    """
    if protocol.shared_group or protocol.cross_group:
        return ClipSupply(bank, protocol)
    return ApartSupply(bank, protocol)


def _names(bank: FeatureBank, which: np.ndarray) -> list[str]:
    return [bank.class_names[i] for i in np.flatnonzero(which)]


def _too_few_classes(bank: FeatureBank, protocol: Protocol, usable: int, excluded: list[str]) -> str:
    ways, need = bounds(protocol.n_way)[1], bounds(protocol.k_shot)[1] + protocol.n_query
    small = "cannot keep its rules about groups" if protocol.rules_groups else f"have fewer than {need} clips"
    left_out = f" ({len(excluded)} more {small})" if excluded else ""
    return (
        f"Split {bank.split!r} of label set {bank.label_set!r} has {usable} usable classes{left_out}; {ways}-way "
        f"episodes need {max(ways, 1)}: lower --n-way{' or --n-query' if excluded else ''}, or choose another --split."
    )
