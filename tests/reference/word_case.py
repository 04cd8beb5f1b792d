"""Helpers of mappings for heads with a classifier from class words, in a space that words and features share."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from case import ONLY, one_task
from torch import Tensor

from fsmm.episodes.batch import Stream
from fsmm.heads.head import Inputs
from fsmm.heads.language.word_head import WordHead, WordSettings, WordTask

H = TypeVar("H", bound=WordHead[Any])


def built(cls: type[H], settings: WordSettings, text: Tensor) -> H:
    """The head for features as wide as the class words ``text`` [N, D]."""
    dim = text.shape[1]
    return cls(Inputs(streams={ONLY: (1, dim)}, word_dim=dim, way=len(text)), settings).double().eval()


def word_task(
    head: WordHead[Any], support: Tensor, label: Tensor, query: Tensor, text: Tensor
) -> tuple[WordTask, Tensor]:
    """The task of supports [M, D] with labels [M] in 0..N-1, queries [Q, D] and words [N, D]; and the supports' places.

    The places [M] are those of the given supports among the N*K that the task holds class by class; a class with fewer
    supports than another has absent ones in the places that are left.
    """
    ways, counts = len(text), torch.bincount(label, minlength=len(text))
    shots = max(int(counts.max()), 1)
    grid = support.new_zeros(ways, shots, support.shape[1])
    present = torch.zeros(ways, shots, dtype=torch.bool)
    place = torch.zeros(len(label), dtype=torch.int64)
    filled = [0] * ways
    for i, c in enumerate(label.tolist()):
        grid[c, filled[c]] = support[i]
        present[c, filled[c]] = True
        place[i] = c * shots + filled[c]
        filled[c] += 1
    episodes = one_task(grid, query)
    episodes.support[ONLY] = Stream(grid[None, :, :, None], present[None], present[None].long())
    episodes.words = text[None]
    return head.task(episodes), place
