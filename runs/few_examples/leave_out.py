"""Leave-one-out over labelled examples, many tasks at once.

One example of every class is left out at a time, and all of them are decided by the others. Were one example left out
alone, its class would be smaller than the others, and heads that weigh classes by their size would decide against it:
on five examples a class, ridge regression lost up to forty points by that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.gather import materialise
from ...episodes.protocol import Protocol
from ...episodes.sampler import EpisodeIndex
from ...heads.head import Head

_BYTES = 64 << 20
"""The features of the tasks that are decided at once."""
_FEWEST_CLASSES = 2
MOST = 100
"""The most rounds, in each of which one example of every class is left out."""


def support_rows(label: Tensor, classes: int) -> Tensor:
    """The rows [N, K] of the clips of each class; -1 where a class has fewer than the largest one.

    >>> support_rows(torch.tensor([1, 0, 1]), 2)
    tensor([[ 1, -1],
            [ 0,  2]])
    """
    each = [torch.nonzero(label == c).flatten() for c in range(classes)]
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=-1)


def can_be_left_out(label: Tensor, classes: int) -> Tensor:
    """The rows [m] of the examples that can be left out, because their class has another one, in ascending order.

    There are none where fewer than two classes have another one: the others would only show how often it is missed.
    """
    counts = torch.bincount(label, minlength=classes)
    if int((counts > 1).sum()) < _FEWEST_CLASSES:
        return torch.zeros(0, dtype=torch.int64)
    return torch.nonzero(counts[label] > 1).flatten()


def rounds(label: Tensor, classes: int, most: int = MOST) -> Tensor:
    """The rows [R, N] of the examples that are left out together, one of each class; -1 for a class of one example.

    Every example has its turn; in a small class some have several. Of more than ``most`` rounds, this many are taken,
    at even distances.

    >>> rounds(torch.tensor([1, 0, 1, 2, 0, 1]), 3)
    tensor([[ 1,  0, -1],
            [ 4,  2, -1],
            [ 1,  5, -1]])
    """
    supports = support_rows(label, classes)
    counts = (supports >= 0).sum(1)
    turns = torch.arange(supports.shape[1])
    if len(turns) > most:
        turns = torch.linspace(0, len(turns) - 1, most).round().long()
    found = supports.gather(1, turns[None] % counts[:, None]).T
    enough = int((counts > 1).sum()) >= _FEWEST_CLASSES
    return found.masked_fill((counts < 2)[None], -1) if enough else found[:0]


@torch.no_grad()
def left_out_logits(head: Head, bank: FeatureBank) -> tuple[Tensor, Tensor]:
    """The logits [m, N] of the examples that could be left out, and their rows [m] in the bank, in ascending order.

    bank: the labelled clips as the head reads them. An example that was left out several times has its first logits.
    """
    head.eval()
    classes = len(bank.class_names)
    supports, left = support_rows(bank.label, classes), rounds(bank.label, classes)
    found = [torch.zeros(0, classes, classes)]
    for part in left.split(_at_once(bank, supports.numel() + classes)):
        without = supports.expand(len(part), *supports.shape)
        without = without.masked_fill((without == part[:, :, None]) & (part >= 0)[:, :, None], -1)
        found.append(head(tasks_of(bank, without, part)).float())
    return _first_of_each(torch.cat(found).flatten(0, 1), left.flatten())


def _first_of_each(logits: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the first time that each row was left out, and the rows in ascending order."""
    order = torch.argsort(row, stable=True)
    row = row[order]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    first &= row >= 0
    return logits[order][first], row[first]


def tasks_of(bank: FeatureBank, supports: Tensor, queries: Tensor) -> Episodes:
    """The tasks over all classes of a bank whose supports are the rows [B, N, K] and whose queries the rows [B, Q].

    A row of -1 is a clip that does not exist.
    """
    count, ways = supports.shape[:2]
    index = EpisodeIndex(
        episode=torch.arange(count),
        classes=torch.arange(ways).expand(count, ways),
        support=supports,
        query=queries,
        query_label=torch.zeros_like(queries),
        unlabelled=torch.zeros(count, 0, dtype=torch.int64),
    )
    return materialise(bank, index, Protocol())


def _at_once(bank: FeatureBank, clips: int) -> int:
    """The number of tasks of so many clips whose features take at most ``_BYTES``."""
    clip = sum(4 * table.steps * table.dim for table in bank.tables.values())
    return max(_BYTES // max(clip * clips, 1), 1)


def balanced_folds(label: Sequence[int] | np.ndarray, folds: int) -> np.ndarray:
    """A fold int [n] for each example: the examples of a class take turns, so that every fold has of every class.

    >>> balanced_folds([0, 0, 1, 0, 1], 2).tolist()
    [0, 1, 1, 0, 0]
    """
    label = np.asarray(label)
    order = np.argsort(label, kind="stable")
    fold = np.empty(len(label), np.int64)
    fold[order] = np.arange(len(label)) % folds
    return fold
