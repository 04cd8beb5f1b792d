"""Few-shot Egocentric Multimodal Activity Recognition (Pan et al., MMAsia 2021), our reconstruction.

A heterogeneous graph joins the steps of all modalities of a clip. A class begins as the mean of its supports, and a
knowledge-aware module propagates the classifiers' parameters between classes along a graph of their words; a query goes
to the classifier with the greatest cosine. Inductive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Stream
from ...errors import UsageError
from ..head import Inputs
from ..parts.absence import neutral
from ..parts.class_graph import NONE, WORDS, ClassGraph
from ..parts.distances import cosine
from ..parts.even_clips import all_clips, even_steps, in_a_row, levels, means_of_classes
from ..parts.growing import let_grow
from ..parts.names import module_name
from ..parts.tensors import class_means
from ..parts.whitened_clips import WhitenedClips
from ..scoring.once_per_whole_clip import Surroundings
from ..settings import Count, CountOrNone, Positive, Recipe, Settings, Share
from ..whole_clips import WholeClipHead
from .step_graph import StepGraphLayer

SLOPE = 0.2  # The slope of the leaky ReLU below zero.
NEVER = -1e4  # The weight, in logits, of an edge to a class that there is not.


@dataclass(frozen=True)
class FewShotEgocentricSettings(Settings):
    """The settings of the few-shot egocentric head."""

    graph: str = WORDS
    """The relations between classes: the likeness of words (words), a relation graph of the data set by its name
    (`fsmm cache graph`), or none: classifiers stay the means of supports."""
    association: bool = True
    """Join the steps of different modalities by edges; false: each modality has a graph of its own."""
    width: Count = 64
    """The width of the nodes."""
    layers: CountOrNone = 2
    """The number of layers of the heterogeneous graph; 0: none, and clips are what the training-free rule sees."""
    steps: Count = 8
    """The number of steps that every modality is brought to."""
    reach: CountOrNone = 1
    """How many steps apart in time associated steps of two modalities may lie."""
    bases: bool = True
    """Let the classifiers of base classes, the means of their clips, take part in the propagation."""
    sharpness: Positive = 5.0
    """The factor of the relations of classes before the softmax that makes edges of them."""
    start: bool = True
    """Begin at a training-free rule, cosines of whitened pooled features, to which the graph adds; false: the graph
    alone."""
    shrinkage: Share = 0.3
    """How far the scatter within base classes is drawn to a multiple of the identity, for that rule."""
    scale: Positive = 10.0
    """The factor (tau) of cosines."""


class Encoded(NamedTuple):
    """Clips as the head compares them: their codes [..., D]."""

    code: Tensor


class FewShotEgocentric(WholeClipHead[FewShotEgocentricSettings, Encoded]):
    Settings = FewShotEgocentricSettings
    recipe = Recipe(
        steps=150, tasks=8, query=5, rate=1e-3, weight_decay=1e-4, evaluate_every=25, evaluate_episodes=200
    )
    level: Tensor
    base_code: Tensor

    def __init__(self, inputs: Inputs, settings: FewShotEgocentricSettings) -> None:
        super().__init__(inputs, settings)
        widths = {m: dim for m, (_, dim) in inputs.streams.items()}
        width, words = settings.width, inputs.word_dim or 1
        self.whitened = WhitenedClips(widths, settings.shrinkage)
        self.graph = ClassGraph(words, settings.graph)
        self.enter = {m: nn.Linear(dim, width) for m, dim in widths.items()}
        self.enters = nn.ModuleDict({module_name(m): layer for m, layer in self.enter.items()})
        self.place = nn.Parameter(torch.zeros(settings.steps, width))
        self.layers = nn.ModuleList(
            StepGraphLayer(list(widths), width, association=settings.association)
            for _ in range(settings.layers)
        )
        self.add = nn.Linear(width, self.whitened.dim, bias=False)
        if settings.start:
            nn.init.zeros_(self.add.weight)
        self.gather = nn.Linear(self.whitened.dim + words, width, bias=False)
        self.spread = nn.Linear(width, self.whitened.dim, bias=False)
        nn.init.zeros_(self.spread.weight)
        self.register_buffer("level", torch.ones(len(widths)))
        self.register_buffer("base_code", torch.zeros(0, self.whitened.dim))
        let_grow(self, "base_code")

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Finds the whitening, the size of features, the words of the base classes and their first classifiers.

        Raises UsageError where class words are lacking.
        """
        self.graph.fit(base)
        self.whitened.fit(base)
        clips = all_clips(base)
        self.level = levels(clips, list(self.enter)).to(self.level)
        self.base_code = means_of_classes(self.whitened(clips), base)[0].to(self.base_code)

    def encode(self, clips: Mapping[str, Stream]) -> Encoded:
        """The codes of clips of any leading axes."""
        shape = next(iter(clips.values())).present.shape
        code = self._code(in_a_row(clips))
        return Encoded(code.unflatten(0, shape))

    def _code(self, clips: Mapping[str, Stream]) -> Tensor:
        """The codes [n, D] of clips in a row: what the rule makes of them, and the mean of all nodes of the graph."""
        like, steps = next(iter(clips.values())), self.settings.steps
        even = {
            m: even_steps(clips.get(m), like, (steps, self.inputs.streams[m][1]), self.level[i])
            for i, m in enumerate(self.enter)
        }
        present = {m: s.present for m, s in even.items()}
        h = {m: self.enter[m](s.x) + self.place for m, s in even.items()}
        for layer in self.layers:
            h = layer(h, present, self.settings.reach)
        there = torch.stack([present[m] for m in h]).to(self.level.dtype)[..., None]
        mean = torch.stack([x.mean(1) for x in h.values()])
        code = self.add((mean * there).sum(0) / there.sum(0).clamp(min=1))
        if not self.settings.layers:
            code = torch.zeros_like(code)
        return code + self.whitened(clips) if self.settings.start else code

    def compare(self, support: Encoded | None, query: Encoded, around: Surroundings) -> Tensor:
        """Logits [B, Q, N]: tau times the cosine to the propagated classifiers. Raises UsageError without supports."""
        if support is None:
            raise UsageError("The few-shot egocentric head needs supports; use --k-shot 1 or more.")
        mean, class_present = class_means(support.code, around.support_present)
        logits = self.settings.scale * cosine(query.code, self.propagated(mean, class_present, around))
        return neutral(logits, around.query_present, class_present)

    def propagated(self, own: Tensor, class_present: Tensor, around: Surroundings) -> Tensor:
        """w'_c = w_c + V lrelu(sum over classes of A U [w || words]), [B, N, D] of the means of supports w [B, N, D].

        class_present: which classes have a support, bool [B, N]; only these, and base classes, say anything.
        """
        if self.settings.graph == NONE:
            return own
        if around.words is None:
            raise UsageError(
                "The graph of classes needs class words; extract a word stream or name one with --words."
            )
        bases = self.graph.bases if self.settings.bases else 0
        relation, twice = self.graph.relations(around.words, around.class_id)
        known = self.base_code[:bases].expand(len(own), -1, -1)
        w = torch.cat([known, own], 1)
        there = torch.cat([~twice[:, :bases], class_present], 1)
        words = torch.cat(
            [self.graph.base_words[:bases].expand(len(own), -1, -1), self.graph.read(around.words)], 1
        )
        heat = self.settings.sharpness * relation[:, :, self.graph.bases - bases :]
        edge = torch.softmax(heat.masked_fill(~there[:, None], NEVER), -1) * there.any(-1)[:, None, None]
        heard = edge @ self.gather(torch.cat([w, words], -1))
        return own + self.spread(F.leaky_relu(heard, SLOPE))
