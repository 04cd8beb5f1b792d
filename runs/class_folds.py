"""Banks of some of the classes of a bank, and folds in which some classes are held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..cache.bank import FeatureBank


def with_classes(bank: FeatureBank, classes: Sequence[int]) -> FeatureBank:
    """The clips of some classes of a single-label bank; class i of the new bank is ``classes[i]`` of the old one."""
    chosen = np.asarray(classes, np.int64)
    label = bank.label.cpu().numpy()
    place = np.full(len(bank.class_names), -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(place[label] >= 0)
    part = bank.rows(rows)
    index = torch.from_numpy(chosen).to(bank.device)
    return replace(
        part,
        label=torch.from_numpy(place[label[rows]]).to(bank.device),
        class_names=[bank.class_names[c] for c in chosen],
        class_id=bank.class_id[index],
        words=None if bank.words is None else bank.words[index],
    )


def class_folds(classes: int, folds: int, held: int, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """Folds of classes 0 .. classes-1: those that stay and the ``held`` ones that are held out, drawn by seed.

    No class is held out twice before every class has been held out once.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    deck: list[int] = []
    for _ in range(folds):
        out: list[int] = []
        while len(out) < held:
            drawn = next((c for c in deck if c not in out), None)
            if drawn is None:
                deck += rng.permutation(classes).tolist()
                continue
            deck.remove(drawn)
            out.append(drawn)
        yield [c for c in range(classes) if c not in out], sorted(out)
