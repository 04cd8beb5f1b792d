"""Evaluating a head on the episodes of a file, with the very steps of each clip that the file names.

Where a file names steps, a clip is another sequence in every episode, so that nothing of it can be prepared once for
all episodes: blocks of episodes are evaluated one after another, each over a bank of the sequences that it needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..cache.catalog import Catalog
from ..cache.table import Table, TensorTable
from ..episodes.episode_file import EpisodeFile
from ..episodes.protocol import Protocol
from ..episodes.sampler import EpisodeIndex
from ..errors import UsageError
from ..heads.head import Head
from ..heads.scoring.cost import cost_of
from ..heads.scoring.episode_test import EpisodeTest
from ..heads.scoring.plan import scorer
from .banks import Banks
from .evaluate import Tally, chunk_size, chunks
from .evaluation import Evaluation
from .only_numbers import only_numbers
from .redraw import imbalance

_BLOCK = 100
"""The episodes of a block; 30 sequences each, of 8 steps of 512 numbers, take 49 MB."""
_GATHERED = 64
"""The clips whose whole sequences are read at once from a table on disk."""


def replayed(protocol: Protocol, file: EpisodeFile) -> Protocol:
    """The protocol of the episodes of a file, whose way, shot and queries count.

    Raises UsageError for a protocol that asks for what the file has decided.
    """
    plain = Protocol()
    decided = ("dirichlet", "query_classes", "small_classes", "unlabelled", "generalised")
    if strange := [name for name in decided if getattr(protocol, name) != getattr(plain, name)]:
        raise UsageError(
            f"A file of episodes says what they hold; leave out --{strange[0].replace('_', '-')}."
        )
    if protocol.rules_groups:
        raise UsageError("A file of episodes says what they hold; leave out the rules about groups.")
    return replace(
        protocol, n_way=file.ways, k_shot=file.shots, n_query=file.queries_a_class, replay=file.digest
    )


@torch.no_grad()
def evaluate_file(
    head: Head[Any],
    banks: Banks,
    file: EpisodeFile,
    episodes: int,
    *,
    progress: Callable[[int], None] | None = None,
    transductive: bool = True,
) -> Evaluation:
    """Evaluate ``head`` on the first ``episodes`` episodes of a file over the test clips of ``banks``.

    progress: called with the number of episodes just scored. Raises UsageError where a clip of the file is not among
    the test clips, is too short for its steps, or has another class than the others of its way.
    """
    head.eval()
    started = time.perf_counter()
    test = _Test.of(banks, file)
    tally = Tally.empty(len(test.bank.class_names), keep=False)
    chunk = 0
    for block in _blocks(min(episodes, len(file))):
        bank, index = test.block(block)
        score = scorer(head, EpisodeTest(bank=bank, protocol=banks.spec.protocol, episodes=len(index)))
        if not chunk:
            one = index[:1]
            chunk = chunk_size(cost_of(partial(score, one)), bank.device)
        predicted = torch.cat([only_numbers(score(part)).argmax(-1).cpu() for part in chunks(index, chunk)])
        tally.add(index, predicted)
        if progress is not None:
            progress(len(index))
    return Evaluation(
        accuracy=np.concatenate(tally.accuracy),
        confusion=tally.confusion,
        class_names=test.bank.class_names,
        seconds=time.perf_counter() - started,
        chunk=chunk,
        imbalance=imbalance(banks.spec.protocol),
        transductive=transductive,
        effective=np.concatenate(tally.effective),
    )


def _blocks(episodes: int) -> Iterator[np.ndarray]:
    for start in range(0, episodes, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, episodes))


@dataclass
class _Test:
    """A file of episodes over a bank. row: int64 [M], the bank's row of each clip of the file, -1 where it has none."""

    banks: Banks
    file: EpisodeFile
    bank: FeatureBank
    row: np.ndarray

    @classmethod
    def of(cls, banks: Banks, file: EpisodeFile) -> _Test:
        bank = banks.test if file.steps is None else banks.with_all_steps()
        if file.steps is not None and len(bank.tables) > 1:
            raise UsageError(
                f"The file of episodes names steps of one stream, and {len(bank.tables)} are loaded; choose one by "
                "--streams."
            )
        ids = Catalog.read(banks.folder).clip_id
        place = {ids[row]: i for i, row in enumerate(bank.clip_row)}
        return cls(banks, file, bank, np.array([place.get(clip, -1) for clip in file.clips], np.int64))

    def block(self, episode: np.ndarray) -> tuple[FeatureBank, EpisodeIndex]:
        """The bank of the sequences of some episodes, and the episodes as rows of it."""
        file, order = self.file, self.file.order[episode]
        support, query = file.support[episode], np.take_along_axis(file.query[episode], order, 1)
        label = np.take_along_axis(file.query_label[episode], order, 1)
        self._check_clips(support, query)
        classes = self._classes(episode, self.row[support], self.row[query], label)
        if file.support_steps is None or file.query_steps is None:
            bank, (support, query) = self.bank, (self.row[support], self.row[query])
        else:
            steps = np.take_along_axis(file.query_steps[episode], order[..., None], 1)
            bank, support, query = self._sequences(support, query, file.support_steps[episode], steps)
        index = EpisodeIndex(
            episode=torch.from_numpy(episode),
            classes=torch.from_numpy(classes),
            support=torch.from_numpy(support),
            query=torch.from_numpy(query),
            query_label=torch.from_numpy(label),
            unlabelled=torch.zeros((len(episode), 0), dtype=torch.int64),
        )
        return bank, index

    def _check_clips(self, support: np.ndarray, query: np.ndarray) -> None:
        used = np.concatenate([support.ravel(), query.ravel()])
        if (absent := used[self.row[used] < 0]).size:
            bank = self.bank
            raise UsageError(
                f"Clip {self.file.clips[absent[0]]!r} of the file of episodes is not among the {len(bank)} "
                f"{bank.split} clips of {bank.dataset!r}; choose another --split, --class-split or data set."
            )

    def _classes(
        self, episode: np.ndarray, support: np.ndarray, query: np.ndarray, label: np.ndarray
    ) -> np.ndarray:
        """The class of each way, int64 [B, N], which all of its clips have."""
        truth = self.bank.label.cpu().numpy()
        classes = truth[support[:, :, 0]]
        wrong = (truth[support] != classes[..., None]).any((1, 2))
        wrong |= (truth[query] != np.take_along_axis(classes, label, 1)).any(1)
        wrong |= np.array([len(set(ways)) < len(ways) for ways in classes.tolist()])
        if wrong.any():
            raise UsageError(
                f"Episode {episode[wrong.argmax()] + 1} of the file has clips of several classes in one way, or one "
                "class twice, by the labels in the cache."
            )
        return classes

    def _sequences(
        self, support: np.ndarray, query: np.ndarray, support_steps: np.ndarray, query_steps: np.ndarray
    ) -> tuple[FeatureBank, np.ndarray, np.ndarray]:
        """The bank of the different sequences of a block, and the rows of its supports and queries in that bank."""
        flat = np.concatenate([support.ravel(), query.ravel()])
        steps = np.concatenate([each.reshape(-1, each.shape[-1]) for each in (support_steps, query_steps)])
        views, inverse = np.unique(np.column_stack([self.row[flat], steps]), axis=0, return_inverse=True)
        rows, taken = views[:, 0], torch.from_numpy(views[:, 1:])
        (key, table), *_ = self.bank.tables.items()
        self._check_steps(table, rows, views[:, 1:])
        index = torch.from_numpy(rows).to(self.bank.device)
        x = _taken(table, index, taken.to(self.bank.device))
        made: Mapping[str, Table] = {
            key: TensorTable(x, torch.full_like(index, x.shape[1]), torch.ones_like(index, dtype=torch.bool))
        }
        bank = replace(
            self.bank,
            tables=dict(made),
            label=self.bank.label[index],
            clip_row=self.bank.clip_row[rows],
            groups=self.bank.groups[rows],
            clip_id=self.bank.clip_id[rows],
            clip_file=self.bank.clip_file[rows],
        )
        inverse = inverse.reshape(-1)
        return (
            self.banks.prepare(bank),
            inverse[: support.size].reshape(support.shape),
            inverse[support.size :].reshape(query.shape),
        )

    def _check_steps(self, table: Table, rows: np.ndarray, steps: np.ndarray) -> None:
        length = table.length.cpu().numpy()[rows]
        if (short := steps.max(1) >= length).any():
            row = rows[short][0]
            clip = self.file.clips[int(np.flatnonzero(self.row == row)[0])]
            raise UsageError(
                f"The file of episodes takes step {steps[short].max()} of clip {clip!r}, which has {length[short][0]} "
                "steps in the cache; import the features that belong to the episodes."
            )


def _taken(table: Table, rows: Tensor, steps: Tensor) -> Tensor:
    """The steps [V, S] of the clips at ``rows`` [V], as features [V, S, D]."""
    if isinstance(table, TensorTable):
        return table.x[rows[:, None], steps]
    parts = [
        table.gather(some).x[torch.arange(len(some))[:, None], taken]
        for some, taken in zip(rows.split(_GATHERED), steps.split(_GATHERED))
    ]
    return torch.cat(parts)
