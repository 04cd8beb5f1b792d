"""Groups of clips (a person, a source video) as numbers, and the sides that groups take under a protocol."""

from __future__ import annotations

import numpy as np

from ..cache.bank import FeatureBank
from ..errors import UsageError, unknown
from . import counter
from .protocol import Protocol, TooFew


def group_numbers(bank: FeatureBank) -> np.ndarray:
    """The number of each clip's group, int64 [n]; a clip without a group is a group of its own.

    Raises UsageError where no clip of the bank names a group.
    """
    return _numbered(bank)[0]


def sides(bank: FeatureBank, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Whether each clip may be a support, and whether it may be a query, under a cross-group protocol; bool [n] each.

    Raises UsageError for a group that no clip of the bank has, TooFew where there are not two groups to divide.
    """
    if protocol.support_group_share is not None:
        support = _drawn(bank, protocol.support_group_share, protocol.seed)
        return support, ~support
    _numbered(bank)
    named = [_of(bank, names) for names in (protocol.support_groups, protocol.query_groups)]
    support, query = (mine if mine is not None else ~_known(other) for mine, other in (named, named[::-1]))
    return support, query


def _known(mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        raise TypeError("a cross-group protocol names the groups of one side at least")
    return mask


def _of(bank: FeatureBank, names: tuple[str, ...] | None) -> np.ndarray | None:
    """Whether each clip is of one of the groups, bool [n]; None where none are named."""
    if names is None:
        return None
    held = {group for group in bank.groups if group is not None}
    for name in names:
        if name not in held:
            raise unknown(f"group of the {bank.split} classes", name, held)
    return np.isin(np.array(["" if g is None else g for g in bank.groups]), names)


def _drawn(bank: FeatureBank, share: float, seed: int) -> np.ndarray:
    """Whether each clip's group is among the share that supports come from, bool [n].

    A group's place in the draw depends on the seed and its name alone.
    """
    numbers, names = _numbered(bank)
    if len(names) < 2:
        raise TooFew(
            f"The {bank.split} classes of dataset {bank.dataset!r} have one group, {names[0]!r}; a share of the groups "
            "needs two at least: leave out --support-group-share."
        )
    place = np.argsort([counter.key(seed, f"group/{name}") for name in names], kind="stable")
    chosen = np.zeros(len(names), bool)
    chosen[place[: min(max(round(share * len(names)), 1), len(names) - 1)]] = True
    return chosen[numbers]


def _numbered(bank: FeatureBank) -> tuple[np.ndarray, list[str]]:
    """The number of each clip's group, int64 [n], and the name of each group; a lone clip is named by its row."""
    lone = np.array([group is None for group in bank.groups])
    if lone.all():
        raise UsageError(
            f"The {bank.split} clips of dataset {bank.dataset!r} name no groups, so no rule about groups can be kept; "
            "import or extract them with groups, or leave out --no-shared-group and the options of support and query "
            "groups."
        )
    # Texts of known groups and of lone clips begin differently, so that none can be mistaken for the other.
    texts = [f"clip {row}" if g is None else f"group {g}" for g, row in zip(bank.groups, bank.clip_row)]
    names, numbers = np.unique(texts, return_inverse=True)
    return numbers.reshape(-1).astype(np.int64), [
        name.partition(" ")[2] if name[0] == "g" else name for name in names
    ]
