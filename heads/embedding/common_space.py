"""Common space: a plain member of the family of joint embeddings that begins with DeViSE: A Deep Visual-Semantic
Embedding Model (Frome et al., NeurIPS 2013).

A linear or one-hidden-layer map a modality, and one of the class words, is learned on batches of base clips, so that a
clip seen, heard or named lies in one place. Queries are decided by prototypes, nearest supports or words; supports and
queries may carry different modalities, and either may lack some. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import ClipTrainedHead, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.names import module_name
from ..parts.tensors import class_means
from ..scoring.gram import FromGram, Products
from ..scoring.shortcut import Shortcut
from ..settings import Count, CountOrNone, NonNegative, Positive, Rate, Recipe, Settings


@dataclass(frozen=True)
class CommonSpaceSettings(Settings):
    """The common space's settings."""

    dim: Count = 128
    """The width of the space."""
    hidden: CountOrNone = 0
    """The width of the hidden layer of each map; 0 for linear maps."""
    objective: Literal["softmax", "triplet", "infonce"] = "softmax"
    """Cross-entropy against all base classes' anchors, a triplet loss with the hardest wrong anchor, or InfoNCE (van
    den Oord et al. 2018) within the batch, where the clips of one class are positives."""
    margin: NonNegative = 0.2
    """The margin of the triplet loss."""
    between: NonNegative = 0.5
    """The weight of InfoNCE between the modalities of a clip."""
    temperature: Positive = 0.1
    """What cosines are divided by, in every loss and logit."""
    decision: Literal["auto", "prototype", "nearest", "words"] = "auto"
    """Queries are decided by class means, by nearest supports, by words, or (auto) by class means where there are
    supports and by words where there are none."""
    dropout: Rate = 0.1
    """The dropout of the maps' inputs."""
    learned_anchors: bool = False
    """The anchors of base classes are learned vectors even where words exist, which are then unused."""


class CommonSpace(ClipTrainedHead[CommonSpaceSettings]):
    Settings = CommonSpaceSettings
    recipe = Recipe(steps=1500, tasks=128, rate=1e-3, weight_decay=1e-4, evaluate_every=50, patience=10)
    maps: nn.ModuleDict

    def __init__(self, inputs: Inputs, settings: CommonSpaceSettings) -> None:
        super().__init__(inputs, settings)
        self.maps = nn.ModuleDict(
            {module_name(m): _map(dim, settings) for m, (_, dim) in inputs.streams.items()}
        )
        words = None if settings.learned_anchors else inputs.word_dim
        self.word_map = _map(words, settings) if words else None
        learned = None if words else torch.randn(max(inputs.base_classes, 1), settings.dim)
        self.anchors = None if learned is None else nn.Parameter(learned)

    def place(self, streams: Mapping[str, Stream]) -> tuple[Tensor, Tensor]:
        """Where clips lie: unit vectors [..., dim], the mean over the modalities present; and whether any is [...].

        Raises UsageError where there is no modality.
        """
        if not streams:
            raise UsageError("An episode carries no modality at all.")
        points = [
            F.normalize(self._project(m, stream), dim=-1) * stream.present[..., None]
            for m, stream in streams.items()
        ]
        present = torch.stack([stream.present for stream in streams.values()]).any(0)
        return F.normalize(torch.stack(points).sum(0), dim=-1), present

    def _project(self, modality: str, stream: Stream) -> Tensor:
        """The modality's map of clips, [..., dim]: unit features are brought to entries near one, as maps want."""
        layer = self.maps[module_name(modality)]
        x = stream.pooled().to(next(layer.parameters()).dtype)
        point: Tensor = layer(x * x.shape[-1] ** 0.5)
        return point

    def place_words(self, words: Tensor) -> Tensor:
        """Where class words lie: unit vectors [..., dim]. Raises UsageError where the head has no word map."""
        if self.word_map is None:
            raise UsageError(
                "This common space was built without class words; extract a word stream, or use supports."
            )
        words = words.to(next(self.word_map.parameters()).dtype)
        return F.normalize(self.word_map(F.normalize(words, dim=-1) * words.shape[-1] ** 0.5), dim=-1)

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Raises UsageError where what the decision needs is missing."""
        query, query_present = self.place(episodes.query)
        decision = self.settings.decision
        if decision == "words" or (decision == "auto" and not episodes.shots):
            cosines = self._cosine_to_words(query, episodes)
            class_present = torch.ones_like(episodes.class_id, dtype=torch.bool)
        elif not episodes.shots:
            raise UsageError(
                f"decision={decision} needs supports; use --k-shot 1 or more, or decision=words."
            )
        else:
            support, support_present = self.place(episodes.support)
            class_present = support_present.any(2)
            measure = _cosine_to_nearest if decision == "nearest" else _cosine_to_mean
            cosines = measure(query, support, support_present)
        return neutral(cosines / self.settings.temperature, query_present, class_present)

    def _cosine_to_words(self, query: Tensor, episodes: Episodes) -> Tensor:
        if episodes.words is None:
            raise UsageError(
                "Deciding by words needs class words; extract a word stream or name one with --words."
            )
        return cosine(query, self.place_words(episodes.words))

    def shortcuts(self) -> Iterator[Shortcut]:
        """With supports logits follow from the inner products of where clips lie."""
        if self.settings.decision != "words":
            yield FromGram(logits=self._from_products, points=self._points)

    def _from_products(self, products: Products) -> Tensor:
        nearest = self.settings.decision == "nearest"
        value = products.query_support.amax(-1) if nearest else products.cosine_to_mean()
        return value / self.settings.temperature

    @torch.no_grad()
    def _points(self, bank: FeatureBank) -> Tensor:
        """Where all clips of a bank lie, [n, dim]."""
        rows = torch.arange(len(bank), device=bank.device)
        return self.place({m: table.gather(rows) for m, table in bank.tables.items()})[0]

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        """The mean objective of each modality alone and of the clip as a whole, plus InfoNCE between modalities."""
        anchors = self._anchors(words)
        points = {m: F.normalize(self._project(m, s), dim=-1) for m, s in clips.items()}
        present = {m: s.present for m, s in clips.items()}
        parts = {m: self._objective(points[m][present[m]], label[present[m]], anchors) for m in points}
        if len(points) > 1:
            whole, any_present = self.place(clips)
            parts["clip"] = self._objective(whole[any_present], label[any_present], anchors)
        total = torch.stack(list(parts.values())).mean()
        if len(points) > 1 and self.settings.between > 0:
            parts["between"] = self._between(points, present)
            total = total + self.settings.between * parts["between"]
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def _anchors(self, words: Tensor | None) -> Tensor:
        """A unit vector for each base class, [C, dim]: where its words lie, or a learned one."""
        if self.anchors is not None:
            return F.normalize(self.anchors, dim=-1)
        if words is None:
            raise UsageError("The base classes have no words; extract the word stream again.")
        return self.place_words(words)

    def _objective(self, point: Tensor, label: Tensor, anchors: Tensor) -> Tensor:
        """The chosen objective of points [M, dim] of base clips, their labels [M] and anchors [C, dim]."""
        if not len(point):
            return anchors.sum() * 0.0
        similarity = point @ anchors.T
        settings = self.settings
        if settings.objective == "softmax":
            return F.cross_entropy(similarity / settings.temperature, label)
        right = similarity.gather(1, label[:, None])
        if settings.objective == "triplet":
            wrong = similarity.scatter(1, label[:, None], -2.0).amax(1, keepdim=True)
            return (settings.margin + wrong - right).clamp(min=0).mean()
        logits = anchors[label] @ point.T / settings.temperature
        same = label[:, None] == label[None]
        # Every clip of the class is a positive; their log-probabilities are averaged.
        log_p = F.log_softmax(logits, -1)
        return -(log_p * same).sum(1).div(same.sum(1)).mean()

    def _between(self, points: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """InfoNCE over the clips that carry both of two modalities, in both directions; the mean over such pairs."""
        names, losses = list(points), []
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                both = present[a] & present[b]
                if both.sum() > 1:
                    logits = points[a][both] @ points[b][both].T / self.settings.temperature
                    target = torch.arange(len(logits), device=logits.device)
                    losses.append((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2)
        return torch.stack(losses).mean() if losses else next(iter(points.values())).sum() * 0.0


def _map(width: int, settings: CommonSpaceSettings) -> nn.Module:
    """A map of vectors [..., width] into the space, [..., dim]: linear, or with one hidden layer."""
    if not settings.hidden:
        return nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(width, settings.dim))
    return nn.Sequential(
        nn.Dropout(settings.dropout),
        nn.Linear(width, settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, settings.dim),
    )


def _cosine_to_mean(query: Tensor, support: Tensor, present: Tensor) -> Tensor:
    """Cosines [B, Q, N] of queries [B, Q, D] and the means of the present supports [B, N, K, D] of each class."""
    return cosine(query, class_means(support, present)[0])


def _cosine_to_nearest(query: Tensor, support: Tensor, present: Tensor) -> Tensor:
    """Cosines [B, Q, N] of queries [B, Q, D] and the nearest present support [B, N, K, D] of each class."""
    each = cosine(query, support.flatten(1, 2)).masked_fill(~present.flatten(1)[:, None], -2.0)
    return each.unflatten(-1, (support.shape[1], -1)).amax(-1)
