"""What leakage is worth: the accuracy where supports and queries may share a group, minus that where they may not.

Both protocols draw from the same clips, and their episodes differ, so that nothing can be paired episode by episode.
What varies is the groups: the interval is that of the delete-one-group jackknife (Efron and Stein 1981). Of both
accuracies, each group in turn is left out, with all queries that belong to it and all episodes that have a support from
it; a clip without a group is a group of its own. Left-out episodes add some of the noise of the draws, which makes the
interval wider than it need be, never narrower. Accuracies are means over classes with the weights that the classes have
in all episodes, so that leaving out a group of a hard class does not make the set easier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..cache.bank import FeatureBank
from ..episodes.groups import group_numbers
from ..episodes.protocol import Protocol
from ..heads.head import Head
from .evaluate import Scoring, chunks
from .statistics import Uncertainty

MOST = 2000
"""The number of episodes of each protocol at most."""
_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """The accuracies of a head under both protocols, and their difference."""

    shared: float
    """The accuracy where supports and queries may share a group."""
    apart: float
    """The accuracy where they may not."""
    difference: float
    """The first minus the second: what the leakage is worth."""
    ci95: float | None
    """The half width of the interval of the difference over groups; None where it has no value."""
    reason: str
    """Why there is no interval; "" where there is one."""
    groups: int
    """The number of groups of the clips, each clip without one counted as a group."""
    episodes: int
    """The number of episodes of each protocol."""


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of the queries of E episodes."""

    support: np.ndarray
    """int [E, W * K], the group of each support."""
    query: np.ndarray
    """int [E, Q], the group of each query."""
    query_class: np.ndarray
    """int [E, Q], the class of each query, -1 where an episode has fewer queries."""
    right: np.ndarray
    """bool [E, Q], whether each query was classified rightly."""


def leakage(
    head: Head, bank: FeatureBank, protocol: Protocol, episodes: int, *, unlabelled: FeatureBank | None = None
) -> Leakage:
    """Measure a head on ``bank`` under ``protocol`` with groups kept apart, and with groups that may be shared.

    episodes: of each protocol, at most MOST of them. Raises UsageError where no clip names a group.
    """
    episodes = min(episodes, MOST)
    groups = group_numbers(bank)
    found = [
        outcomes(
            head,
            bank,
            replace(protocol, shared_group=may),
            episodes=episodes,
            groups=groups,
            unlabelled=unlabelled,
        )
        for may in (True, False)
    ]
    count, classes = int(groups.max()) + 1, len(bank.class_names)
    (shared, without), (apart, also) = (left_out(one, count, classes) for one in found)
    sure = jackknife(without - also)
    width = sure.half_width()
    return Leakage(
        shared=shared,
        apart=apart,
        difference=shared - apart,
        ci95=None if np.isnan(width) else width,
        reason=sure.reason or "",
        groups=count,
        episodes=episodes,
    )


def outcomes(
    head: Head,
    bank: FeatureBank,
    protocol: Protocol,
    *,
    episodes: int,
    groups: np.ndarray,
    unlabelled: FeatureBank | None,
) -> Outcomes:
    """The outcomes of a head's first episodes under a protocol; groups: int [n], the group of each clip."""
    head.eval()
    scoring = Scoring.of(head, bank, protocol, episodes, first=0, unlabelled=unlabelled)
    parts: list[tuple[np.ndarray, ...]] = []
    with torch.no_grad():
        for index in scoring.sampler.batches(0, episodes, _BLOCK):
            way = torch.cat([scoring.score(some).argmax(-1).cpu() for some in chunks(index, scoring.chunk)])
            label = index.query_label.numpy()
            of_query = np.take_along_axis(index.classes.numpy(), np.maximum(label, 0), 1)
            parts.append(
                (
                    groups[index.support.numpy().reshape(len(index), -1)],
                    groups[index.query.numpy()],
                    np.where(label >= 0, of_query, -1),
                    way.numpy() == label,
                )
            )
    return Outcomes(*(_joined([part[k] for part in parts], fill=-1) for k in range(4)))


def _joined(parts: list[np.ndarray], *, fill: int) -> np.ndarray:
    """Arrays [B, width] of several widths as one [E, largest width]."""
    width = max(part.shape[1] for part in parts)
    padded = [
        np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=False if p.dtype == bool else fill)
        for p in parts
    ]
    return np.concatenate(padded)


def left_out(found: Outcomes, groups: int, classes: int) -> tuple[float, np.ndarray]:
    """The accuracy of all episodes, and the accuracies [G] without each group in turn; NaN where nothing is left."""
    episodes, width = found.query.shape
    real = found.query_class >= 0
    place = np.where(real, found.query_class, 0)
    right, asked = np.zeros((groups + 1, classes)), np.zeros((groups + 1, classes))

    def take_off(group: np.ndarray, episode: np.ndarray, query: np.ndarray) -> None:
        """Add queries to what leaving out their groups takes off."""
        cell = group * classes + place[episode, query]
        weight = real[episode, query].astype(float)
        size = (groups + 1) * classes
        asked.ravel()[:] += np.bincount(cell, weight, minlength=size)
        hit = weight * found.right[episode, query]
        right.ravel()[:] += np.bincount(cell, hit, minlength=size)

    each = np.arange(episodes)
    mine = np.unique((each[:, None] * groups + found.support)[found.support >= 0])
    held_by, held_group = mine // groups, mine % groups
    everywhere = np.arange(width)
    take_off(
        np.repeat(held_group, width), np.repeat(held_by, width), np.tile(everywhere, len(mine))
    )  # all queries of the episodes that have a support of the group
    episode, query = np.nonzero(real)
    own = found.query[episode, query]
    alone = ~np.isin(episode * groups + own, mine)
    take_off(own[alone], episode[alone], query[alone])
    everyone = np.full(len(episode), groups)  # the last row takes everything off
    take_off(everyone, episode, query)
    share = asked[groups] / asked[groups].sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        left = (right[groups] - right[:groups]) / (asked[groups] - asked[:groups])
    used = share > 0
    whole = float((share[used] * right[groups][used] / asked[groups][used]).sum())
    return whole, np.asarray((left[:, used] * share[used]).sum(1))


def jackknife(without: np.ndarray) -> Uncertainty:
    """The uncertainty of a statistic from its values [G] without each of G groups in turn."""
    if len(without) < 2:
        return Uncertainty(reason="there are fewer than two groups")
    if np.isnan(without).any():
        return Uncertainty(reason="a group takes part in every episode of a class")
    variance = (len(without) - 1) * float(without.var())
    return Uncertainty(error=float(np.sqrt(variance)), freedom=float(len(without) - 1))
