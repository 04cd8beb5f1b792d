"""ActAlign: zero-shot fine-grained recognition by aligning frames with ordered sub-actions (Aghdam et al., arXiv 2025).

A class is a list of short descriptions in the order in which they happen. The frames of a clip are aligned with them by
the path of greatest total affinity, and the class with the best mean affinity along its path wins. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..decided import Decided
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..scoring.shortcut import Shortcut
from ..scoring.words import FromWords
from ..settings import CountOrNone, Positive, Settings
from .word_weights import WordWeights, unit_clips


@dataclass(frozen=True)
class ActAlignSettings(Settings):
    """ActAlign's settings."""

    space: Literal["auto", "shared", "mapped"] = "auto"
    """Where class words lie: in the space of the features, M of them side by side ("shared"), or elsewhere, so that a
    ridge regression fitted to base classes maps them ("mapped"); "auto": shared where their width is M times that of
    the features."""
    scale: Positive | None = None
    """The factor of cosines in the affinity; none: 100 in a shared space, and for mapped words the one of least
    log-loss on base classes."""
    bias: float | None = None
    """What is added before the sigmoid, the encoder's own where it has one; none: minus the scaled mean cosine of base
    clips with base words, so that affinities lie about a half."""
    smooth: CountOrNone = 0
    """The steps of a moving average over a clip; 0: none, as in the released evaluation (30 in the paper)."""
    temperature: Positive = 0.01
    """What scores are divided by; it calibrates posteriors and changes no decision."""


class ActAlign(Head[ActAlignSettings]):
    """Class words of M times the features' width are M sub-actions in order, those of zeros left out at the end.

    Words of another width are one description a class, mapped by a ridge regression; a score is then a mean affinity.
    """

    Settings = ActAlignSettings
    decided: ClassVar[Mapping[str, Decided]] = dict.fromkeys(("word_ridge", "scale", "bias"), Decided("base"))
    bias: Tensor

    def __init__(self, inputs: Inputs, settings: ActAlignSettings) -> None:
        """Raises UsageError where there are no class words, or shared ones of a width that does not suit."""
        super().__init__(inputs, settings)
        dim, width = inputs.one()[2], inputs.word_dim
        if width is None:
            raise UsageError("ActAlign needs class words; name a word stream with --words.")
        if settings.space == "shared" and width % dim:
            raise UsageError(
                f"space=shared needs class words whose width is a multiple of the features', and they have {width} and "
                f"{dim} numbers; use space=mapped."
            )
        self.dim, shared = dim, width % dim == 0 and settings.space != "mapped"
        self.actions = width // dim if shared else 1
        self.words = WordWeights(width, dim, shared=shared, scale=settings.scale)
        self.register_buffer("bias", torch.tensor(settings.bias or 0.0, dtype=torch.float64))

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Fits the map of words, and the bias where it is not set."""
        unseen = self.words.fit(base)
        if self.settings.bias is None and unseen is not None:
            x, words = unit_clips(base)[0], unseen.unflatten(-1, (-1, self.dim)).flatten(0, 1)
            said = words[words.norm(dim=-1) > 0].to(x)
            if len(x) and len(said):
                near = x @ F.normalize(said, dim=-1).T
                self.bias.fill_(-float(self.words.scale) * float(near.mean()))

    def chosen(self) -> dict[str, Any]:
        """What base classes chose of the map of words, and the bias."""
        found = self.words.chosen()
        return found if self.settings.bias is not None else {**found, "bias": round(float(self.bias), 4)}

    def notes(self) -> list[str]:
        """That words are read as several sub-actions, where only their width says so."""
        if self.actions == 1 or self.settings.space == "shared":
            return []
        return [
            f"Class words are {self.actions} times as wide as features, and are read as {self.actions} sub-actions in "
            "the features' space; --set space=mapped where they are one vector from elsewhere."
        ]

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Raises UsageError where there are no class words."""
        if episodes.words is None:
            raise UsageError("ActAlign needs class words; name a word stream with --words.")
        _, query = single(episodes)
        x = query.x.to(work_dtype(query.x.dtype))
        words = self.words(episodes.words.to(x)).unflatten(-1, (-1, self.dim))
        score = self.scores(Stream(x, query.present, query.length), words)
        every_class = torch.ones_like(episodes.class_id, dtype=torch.bool)
        return neutral(score / self.settings.temperature, query.present, every_class)

    def shortcuts(self) -> Iterable[Shortcut]:
        """A clip and a class's words decide by themselves, so each of them meets the other once."""
        return (FromWords(head=self),)

    def scores(self, clips: Stream, words: Tensor) -> Tensor:
        """The mean affinity [B, Q, N] along the best path, of clips [B, Q, T, D] and sub-actions [B, N, M, D]."""
        affinity = self.affinity(clips.x, words)
        rows = clips.length.clamp(min=1)
        if self.settings.smooth and self.settings.smooth % 2 == 0:
            rows = (rows - 1).clamp(min=1)  # an even average is one step shorter
        columns = (words.norm(dim=-1) > 0).sum(-1).clamp(min=1)
        total, length = best_paths(affinity)
        row = (rows - 1)[:, :, None].expand(total.shape[2:])[None, None]
        column = (columns - 1)[:, None].expand(total.shape[2:])[None, None]
        steps, others = total.shape[:2]
        ends = row.expand(1, others, -1, -1, -1)
        total, length = (part.gather(0, ends.clamp(max=steps - 1)) for part in (total, length))
        return (total.gather(1, column) / length.gather(1, column))[0, 0]

    def affinity(self, x: Tensor, words: Tensor) -> Tensor:
        """sigmoid(scale cos + bias), [T, M, B, Q, N], of frames x [B, Q, T, D] and sub-actions [B, N, M, D]."""
        if self.settings.smooth:
            x = moving_average(x, self.settings.smooth)
        x, words = F.normalize(x, dim=-1), F.normalize(words, dim=-1)
        near = torch.einsum("bqtd,bnmd->tmbqn", x, words)
        return torch.sigmoid(float(self.words.scale) * near + float(self.bias))


def moving_average(x: Tensor, steps: int) -> Tensor:
    """The mean of ``steps`` neighbours of x [B, Q, T, D] over time, zeros beyond its ends; one step less if even."""
    flat = x.flatten(0, 1).transpose(1, 2)
    means = F.avg_pool1d(flat, steps, stride=1, padding=(steps - 1) // 2)
    return means.transpose(1, 2).unflatten(0, x.shape[:2])


def best_paths(affinity: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest total [T, M, *pairs] of a path from the first cell to each, and the cells on that path.

    affinity: [T, M, *pairs]. A path goes on by one step, by one sub-action, or by both; of equal ways both is taken
    before a step, and a step before a sub-action.
    """
    steps, others = affinity.shape[:2]
    one = torch.ones_like(affinity[0, 0])
    before: list[tuple[Tensor, Tensor]] = []
    rows: list[tuple[Tensor, Tensor]] = []
    for t in range(steps):
        row: list[tuple[Tensor, Tensor]] = []
        for m in range(others):
            ways = [before[m - 1]] if t and m else []
            ways += [before[m]] if t else []
            ways += [row[m - 1]] if m else []
            total, length = _best(ways) if ways else (torch.zeros_like(one), torch.zeros_like(one))
            row.append((affinity[t, m] + total, length + 1))
        rows.append((torch.stack([total for total, _ in row]), torch.stack([length for _, length in row])))
        before = row
    return torch.stack([total for total, _ in rows]), torch.stack([length for _, length in rows])


def _best(ways: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The first of the ways with the greatest total, pair by pair."""
    total, length = ways[0]
    for other, cells in ways[1:]:
        better = other > total
        total, length = torch.where(better, other, total), torch.where(better, cells, length)
    return total, length
