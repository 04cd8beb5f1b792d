"""Drawing apart, supports first.

Each class proposes K supports, kept with the probability C(r, M) over its largest value, where r counts the clips that
remain for queries when the groups of these supports are taken away: then the supports have the law that they have when
the class is drawn alone. The supports of classes that share groups are kept together with the probability that the
product of C(r, M) for what remains of each class beside the supports of all has to that beside its own. The queries are
drawn from what remains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import counter
from .apart_classes import log_choose
from .apart_problems import Problems, state_for, uniform_for

TRIES = 40  # A class that has no supports after so many proposals waits for the next round.
_KEEP, _QUERY, _CLASSES = range(3)


@dataclass(kw_only=True)
class SupportsFirst(Problems):
    """Problems whose supports are proposed first."""

    def round(self, left: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        task, of, state = self.task, self.of[left], self.states(left, number)
        support, found = self._alone(of, state_for(state, _CLASSES))
        first, length = task.classes.taken(of, support, alone=False)
        rest = task.classes.count[of] - length.sum(2)
        if of.shape[1] > 1:
            log_kept = (log_choose(rest, task.queries) - self._log_own(of, support)).sum(1)
            found &= np.log(uniform_for(state, _KEEP)) < log_kept
        kept = np.flatnonzero(found)
        query = self._queries(state_for(state[kept], _QUERY), rest[kept], first[kept], length[kept])
        clips = task.classes.clips[of[kept]]
        return kept, np.take_along_axis(clips, support[kept], 2), np.take_along_axis(clips, query, 2)

    def _alone(self, of: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Supports by each class's own law, places [P, w, K] in the classes, and whether all were found, bool [P]."""
        task, flat = self.task, of.reshape(-1, 1)
        own = counter.bits(state[:, None], np.arange(of.shape[1])).ravel()
        support = np.zeros((len(flat), 1, task.shots), np.int64)
        top = log_choose(task.most, task.queries)
        left = np.arange(len(flat))
        for number in range(TRIES):
            if not len(left):
                break
            chance = state_for(own[left], number)
            words = counter.bits(chance[:, None], np.arange(task.shots)) >> np.uint64(32)
            proposed = counter.subset(words, task.classes.count[flat[left, 0]])[:, None].astype(np.int64)
            log_kept = self._log_own(flat[left], proposed)[:, 0] - top[flat[left, 0]]
            kept = np.log(uniform_for(chance, task.shots)) < log_kept
            support[left[kept]] = proposed[kept]
            left = left[~kept]
        found = np.ones(len(flat), bool)
        found[left] = False
        return support.reshape(*of.shape, task.shots), np.asarray(found.reshape(of.shape).all(1))

    def _log_own(self, of: np.ndarray, support: np.ndarray) -> np.ndarray:
        """The logarithm of the number of queries [P, w] that remain beside a class's own supports."""
        taken = self.task.classes.taken(of, support, alone=True)[1].sum(2)
        return log_choose(self.task.classes.count[of] - taken, self.task.queries)

    def _queries(
        self, state: np.ndarray, rest: np.ndarray, first: np.ndarray, length: np.ndarray
    ) -> np.ndarray:
        """Uniform queries, places [P, w, M], from the ``rest`` [P, w] that the runs [P, w, R] leave of each class."""
        ways, queries = rest.shape[1], self.task.queries
        words = counter.bits(state[:, None], np.arange(ways * queries)) >> np.uint64(32)
        place = counter.subset(words.reshape(len(state), ways, queries), rest).astype(np.int64)
        for run in range(first.shape[2]):
            place += np.where(place >= first[..., run, None], length[..., run, None], 0)
        return place
