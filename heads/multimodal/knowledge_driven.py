"""Knowledge-driven Egocentric Multimodal Activity Recognition (Huang et al., TOMM 2020), our reconstruction.

Every modality has an LSTM whose global prediction wakes the nodes of a graph of activities and objects; the graph then
guides a second LSTM from above, step by step, and co-attention joins the modalities at every step (dual GC-LSTM). A
graph convolution over the words of classes makes their classifiers, to which supports are added. Inductive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.class_graph import NONE, WORDS, ClassGraph, Graph
from ..parts.class_rows import ClassRows
from ..parts.distances import cosine
from ..parts.even_clips import all_clips, even_steps, in_a_row, levels, means_of_classes
from ..parts.losses import cross_entropy
from ..parts.names import module_name
from ..parts.steps import resample
from ..parts.tensors import class_means
from ..parts.whitened_clips import WhitenedClips
from ..scoring.once_per_whole_clip import Surroundings
from ..settings import Count, NonNegative, Positive, Recipe, Settings, Share
from ..whole_clips import WholeClipHead
from .gc_lstm import DualGCLSTM


@dataclass(frozen=True)
class KnowledgeDrivenSettings(Settings):
    """The settings of the knowledge-driven head."""

    graph: str = WORDS
    """The relations of the graph: the likeness of words (words), a relation graph of the data set by its name
    (`fsmm cache graph`), or none: no guidance, and classifiers of the words alone."""
    objects: str = "object"
    """The modality whose features are the scores of the objects of a relation graph: it wakes nodes and is no stream of
    its own. Without a relation graph that has objects it is a stream as others are."""
    co_attention: bool = True
    """Weigh the modalities at every step by co-attention; false: all alike."""
    hidden: Count = 64
    """The width of the LSTMs and of the graph's hidden layer."""
    steps: Count = 8
    """The number of steps that every modality is brought to, so that steps of several can be joined."""
    start: bool = True
    """Begin at a training-free rule, cosines of whitened pooled features, to which LSTMs add; false: LSTMs alone."""
    shrinkage: Share = 0.3
    """How far the scatter within base classes is drawn to a multiple of the identity, for that rule."""
    penalty: Positive = 1.0
    """The ridge of the regression at which the classifiers begin, relative to the mean square of a node."""
    blend: NonNegative = 0.1
    """The weight of a class's graph-made classifier beside the mean of its supports, as it starts (it is learned)."""
    alone: NonNegative = 0.3
    """The weight of the global predictions of the modalities beside the joined one, in logits."""
    guess: NonNegative = 0.1
    """The weight of the cross-entropy of global predictions over base classes, in training."""
    scale: Positive = 10.0
    """The factor of cosines where it starts (it is learned)."""


class Encoded(NamedTuple):
    """Clips as the head compares them."""

    code: Tensor
    """The joined code, [..., D]."""
    own: list[Tensor]
    """The code of each modality alone, [..., D_m]."""
    state: list[Tensor]
    """The last state of each modality's own LSTM, [..., H]."""
    has: list[Tensor]
    """Whether a clip has each modality, bool [...]."""


class KnowledgeDriven(WholeClipHead[KnowledgeDrivenSettings, Encoded]):
    Settings = KnowledgeDrivenSettings
    recipe = Recipe(
        steps=150, tasks=8, query=5, rate=1e-3, weight_decay=1e-4, evaluate_every=25, evaluate_episodes=200
    )
    level: Tensor

    def __init__(self, inputs: Inputs, settings: KnowledgeDrivenSettings) -> None:
        super().__init__(inputs, settings)
        scored = settings.graph not in (WORDS, NONE) and settings.objects in inputs.streams
        self.scores = settings.objects if scored and len(inputs.streams) > 1 else None
        self.names = [m for m in inputs.streams if m != self.scores]
        widths = {m: dim for m, (_, dim) in inputs.streams.items()}
        hidden, words = settings.hidden, inputs.word_dim or 1
        self.joint = WhitenedClips(widths, settings.shrinkage)
        self.single = {m: WhitenedClips({m: widths[m]}, settings.shrinkage) for m in self.names}
        self.singles = nn.ModuleDict({module_name(m): part for m, part in self.single.items()})
        self.graph = ClassGraph(words, settings.graph)
        self.rows = ClassRows(words, self.joint.dim, hidden=hidden, penalty=settings.penalty)
        self.read = DualGCLSTM(
            {m: widths[m] for m in self.names},
            words,
            hidden,
            guided=settings.graph != NONE,
            co_attention=settings.co_attention,
        )
        self.add = nn.Linear(hidden, self.joint.dim, bias=False)
        self.add_own = {m: nn.Linear(hidden, widths[m], bias=False) for m in self.names}
        self.adds = nn.ModuleDict({module_name(m): layer for m, layer in self.add_own.items()})
        if settings.start:
            for layer in (self.add, *self.add_own.values()):
                nn.init.zeros_(layer.weight)
        self.blend = nn.Parameter(torch.tensor(settings.blend))
        self.log_scale = nn.Parameter(torch.tensor(settings.scale).log())
        self.register_buffer("level", torch.ones(len(self.names)))

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Finds the whitenings, the size of features, the graph of the base classes and the regression of classifiers.

        Raises UsageError where class words are lacking, or objects and their scores do not fit each other.
        """
        self.graph.fit(base)
        if self.scores is not None and self.graph.objects != base.tables[self.scores].dim:
            raise UsageError(
                f"Relation graph {self.settings.graph!r} has {self.graph.objects} objects and stream {self.scores!r} "
                f"has {base.tables[self.scores].dim} scores; make the graph with --objects in the order of the scores."
            )
        self.joint.fit(base)
        for part in self.single.values():
            part.fit(base)
        clips = all_clips(base)
        self.level = levels(clips, self.names).to(self.level)
        self.rows.fit(self.graph, *means_of_classes(self.joint(clips), base))

    def encode(self, clips: Mapping[str, Stream]) -> Encoded:
        """Clips of any leading axes, as they are compared."""
        shape = next(iter(clips.values())).present.shape
        flat = in_a_row(clips)
        like, steps = next(iter(flat.values())), self.settings.steps
        read = self.read(
            {
                m: even_steps(flat.get(m), like, (steps, self.inputs.streams[m][1]), self.level[i])
                for i, m in enumerate(self.names)
            },
            self.graph.memory(),
            self._object_scores(flat),
            self.graph.bases,
        )
        code = self.add(read.code)
        own = [self.add_own[m](state) for m, state in zip(self.names, read.last)]
        has = [flat[m].present if m in flat else torch.zeros_like(like.present) for m in self.names]
        if self.settings.start:
            code = code + self.joint(flat)
            own = [x + self.single[m](flat) if m in flat else x * 0.0 for m, x in zip(self.names, own)]
        own = [x * there[:, None].to(x.dtype) for x, there in zip(own, has)]
        back = lambda x: x.unflatten(0, shape)  # noqa: E731
        return Encoded(back(code), [*map(back, own)], [*map(back, read.last)], [*map(back, has)])

    def compare(self, support: Encoded | None, query: Encoded, around: Surroundings) -> Tensor:
        """Logits [B, Q, N]: the joined prediction, and ``alone`` times the mean of the modalities' global ones."""
        graph = self._graph_of(around)
        joined = self.log_scale.exp() * cosine(query.code, self._classifiers(graph, support, around))
        total, weight = torch.zeros_like(joined), torch.zeros_like(joined[..., :1])
        for i in range(len(self.names)):
            there = query.has[i][..., None].to(joined.dtype)
            total, weight = total + there * self._global(i, support, query, graph), weight + there
        logits = joined + self.settings.alone * total / weight.clamp(min=1)
        class_present = around.support_present.any(-1)
        if support is None:
            class_present = torch.ones_like(class_present)
        return neutral(logits, around.query_present, class_present)

    def loss(self, episodes: Episodes) -> Losses:
        """The cross-entropy of the episode, and ``guess`` times that of global predictions over the base classes."""
        support = self.encode(self._own(episodes.support)) if episodes.shots else None
        query, around = self.encode(self._own(episodes.query)), Surroundings.of(episodes)
        parts = {"ce": cross_entropy(self.compare(support, query, around), episodes.query_label)}
        if self.settings.guess and not episodes.multi:
            parts["global"] = self._guess(query, around, episodes.query_label)
        return Losses(parts["ce"] + self.settings.guess * parts.get("global", 0.0), parts)

    def _guess(self, query: Encoded, around: Surroundings, label: Tensor) -> Tensor:
        """The mean cross-entropy of the modalities' global predictions over base classes; 0 for classes of others."""
        same = self.graph.same(self.graph.read(_words(around)))
        of_class = torch.where(same.any(-1), same.to(torch.uint8).argmax(-1), -1)
        target = torch.where(label >= 0, torch.gather(of_class, 1, label.clamp(min=0)), -1)
        losses = []
        for m, state, has in zip(self.names, query.state, query.has):
            logits = self.read.streams[m].resembled(state, self.graph.base_words)
            counted = torch.where(has, target, -1)
            if bool((counted >= 0).any()):
                losses.append(cross_entropy(logits, counted))
        return torch.stack(losses).mean() if losses else query.code.sum() * 0.0

    def _graph_of(self, around: Surroundings) -> Graph:
        return self.graph.episode(_words(around), around.class_id)

    def _classifiers(self, graph: Graph, support: Encoded | None, around: Surroundings) -> Tensor:
        """w_c [B, N, D]: the graph's row of a class, to which the mean of its supports is added where it has any."""
        ways = around.class_id.shape[1]
        same = self.graph.same(graph.node[:, -ways:]) if self.training else None
        rows = self.rows(graph, ways, same)
        if support is None:
            return rows
        mean, _ = class_means(support.code, around.support_present)
        return mean + self.blend * rows

    def _global(self, i: int, support: Encoded | None, query: Encoded, graph: Graph) -> Tensor:
        """One modality's global prediction [B, Q, N]: its likeness to supports, or without them to the words."""
        if support is None:
            own = graph.node[:, self.graph.bases + self.graph.objects :]
            return self.read.streams[self.names[i]].resembled(query.state[i], own)
        mean, there = class_means(support.own[i], support.has[i])
        logits = self.log_scale.exp() * cosine(query.own[i], mean)
        return neutral(logits, query.has[i], there)

    def _object_scores(self, clips: Mapping[str, Stream]) -> Tensor | None:
        """How much of each object a step shows, [n, T, O]; None where there are no scores."""
        if self.scores is None or self.scores not in clips or not self.graph.objects:
            return None
        stream = clips[self.scores]
        scores = Stream(stream.x.to(self.level.dtype), stream.present, stream.length)
        return resample(scores, self.settings.steps).x


def _words(around: Surroundings) -> Tensor:
    """The class words [B, N, E]. Raises UsageError where there are none."""
    if around.words is None:
        raise UsageError(
            "The graph of classes needs class words; extract a word stream or name one with --words."
        )
    return around.words
