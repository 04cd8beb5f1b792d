"""Multi-label episodes as binary relevance: one two-way task for each label, over a shared set of queries.

Multi-label episode e draws N labels and, for each label, K clips that have it, K clips that do not, and ``n_query``
queries that have it. Every query is classified for every label. Task ``e * N + i`` belongs to label i: way 0 means "has
it not", way 1 "has it". Any single-label head, and its training, therefore works on these tasks unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..cache.bank import FeatureBank
from ..errors import UsageError
from . import counter
from .groups import sides
from .protocol import Protocol, TooFew, bounds
from .sampler import EpisodeIndex


class BinarySampler:
    """A sampler of the binary tasks of multi-label episodes from a multi-hot bank, used like :class:`Sampler`.

    Ways and shots are single numbers. excluded: the names of the labels that too few clips have.
    Raises TooFew, with the numbers and the remedy, where the bank cannot serve the protocol, UsageError for a protocol
    that has no multi-label form.
    """

    def __init__(self, bank: FeatureBank, protocol: Protocol) -> None:
        if not bank.multi:
            raise UsageError(
                f"Label set {bank.label_set!r} has one label a clip; multi-label episodes need several."
            )
        if bounds(protocol.n_way)[0] != bounds(protocol.n_way)[1] or not isinstance(protocol.k_shot, int):
            raise UsageError("Multi-label episodes take one number for --n-way and one for --k-shot.")
        if protocol.k_shot < 1:
            raise UsageError("Multi-label episodes need at least one shot; use --k-shot 1 or more.")
        if protocol.uneven_queries or protocol.unlabelled:
            raise UsageError(
                "Multi-label episodes have no unlabelled clips and no uneven queries: leave out --unlabelled, "
                "--dirichlet and --query-classes."
            )
        if not (protocol.shared_group or protocol.cross_group):
            raise UsageError(
                "Multi-label episodes share their queries among labels, and --no-shared-group has no such form; let "
                "supports and queries come from different groups by --support-groups or --support-group-share."
            )
        self.bank, self.protocol = bank, protocol
        self.label = bank.label.cpu().numpy().astype(bool)
        everywhere = np.ones(len(bank), bool)
        self._may_support, self._may_query = (
            sides(bank, protocol) if protocol.cross_group else (everywhere, everywhere)
        )
        enough = self._enough(protocol.k_shot)
        if protocol.small_classes == "refuse" and not enough.all():
            raise TooFew(self._refusal(int(np.flatnonzero(~enough)[0]), protocol.k_shot))
        self._labels = np.flatnonzero(enough)
        self.excluded = [bank.class_names[i] for i in np.flatnonzero(~enough)]
        self.ways = bounds(protocol.n_way)[0] or len(self._labels)
        if len(self._labels) < self.ways:
            raise TooFew(
                f"Split {bank.split!r} of label set {bank.label_set!r} has {len(self._labels)} usable labels; "
                f"{self.ways}-way episodes need {self.ways}: lower --n-way or --n-query."
            )
        names = ("labels", "label-order", "clips", "query-order")
        self._keys = {name: counter.key(protocol.seed, f"multi/{name}") for name in names}

    def _enough(self, shots: int) -> np.ndarray:
        """Whether each label can serve the protocol, bool [C]."""
        support, query = (self.label[side].sum(0) for side in (self._may_support, self._may_query))
        without = self._may_support.sum() - support
        if not self.protocol.cross_group:
            return np.asarray((support >= shots + self.protocol.n_query) & (without >= shots))
        return np.asarray((support >= shots) & (query >= self.protocol.n_query) & (without >= shots))

    def _refusal(self, label: int, shots: int) -> str:
        name, n_query = self.bank.class_names[label], self.protocol.n_query
        if not self.protocol.cross_group:
            return (
                f"Label {name!r} is on {self.label[:, label].sum()} of {len(self.bank)} clips; {shots}-shot with "
                f"{n_query} queries needs {shots + n_query} with it and {shots} without: lower --n-query, or use "
                "--small-classes exclude."
            )
        support, query = (self.label[side, label].sum() for side in (self._may_support, self._may_query))
        return (
            f"Label {name!r} is on {support} of {self._may_support.sum()} clips in the groups of the supports and on "
            f"{query} in those of the queries; {shots}-shot with {n_query} queries needs {shots} with it and {shots} "
            f"without, and {n_query}: lower --n-query, or use --small-classes exclude."
        )

    def shapes(self, task: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The way (2) and the shot of each task, int [B] each."""
        return np.full(len(task), 2), np.full(len(task), self.protocol.k_shot)

    def batches(self, first: int, count: int, size: int) -> Iterator[EpisodeIndex]:
        """The tasks first .. first+count-1 in batches of at most ``size``."""
        for start in range(first, first + count, size):
            yield self.draw(np.arange(start, min(start + size, first + count)), 2, self.bank_shots)

    @property
    def bank_shots(self) -> int:
        return bounds(self.protocol.k_shot)[0]

    def draw(self, task: np.ndarray, ways: int, shots: int) -> EpisodeIndex:
        """The tasks of the given numbers, with support [B, 2, K] (without, with), queries [B, Q] and labels 0 or 1."""
        episode, place = np.unique(task // self.ways, return_inverse=True)
        labels = self._draw_labels(episode)
        without, having, query = self._draw_clips(episode, labels)
        slot = task % self.ways
        chosen = labels[place, slot]
        order = counter.order(counter.words(self._keys["query-order"], episode, query.shape[1]))
        query = np.take_along_axis(query, order, 1)[place]
        support = np.stack([without[place, slot], having[place, slot]], 1)
        return EpisodeIndex(
            episode=torch.from_numpy(np.asarray(task, np.int64)),
            classes=torch.from_numpy(np.repeat(chosen[:, None], 2, 1).astype(np.int64)),
            support=torch.from_numpy(support),
            query=torch.from_numpy(query),
            query_label=torch.from_numpy(self.label[query, chosen[:, None]].astype(np.int64)),
            unlabelled=torch.empty((len(task), 0), dtype=torch.int64),
        )

    def _draw_labels(self, episode: np.ndarray) -> np.ndarray:
        """The labels of each episode, indices [E, N] into the bank's classes in random order."""
        drawn = counter.subset(
            counter.words(self._keys["labels"], episode, self.ways), np.full(len(episode), len(self._labels))
        )
        order = counter.order(counter.words(self._keys["label-order"], episode, self.ways))
        return self._labels[np.take_along_axis(drawn, order, 1)]

    def _draw_clips(
        self, episode: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows of supports without each label [E, N, K], supports with it [E, N, K], and queries [E, N * n_query].

        No clip occurs twice among the supports with a label and the queries. Every clip gets a random key in each
        episode; the clips with the smallest keys that qualify and are not taken are drawn.
        """
        shots, queries = self.bank_shots, self.protocol.n_query
        state = counter.states(self._keys["clips"], episode)
        keys = counter.uniform(counter.bits(state[:, None], np.arange(len(self.bank))[None]) >> np.uint64(32))
        taken, support, query_side = np.zeros(keys.shape, bool), self._may_support, self._may_query
        having, query = [], []
        for i in range(labels.shape[1]):  # The loop runs over labels; its body is vectorised over episodes.
            has = self.label[:, labels[:, i]].T
            having.append(_smallest(keys, has & ~taken & support, shots))
            np.put_along_axis(taken, having[-1], True, 1)
            query.append(_smallest(keys, has & ~taken & query_side, queries))
            np.put_along_axis(taken, query[-1], True, 1)
        without = [
            _smallest(1.0 - keys, ~self.label[:, labels[:, i]].T & ~taken & support, shots)
            for i in range(labels.shape[1])
        ]
        return np.stack(without, 1), np.stack(having, 1), np.concatenate(query, 1)


def _smallest(keys: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """The indices [E, count] of the smallest allowed keys. Raises TooFew where an episode has too few."""
    if (allowed.sum(1) < count).any():
        raise TooFew(
            "Labels overlap so much that an episode runs out of clips with each of its labels; lower --n-way, --k-shot "
            "or --n-query."
        )
    masked = np.where(allowed, keys, np.inf)
    chosen = np.argpartition(masked, count - 1, axis=1)[:, :count]
    # The order that argpartition returns depends on its implementation; after sorting it depends on the keys alone.
    order = np.argsort(np.take_along_axis(masked, chosen, 1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, 1)
