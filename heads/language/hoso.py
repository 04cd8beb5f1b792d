"""HOSO: blending by one held-out shot (HOSO-Adapter, arXiv 2603.04341, 2026); our reading, as no code is public.

Two scores, one from supports and one from class words, are blended by a ratio that needs no validation clips: one shot
of each class is held out, and the ratio is that at which the others and the words recognise it best. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ..decided import Decided
from ..head import Inputs
from ..parts.absence import neutral
from ..parts.tensors import single
from ..settings import Share
from .word_head import WordHead, WordSettings

GRID = 101


@dataclass(frozen=True)
class HOSOSettings(WordSettings):
    """The settings of the blend by a held-out shot."""

    visual: Literal["ridge", "protonet", "simpleshot", "nearest", "linear-probe", "finetune"] = "ridge"
    """The method that scores by supports, with its own default settings."""
    text: Literal["words", "ridge-words", "gda-new"] = "words"
    """The method that scores by class words: cosines with their weights, or another method with its defaults."""
    held: Literal["first", "each"] = "first"
    """Hold out the first shot of each class, as published, or each in turn, whose losses are added up."""
    one_shot: Share = 0.2
    """The weight of the visual score where a class has one shot and none can be held out (CLIP-Adapter's value)."""
    fold: bool = True
    """Score by all supports once the ratio is found; false: by those that were not held out."""


class HOSO(WordHead[HOSOSettings]):
    """A wrapper of two methods; the ratio of each task is found on a grid, in closed form for all tasks at once."""

    Settings = HOSOSettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **WordHead.decided,
        "ratio of the two scores": Decided("supports"),
        "ratio at one shot": Decided("none"),
    }

    def __init__(self, inputs: Inputs, settings: HOSOSettings) -> None:
        super().__init__(inputs, settings)
        self.visual: nn.Module = inputs.branches[settings.visual](inputs)
        self.text = None if settings.text == "words" else inputs.branches[settings.text](inputs)

    def fit_base(self, base: FeatureBank) -> None:
        """Fits the map of words and both methods to base classes."""
        super().fit_base(base)
        for head in self._methods():
            head.fit_base(base)

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: ratio times the visual score plus one minus ratio times that of the words."""
        support, query = single(episodes)
        used = episodes
        if not self.settings.fold:
            taken = next(self._held_out(support.present))
            used = _with_support(episodes, _kept(support, support.present & ~taken))
        visual = self.visual(used)
        ratio = self.ratio(episodes).to(visual)[:, None, None]
        logits = ratio * visual + (1 - ratio) * self.text_logits(episodes)
        return neutral(logits, query.present, torch.ones_like(episodes.class_id, dtype=torch.bool))

    def text_logits(self, episodes: Episodes) -> Tensor:
        """The score [B, Q, N] by class words."""
        if self.text is None:
            return self.task(episodes).text_logits
        logits: Tensor = self.text(episodes)
        return logits

    @torch.no_grad()
    def ratio(self, episodes: Episodes) -> Tensor:
        """The weight [B] of the visual score in each task.

        It is the first of the grid with the least log-loss on held-out shots; ``one_shot`` in tasks that have none,
        which are those in which no class has two supports.
        """
        support, _ = single(episodes)
        grid = torch.linspace(0, 1, GRID, dtype=torch.float64, device=support.x.device)
        loss = torch.zeros(GRID, episodes.batch, dtype=torch.float64, device=support.x.device)
        known = torch.zeros(episodes.batch, dtype=torch.bool, device=support.x.device)
        for taken in self._held_out(support.present):
            task, counted = _held_task(episodes, support, taken)
            visual, text = self.visual(task).double(), self.text_logits(task).double()
            for number, share in enumerate(grid.tolist()):
                own = torch.log_softmax(share * visual + (1 - share) * text, -1).diagonal(dim1=1, dim2=2)
                loss[number] -= (own * counted).sum(1)
            known |= counted.any(1)
        best = grid[_first_least(loss)]
        return torch.where(known, best, self.settings.one_shot)

    def _held_out(self, present: Tensor) -> Iterator[Tensor]:
        """Which supports are held out, bool [B, N, K], one of a class, and none of a class with fewer than two."""
        several = (present.sum(2) > 1)[..., None]
        place = torch.arange(present.shape[2], device=present.device)
        if self.settings.held == "first":
            yield (place == present.to(torch.uint8).argmax(2)[..., None]) & several
        else:
            for shot in range(present.shape[2]):
                yield (place == shot) & present & several

    def _methods(self) -> list[Any]:
        return [self.visual] if self.text is None else [self.visual, self.text]


def _held_task(episodes: Episodes, support: Stream, taken: Tensor) -> tuple[Episodes, Tensor]:
    """The tasks whose queries are the held-out supports, one place a class; and which places count, bool [B, N]."""
    counted = taken.any(2)
    place = taken.to(torch.uint8).argmax(2)
    batch, ways = place.shape
    rows = (torch.arange(batch)[:, None], torch.arange(ways)[None], place.cpu())
    query = _kept(Stream(support.x[rows], support.present[rows], support.length[rows]), counted)
    label = torch.arange(ways, device=place.device).expand(batch, ways).masked_fill(~counted, -1)
    task = _with_support(episodes, _kept(support, support.present & ~taken))
    (name,) = episodes.query
    return replace(task, query={name: query}, query_label=label), counted


def _with_support(episodes: Episodes, support: Stream) -> Episodes:
    """The same tasks with other supports of the only modality."""
    (name,) = episodes.support
    return replace(episodes, support={name: support})


def _kept(stream: Stream, present: Tensor) -> Stream:
    """The stream without the clips that are not in ``present``."""
    return Stream(stream.x * present[..., None, None].to(stream.x.dtype), present, stream.length * present)


def _first_least(loss: Tensor) -> Tensor:
    """The first row [B] at which each column of losses [G, B] is least, up to rounding."""
    least = loss <= loss.amin(0) + 1e-12
    return least.to(torch.uint8).argmax(0)
