"""The clips that a class supplies, and the draws of supports and queries from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np

from ..cache.bank import FeatureBank
from . import counter
from .dirichlet import chosen_classes, dirichlet_weights, shared_counts
from .groups import sides
from .protocol import Protocol, bounds


@dataclass(frozen=True)
class Drawn:
    """The bank rows of the supports and queries of B episodes."""

    support: np.ndarray
    """int64 [B, N, K]."""
    query: np.ndarray
    """int64 [B, N, slots], class by class; -1 for padding."""
    padded: bool
    """Whether some queries may be padding."""


class Supply(Interface):
    """What a sampler must know of the clips of a bank's C classes."""

    enough: np.ndarray
    """Whether each class can serve the protocol, bool [C]."""

    def draw(self, episode: np.ndarray, classes: np.ndarray, shots: int) -> Drawn:
        """The clips of the episodes [B] with these classes [B, N]."""
        ...

    def room(self, shots: int) -> np.ndarray:
        """The most queries that each class has beside ``shots`` supports, int64 [C]; below 0 for too few supports."""
        ...

    def refusal(self) -> str:
        """A sentence that names the class that can serve the protocol least, and the remedy."""
        ...


class Pool:
    """The rows of a bank that may be drawn, class by class.

    rows: int64, ordered by class; count, first: int64 [C], the number of a class's rows and where they begin.
    """

    def __init__(self, label: np.ndarray, classes: int, allowed: np.ndarray | None = None) -> None:
        by_class = np.argsort(label, kind="stable")
        self.rows = by_class if allowed is None else by_class[allowed[by_class]]
        self.count = np.bincount(label[self.rows], minlength=classes)
        self.first = np.concatenate([[0], np.cumsum(self.count)[:-1]])

    def at(self, classes: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The rows at these places [B, N, M] of the classes [B, N]; -1 stays -1 where its row is not read."""
        return self.rows[self.first[classes][..., None] + place]


class ClipSupply:
    """Supports and queries are drawn from all clips of a class, or each from the groups of its side.

    The sampler's chance is that of ``protocol.seed``; sets of clips are uniform.
    """

    def __init__(self, bank: FeatureBank, protocol: Protocol) -> None:
        self.bank, self.protocol = bank, protocol
        label, classes = bank.label.cpu().numpy(), len(bank.class_names)
        if protocol.cross_group:
            allowed = sides(bank, protocol)
            self.support, self.query = (Pool(label, classes, side) for side in allowed)
        else:
            self.support = self.query = Pool(label, classes)
        self.shots = bounds(protocol.k_shot)[1]
        self.least = 1 if protocol.small_classes == "short" else protocol.n_query
        self.enough = (self.support.count >= self.shots) & (self._left(self.shots) >= self.least)
        self._keys = {
            purpose: counter.key(protocol.seed, purpose)
            for purpose in ("support", "query", "query classes", "dirichlet")
        }

    def draw(self, episode: np.ndarray, classes: np.ndarray, shots: int) -> Drawn:
        words = counter.words(self._keys["support"], episode, classes.shape[1] * shots)
        support = counter.subset(words.reshape(*classes.shape, shots), self.support.count[classes])
        left = self._left(shots)[classes]
        slots, share = self._shares(episode, left)
        words = counter.words(self._keys["query"], episode, classes.shape[1] * slots)
        query = counter.subset(words.reshape(*classes.shape, slots), left, share)
        if self.query is self.support:
            query = counter.outside(query, support)
        rows = self.query.at(classes, query)
        return Drawn(
            support=self.support.at(classes, support),
            query=rows if share is None else np.where(query < 0, -1, rows),
            padded=share is not None,
        )

    def room(self, shots: int) -> np.ndarray:
        return np.where(self.support.count >= shots, self._left(shots), -1)

    def _left(self, shots: int) -> np.ndarray:
        """The clips of each class that may be queries beside ``shots`` supports, int64 [C]."""
        return self.query.count - (shots if self.query is self.support else 0)

    def _shares(self, episode: np.ndarray, left: np.ndarray) -> tuple[int, np.ndarray | None]:
        """The query slots of a class, and the number that each class fills, int [B, N], or None where it fills all."""
        if self.protocol.uneven_queries:
            total = self.protocol.n_query * left.shape[1]
            return total, shared_counts(self._weights(episode, left), left, total)
        if self.protocol.small_classes == "short":
            return self.protocol.n_query, np.minimum(left, self.protocol.n_query)
        return self.protocol.n_query, None

    def _weights(self, episode: np.ndarray, left: np.ndarray) -> np.ndarray:
        """The weights [B, N] by which uneven queries are shared; 0 for classes that have none."""
        alpha, count = self.protocol.dirichlet, self.protocol.query_classes
        weight = np.ones(left.shape)
        if alpha is not None:
            weight = dirichlet_weights(self._keys["dirichlet"], episode, left.shape[1], alpha)
        if count is not None:
            weight = np.where(chosen_classes(self._keys["query classes"], episode, left, count), weight, 0.0)
        return weight

    def refusal(self) -> str:
        spare = np.minimum(self.support.count - self.shots, self._left(self.shots) - self.least)
        worst, small = int(np.argmin(spare)), int((~self.enough).sum())
        name, n_query = self.bank.class_names[worst], self.protocol.n_query
        fits = int(self._left(self.shots)[worst])
        lower = f"lower --n-query to {fits}" if fits >= 1 else "lower --k-shot and --n-query"
        more = f" ({small} classes are too small)" if small > 1 else ""
        if self.query is self.support:
            return (
                f"Class {name!r} has {self.support.count[worst]} clips; {self.shots}-shot with {n_query} queries needs "
                f"{self.shots + n_query}{more}: {lower}, or use --small-classes exclude (or short)."
            )
        if self.support.count[worst] < self.shots:
            lower = "lower --k-shot, or let supports come from more groups"
        return (
            f"Class {name!r} has {self.support.count[worst]} clips in the groups of the supports and {fits} in those "
            f"of the queries; {self.shots}-shot with {n_query} queries needs {self.shots} and {n_query}{more}: "
            f"{lower}, or use --small-classes exclude."
        )
