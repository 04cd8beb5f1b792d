"""Common space: each modality, and the class words, through its own projection into one space.

The plain member of the family of joint embeddings (DeViSE, Frome et al., NeurIPS 2013, and its audio-visual kin): a
linear or one-hidden-layer map a modality, learned on batches of base clips, so that a clip seen, heard or named lies
in one place. Queries are decided by prototypes, nearest supports or words; supports and queries may carry different
modalities, and either may lack some. Inductive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.tensors import class_means
from ..scoring.gram import query_support, to_sums
from ..settings import Recipe, Settings

LOSSES = ("softmax", "triplet", "infonce")
DECISIONS = ("auto", "prototype", "nearest", "words")


@dataclass(frozen=True)
class CommonSpaceSettings(Settings):
    """dim: width of the space. hidden: width of the hidden layer of each map; 0 for linear maps.

    objective: "softmax" (cross-entropy against all base classes' anchors), "triplet" (hardest wrong anchor, margin
        ``margin``) or "infonce" (van den Oord et al. 2018, within the batch, clips of one class being positives).
    between: weight of InfoNCE between the modalities of a clip. temperature: of cosines, in every loss and logit.
    decision: "prototype", "nearest", "words", or "auto": prototypes where there are supports, else words.
    learned_anchors: class anchors are learned vectors even when words exist (words are then unused).
    """

    dim: int = 128
    hidden: int = 0
    objective: str = "softmax"
    margin: float = 0.2
    between: float = 0.5
    temperature: float = 0.1
    decision: str = "auto"
    dropout: float = 0.1
    learned_anchors: bool = False


class CommonSpace(Head):
    settings_class = CommonSpaceSettings
    recipe = Recipe(steps=1500, tasks=128, rate=1e-3, weight_decay=1e-4, evaluate_every=50, patience=10)
    batchwise = True
    light = True
    maps: nn.ModuleDict

    def __init__(self, inputs: Inputs, settings: CommonSpaceSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        if own.objective not in LOSSES or own.decision not in DECISIONS:
            raise UsageError(
                f"objective is one of {', '.join(LOSSES)} and decision one of {', '.join(DECISIONS)}; "
                f"got {own.objective!r} and {own.decision!r}."
            )
        self.inner_products = own.decision != "words"
        self.maps = nn.ModuleDict({_key(m): self._map(dim) for m, (_, dim) in inputs.streams.items()})
        uses_words = inputs.word_dim is not None and not own.learned_anchors
        self.word_map = self._map(inputs.word_dim) if uses_words and inputs.word_dim else None
        self.anchors = None if uses_words else nn.Parameter(torch.randn(max(inputs.base_classes, 1), own.dim))

    def _map(self, width: int) -> nn.Module:
        own = self.settings
        if not own.hidden:
            return nn.Sequential(nn.Dropout(own.dropout), nn.Linear(width, own.dim))
        return nn.Sequential(
            nn.Dropout(own.dropout),
            nn.Linear(width, own.hidden),
            nn.ReLU(),
            nn.Dropout(own.dropout),
            nn.Linear(own.hidden, own.dim),
        )

    def place(self, streams: Mapping[str, Stream]) -> tuple[Tensor, Tensor]:
        """Where clips lie: unit vectors [..., dim], the mean over the modalities present; and whether any is."""
        total, count = None, None
        for m, stream in streams.items():
            point = F.normalize(self._project(m, stream), dim=-1)
            here = stream.present[..., None].to(point.dtype)
            point = point * here
            total, count = (point, here) if total is None or count is None else (total + point, count + here)
        if total is None or count is None:
            raise UsageError("An episode carries no modality at all.")
        return F.normalize(total, dim=-1), count[..., 0] > 0

    def _project(self, modality: str, stream: Stream) -> Tensor:
        # unit features have entries near 1/sqrt(D); the maps want entries near one
        layer = self.maps[_key(modality)]
        x = stream.pooled().to(next(layer.parameters()).dtype)
        return layer(x * x.shape[-1] ** 0.5)

    def name(self, words: Tensor) -> Tensor:
        """Where class words lie: unit vectors [..., dim]. Raises UsageError where the head has no word map."""
        if self.word_map is None:
            raise UsageError(
                "This common space was built without class words; extract a word stream, or use supports."
            )
        words = words.to(next(self.word_map.parameters()).dtype)
        return F.normalize(self.word_map(F.normalize(words, dim=-1) * words.shape[-1] ** 0.5), dim=-1)

    def forward(self, episodes: Episodes) -> Tensor:
        query, query_present = self.place(episodes.query)
        decision = self.settings.decision
        if decision == "auto":
            decision = "prototype" if episodes.shots else "words"
        if decision == "words":
            if episodes.words is None:
                raise UsageError(
                    "Deciding by words needs class words; extract a word stream or name one with --words."
                )
            known = torch.ones(episodes.class_id.shape, dtype=torch.bool, device=episodes.device)
            return neutral(
                cosine(query, self.name(episodes.words)) / self.settings.temperature, query_present, known
            )
        if not episodes.shots:
            raise UsageError(
                f"decision={decision} needs supports; use --k-shot 1 or more, or decision=words."
            )
        support, present = self.place(episodes.support)
        known = present.any(2)
        if decision == "prototype":
            prototype, _ = class_means(support, present)
            return neutral(cosine(query, prototype) / self.settings.temperature, query_present, known)
        similarity = cosine(query, support.flatten(1, 2)).masked_fill(~present.flatten(1)[:, None], -2.0)
        nearest = similarity.unflatten(-1, (episodes.ways, -1)).amax(-1)
        return neutral(nearest / self.settings.temperature, query_present, known)

    @torch.no_grad()
    def points(self, bank: FeatureBank) -> Tensor | None:
        """Where all clips lie."""
        rows = torch.arange(len(bank), device=bank.device)
        return self.place({m: table.gather(rows) for m, table in bank.tables.items()})[0]

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        nearest = self.settings.decision == "nearest"
        value = query_support(gram, index).amax(-1) if nearest else to_sums(gram, index)
        return value / self.settings.temperature

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        """The objective for each modality alone and for the clip as a whole, plus InfoNCE between modalities."""
        anchors = self._anchors(words)
        points = {m: F.normalize(self._project(m, s), dim=-1) for m, s in clips.items()}
        present = {m: s.present for m, s in clips.items()}
        parts = {f"{m}": self._objective(points[m][present[m]], label[present[m]], anchors) for m in points}
        if len(points) > 1:
            whole, any_present = self.place(clips)
            parts["clip"] = self._objective(whole[any_present], label[any_present], anchors)
        total = torch.stack(list(parts.values())).mean()
        if len(points) > 1 and self.settings.between > 0:
            parts["between"] = self._between(points, present)
            total = total + self.settings.between * parts["between"]
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def _anchors(self, words: Tensor | None) -> Tensor:
        """One unit vector a base class [C, dim]: its words' place, or a learned one."""
        if self.anchors is not None:
            return F.normalize(self.anchors, dim=-1)
        if words is None:
            raise UsageError("The base classes have no words; extract the word stream again.")
        return self.name(words)

    def _objective(self, point: Tensor, label: Tensor, anchors: Tensor) -> Tensor:
        if not len(point):
            return anchors.sum() * 0.0
        similarity = point @ anchors.T
        own = self.settings
        if own.objective == "softmax":
            return F.cross_entropy(similarity / own.temperature, label)
        right = similarity.gather(1, label[:, None])
        if own.objective == "triplet":
            wrong = similarity.scatter(1, label[:, None], -2.0).amax(1, keepdim=True)
            return (own.margin + wrong - right).clamp(min=0).mean()
        logits = anchors[label] @ point.T / own.temperature
        same = label[:, None] == label[None]
        # every clip of the class is a positive: mean log-probability over them
        log_p = F.log_softmax(logits, -1)
        return -(log_p * same).sum(1).div(same.sum(1)).mean()

    def _between(self, points: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """InfoNCE over the clips that carry both, both directions, mean over pairs of modalities."""
        names, losses = list(points), []
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                both = present[a] & present[b]
                if both.sum() > 1:
                    logits = points[a][both] @ points[b][both].T / self.settings.temperature
                    target = torch.arange(len(logits), device=logits.device)
                    losses.append((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2)
        return torch.stack(losses).mean() if losses else next(iter(points.values())).sum() * 0.0


def _key(modality: str) -> str:
    """Module names hold no dots or slashes."""
    return modality.replace("/", "__").replace(".", "_")
