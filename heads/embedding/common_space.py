"""Common space: a plain member of the family of joint embeddings that begins with DeViSE: A Deep Visual-Semantic
Embedding Model (Frome et al., NeurIPS 2013).

A tower a modality, and a map of the class words, is learned on batches of base clips, so that a clip seen, heard or
named lies in one place. Queries are decided by prototypes, nearest supports, words or a softmax head; supports and
queries may carry different modalities, and either may lack some. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..adaptation.linear_probe import LinearProbeSettings, Problem
from ..head import ClipTrainedHead, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.label_sets import LabelSets
from ..parts.names import module_name
from ..parts.objectives import OBJECTIVES, WITHOUT_LABELS, Points, masked_error, pairing
from ..parts.synthesis import Synthesis
from ..parts.tensors import class_means
from ..scoring.gram import FromGram, Products
from ..scoring.shortcut import Shortcut
from ..settings import Recipe
from .common_settings import CommonSpaceSettings
from .towers import DeeperHead, PooledTower, StepTower, blocks_of, held

_ADDED = "add_"  # The prefix of the settings that weigh further objectives.


class CommonSpace(ClipTrainedHead[CommonSpaceSettings]):
    Settings = CommonSpaceSettings
    recipe = Recipe(steps=1500, tasks=128, rate=1e-3, weight_decay=1e-4, evaluate_every=50, patience=10)
    maps: nn.ModuleDict
    steps_taken: Tensor | None

    def __init__(self, inputs: Inputs, settings: CommonSpaceSettings) -> None:
        super().__init__(inputs, settings)
        if settings.add_masked and settings.projection != "transformer":
            raise UsageError("add_masked hides steps from a transformer; set projection=transformer, too.")
        if settings.used_layer > settings.deeper:
            raise UsageError(
                f"used_layer={settings.used_layer} is behind the last of deeper={settings.deeper}."
            )
        self.maps = _towers(inputs, settings)
        words = None if settings.learned_anchors else inputs.word_dim
        self.word_map = PooledTower(words, settings) if words else None
        learned = None if words else torch.randn(max(inputs.base_classes, 1), settings.dim)
        self.anchors = None if learned is None else nn.Parameter(learned)
        self.deeper = DeeperHead(settings.dim, settings.deeper) if settings.deeper else None
        widths = {m: dim for m, (_, dim) in inputs.streams.items()}
        self.synthesis = (
            Synthesis(settings.synthetic, settings.synthetic_count, widths, max(inputs.base_classes, 1))
            if settings.synthetic != "none"
            else None
        )

        self.label_sets = LabelSets(max(inputs.base_classes, 1))
        in_turn = settings.schedule == "in_turn"  # Only then does a stored head hold its number of steps.
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64) if in_turn else None)

    def fit_base(self, base: FeatureBank) -> None:
        """Keeps what made-up supports need of base clips, and where clips have several labels, which sets these are.

        Raises UsageError where an objective or made-up supports need one label a clip.
        """
        if base.multi:
            self._check_objectives()
            self.label_sets.fit(base)
        if self.synthesis is None:
            return
        if base.multi:
            raise UsageError("Supports are made up from base clips with one label each; set synthetic=none.")
        self.synthesis.fit(base)

    def notes(self) -> list[str]:
        """A sentence where the decision had no turn in the state that was kept."""
        if self.steps_taken is None or self.steps_taken > self.settings.space_steps:
            return []
        return [
            f"The kept state is that of step {int(self.steps_taken)}, before the decision's turn (space_steps="
            f"{self.settings.space_steps}): training did not come to it, or accuracy on val classes did not rise in it."
        ]

    def _check_objectives(self) -> None:
        """Raise UsageError for objectives that have no form for several labels a clip."""
        asked = [self.settings.objective, *_added(self.settings)]
        if strange := [name for name in asked if name not in (*WITHOUT_LABELS, "softmax")]:
            raise UsageError(
                f"Objective {strange[0]!r} reads one label a clip, and these clips may have several; use softmax or "
                "simclr."
            )

    def place(self, streams: Mapping[str, Stream], layer: int | None = None) -> tuple[Tensor, Tensor]:
        """Where clips lie: unit vectors [..., dim], the mean over the modalities present; and whether any is [...].

        layer: the layer of the deeper head; None for the one that decisions read. Raises UsageError where there is no
        modality.
        """
        if not streams:
            raise UsageError("An episode carries no modality at all.")
        points = [self._point(m, stream, layer) * stream.present[..., None] for m, stream in streams.items()]
        present = torch.stack([stream.present for stream in streams.values()]).any(0)
        return F.normalize(torch.stack(points).sum(0), dim=-1), present

    def _point(self, modality: str, stream: Stream, layer: int | None) -> Tensor:
        """Where a modality alone places clips, unit vectors [..., dim]."""
        tower: Any = self.maps[module_name(modality)]
        return self._unit(tower.project(stream), layer)

    def _unit(self, x: Tensor, layer: int | None) -> Tensor:
        """Vectors [..., dim] of the space after a layer of the deeper head, of length one."""
        if self.deeper is not None:
            x = self.deeper(x, self.settings.used_layer if layer is None else layer)
        return F.normalize(x, dim=-1)

    def place_words(self, words: Tensor, layer: int | None = None) -> Tensor:
        """Where class words lie: unit vectors [..., dim]. Raises UsageError where the head has no word map."""
        if self.word_map is None:
            raise UsageError(
                "This common space was built without class words; extract a word stream, or use supports."
            )
        words = words.to(next(self.word_map.parameters()).dtype)
        return self._unit(self.word_map(F.normalize(words, dim=-1) * words.shape[-1] ** 0.5), layer)

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Raises UsageError where what the decision needs is missing."""
        query, query_present = self.place(episodes.query)
        decision = self.settings.decision
        if decision == "words" or (decision == "auto" and not episodes.shots):
            logits = self._cosine_to_words(query, episodes) / self.settings.temperature
            class_present = torch.ones_like(episodes.class_id, dtype=torch.bool)
            return neutral(logits, query_present, class_present)
        if not episodes.shots:
            raise UsageError(
                f"decision={decision} needs supports; use --k-shot 1 or more, or decision=words."
            )
        supports = episodes.support if self.synthesis is None else self.synthesis(episodes.support)
        support, support_present = self.place(supports)
        if decision == "softmax":
            logits = self._probe(query, support, support_present)
        else:
            measure = _cosine_to_nearest if decision == "nearest" else _cosine_to_mean
            logits = measure(query, support, support_present) / self.settings.temperature
        return neutral(logits, query_present, support_present.any(2))

    def _cosine_to_words(self, query: Tensor, episodes: Episodes) -> Tensor:
        if episodes.words is None:
            raise UsageError(
                "Deciding by words needs class words; extract a word stream or name one with --words."
            )
        return cosine(query, self.place_words(episodes.words))

    def _probe(self, query: Tensor, support: Tensor, present: Tensor) -> Tensor:
        """Logits [B, Q, N] of a softmax head that is fitted on the supports [B, N, K, dim]."""
        x = support.flatten(1, 2)
        gram, products = x @ x.transpose(1, 2), query @ x.transpose(1, 2)
        return self._fitted(gram, products, present)

    @torch.no_grad()
    def _fitted(self, gram: Tensor, products: Tensor, present: Tensor) -> Tensor:
        """The logits of a softmax head by inner products among supports [B, M, M] and with them [B, Q, M]."""
        alpha, offset = Problem(gram, present, LinearProbeSettings(c=self.settings.probe_c)).solve()
        return products @ alpha + offset

    def shortcuts(self) -> Iterator[Shortcut]:
        """With real supports alone logits follow from the inner products of where clips lie."""
        if self.settings.decision != "words" and self.synthesis is None:
            yield FromGram(logits=self._from_products, points=self._points)

    def _from_products(self, products: Products) -> Tensor:
        if self.settings.decision == "softmax":
            present = torch.ones_like(products.support, dtype=torch.bool)
            return self._fitted(products.among_supports, products.query_support.flatten(2), present)
        nearest = self.settings.decision == "nearest"
        value = products.query_support.amax(-1) if nearest else products.cosine_to_mean()
        return value / self.settings.temperature

    @torch.no_grad()
    def _points(self, bank: FeatureBank) -> Tensor:
        """Where all clips of a bank lie, [n, dim]."""
        rows = torch.arange(len(bank), device=bank.device)
        return self.place({m: table.gather(rows) for m, table in bank.tables.items()})[0]

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        """The weighted mean of the objectives of each modality alone and of whole clips, and the further terms.

        In the decision's turn it is that of cross-entropies, of which clips' places are no function.
        """
        if self.steps_taken is not None:
            self.steps_taken += int(self.training)
            if self.steps_taken > self.settings.space_steps:
                return self._decision_loss(clips, label, words)
        top, settings = self.settings.deeper, self.settings
        anchors = self._anchors(words, top)
        points, present = self._views(clips, top)
        second = self._views(clips, top)[0] if self._needs_two_views() else points
        parts = {
            name: self._objective(points[name], second[name], label, anchors, present[name])
            for name in points
        }
        total = self._weighted_mean(parts)
        if len(clips) > 1 and settings.between > 0:
            parts["between"] = self._between({m: points[m] for m in clips}, present)
            total = total + settings.between * parts["between"]
        if settings.add_masked > 0:
            parts["masked"] = self._masked(clips)
            total = total + settings.add_masked * parts["masked"]
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def _decision_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        """Cross-entropy over base classes in the layer that decisions read, with gradients for anchors or word map."""
        layer = self.settings.used_layer
        with torch.no_grad():
            points, present = self._views(clips, layer)
        with held(self.deeper):
            anchors = self._anchors(words, layer)
        parts = {
            name: self._term("softmax", self._batch(point, point, label, anchors, present[name]))
            if bool(present[name].any())
            else anchors.sum() * 0.0
            for name, point in points.items()
        }
        return Losses(
            self._weighted_mean(parts), {f"decision_{name}": value.detach() for name, value in parts.items()}
        )

    def _weighted_mean(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The mean of the losses of whole clips, of weight one, and of each modality alone."""
        weight = [1.0 if name == "clip" or len(parts) == 1 else self.settings.alone for name in parts]
        return torch.stack([w * value for w, value in zip(weight, parts.values())]).sum() / sum(weight)

    def _views(self, clips: Mapping[str, Stream], layer: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Where each modality alone, and with several also the whole clip, places a batch; and which are present."""
        points = {m: self._point(m, s, layer) for m, s in clips.items()}
        present = {m: s.present for m, s in clips.items()}
        if len(clips) > 1:
            points["clip"], present["clip"] = self.place(clips, layer)
        return points, present

    def _needs_two_views(self) -> bool:
        """Whether an objective compares two views of a clip."""
        return self.settings.objective == "simclr" or self.settings.add_simclr > 0

    def _anchors(self, words: Tensor | None, layer: int) -> Tensor:
        """A unit vector for each base class, [C, dim]: where its words lie after a layer, or a learned one."""
        if self.anchors is not None:
            return F.normalize(self.anchors, dim=-1)
        if words is None:
            raise UsageError("The base classes have no words; extract the word stream again.")
        return self.place_words(words, layer)

    def _objective(
        self, point: Tensor, second: Tensor, label: Tensor, anchors: Tensor, present: Tensor
    ) -> Tensor:
        """The chosen objective, plus the weighted further ones, of the present clips among points [M, dim]."""
        if not bool(present.any()):
            return anchors.sum() * 0.0
        batch = self._batch(point, second, label, anchors, present)
        value = self._term(self.settings.objective, batch)
        for name, weight in _added(self.settings).items():
            value = value + weight * self._term(name, batch)
        return value

    def _batch(
        self, point: Tensor, second: Tensor, label: Tensor, anchors: Tensor, present: Tensor
    ) -> Points:
        """The present clips as objectives see them."""
        return Points(
            point=point[present],
            label=label[present],
            anchors=anchors,
            second=second[present],
            temperature=self.settings.temperature,
            margin=self.settings.margin,
        )

    def _term(self, name: str, batch: Points) -> Tensor:
        """One objective; softmax over several label sets is a head a set, whose weights are its classes' anchors."""
        if name == "softmax" and batch.label.ndim == 2:
            return self.label_sets.loss(batch.point @ batch.anchors.T / batch.temperature, batch.label)
        return OBJECTIVES[name](batch)

    def _between(self, points: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """The pairing of the clips that carry both of two modalities; the mean over such pairs of modalities."""
        names, losses = list(points), []
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                both = present[a] & present[b]
                if both.sum() > 1:
                    losses.append(pairing(points[a][both], points[b][both], self.settings.temperature))
        return torch.stack(losses).mean() if losses else next(iter(points.values())).sum() * 0.0

    def _masked(self, clips: Mapping[str, Stream]) -> Tensor:
        """The error of hidden steps, as the mean over the modalities."""
        errors = []
        for m, stream in clips.items():
            tower: Any = self.maps[module_name(m)]
            chance = torch.rand(stream.mask().shape, device=stream.x.device)
            hidden = (chance < self.settings.mask_share) & stream.mask()
            said, true = tower.rebuilt(stream, hidden)
            errors.append(masked_error(said, true, hidden))
        return torch.stack(errors).mean()


def _towers(inputs: Inputs, settings: CommonSpaceSettings) -> nn.ModuleDict:
    """A tower for each modality."""
    shared = settings.trunk == "shared"
    if settings.projection == "pooled":
        last = nn.Linear(settings.hidden or settings.dim, settings.dim) if shared else None
        return nn.ModuleDict(
            {module_name(m): PooledTower(dim, settings, last) for m, (_, dim) in inputs.streams.items()}
        )
    trunk = blocks_of(settings) if shared else None
    return nn.ModuleDict(
        {
            module_name(m): StepTower(dim, steps, settings, trunk or blocks_of(settings))
            for m, (steps, dim) in inputs.streams.items()
        }
    )


def _added(settings: CommonSpaceSettings) -> dict[str, float]:
    """The weights of the further objectives of the table, by name, that are not zero."""
    named = {f.name.removeprefix(_ADDED): f.name for f in fields(settings) if f.name.startswith(_ADDED)}
    return {
        name: getattr(settings, field)
        for name, field in named.items()
        if name in OBJECTIVES and getattr(settings, field)
    }


def _cosine_to_mean(query: Tensor, support: Tensor, present: Tensor) -> Tensor:
    """Cosines [B, Q, N] of queries [B, Q, D] and the means of the present supports [B, N, K, D] of each class."""
    return cosine(query, class_means(support, present)[0])


def _cosine_to_nearest(query: Tensor, support: Tensor, present: Tensor) -> Tensor:
    """Cosines [B, Q, N] of queries [B, Q, D] and the nearest present support [B, N, K, D] of each class."""
    each = cosine(query, support.flatten(1, 2)).masked_fill(~present.flatten(1)[:, None], -2.0)
    return each.unflatten(-1, (support.shape[1], -1)).amax(-1)
