"""RAGPT: prompts from retrieved clips for clips that lack a modality (AAAI 2025, arXiv 2501.01120), before ProtoNet.

A clip finds the base clips that are most like it in the modalities that it has. Their tokens give those of a modality
that it lacks, by a learned filter over positions; what its own tokens find in theirs, and the mean of the embeddings
of their labels, are prompts for a transformer over all tokens. Inductive: no query serves another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.losses import cross_entropy
from ..parts.names import module_name
from ..parts.positions import sinusoid
from ..parts.retrieved_tokens import PromptAttention, TokenGenerator
from ..parts.steps import stretched
from ..parts.tensors import class_means
from ..parts.token_block import TokenBlock
from ..scoring.gram import FromGram, Products
from ..scoring.shortcut import Shortcut
from ..settings import Count, CountOrNone, Positive, Rate, Recipe, Settings

EMBEDDED_AT_ONCE = 64  # This many clips of a test are embedded at once.
SAME = 1 - 1e-6  # A base clip with a greater cosine than this is the clip itself.


@dataclass(frozen=True)
class RAGPTSettings(Settings):
    """RAGPT's settings."""

    neighbours: Count = 5
    """The number of base clips that a clip finds."""
    memory: Count = 256
    """The most base clips with all modalities that are kept to be found, as many of each class."""
    token: Count = 64
    """The width of the tokens."""
    layers: Count = 1
    """The blocks of the transformer."""
    heads: Count = 4
    """The attention heads of a block."""
    dropout: Rate = 0.2
    """The dropout of tokens, blocks and the generator's filter."""
    generate: bool = True
    """Generate the tokens of a modality that a clip lacks; false: the transformer does without them."""
    prompt: CountOrNone = 1
    """The prompts that a modality's tokens find in those of the base clips; 0 for none."""
    label_prompt: bool = True
    """Prompt the transformer with the labels of the base clips, too."""
    classes: Count = 1024
    """The most base classes that have a label embedding."""
    lost: Rate = 0.5
    """The share of the training clips of which a random modality is taken; 0.7 as published."""
    scale: Positive = 10.0
    """The factor of minus the squared distance in logits."""


class Found(NamedTuple):
    """The base clips that clips find."""

    row: Tensor
    """Their rows in the memory, int64 [..., k]."""
    known: Tensor
    """Whether there is such a base clip, bool [..., k]."""


class RAGPT(Head[RAGPTSettings]):
    Settings = RAGPTSettings
    recipe = Recipe(
        steps=100,
        tasks=4,
        query=5,
        rate=1e-3,
        optimiser="adamw",
        weight_decay=2e-2,
        mix=0.5,
        evaluate_every=25,
        evaluate_episodes=200,
        patience=4,
    )

    label: Tensor
    known: Tensor

    def __init__(self, inputs: Inputs, settings: RAGPTSettings) -> None:
        super().__init__(inputs, settings)
        own, streams = settings, inputs.streams
        for m, (steps, dim) in streams.items():
            self.register_buffer(f"memory_{module_name(m)}", torch.zeros(own.memory, steps, dim))
        self.register_buffer("label", torch.zeros(own.memory, dtype=torch.int64))
        self.register_buffer("known", torch.zeros(own.memory, dtype=torch.bool))
        names = {module_name(m): shape for m, shape in streams.items()}
        self.enter = nn.ModuleDict({m: nn.Linear(dim, own.token) for m, (_, dim) in names.items()})
        self.generator = nn.ModuleDict(
            {m: TokenGenerator(steps, own.token, own.dropout) for m, (steps, _) in names.items()}
        )
        self.prompter = nn.ModuleDict(
            {m: PromptAttention(own.token, own.prompt) for m in names} if own.prompt else {}
        )
        self.label_code = nn.Embedding(own.classes, own.token) if own.label_prompt else None
        self.blocks = nn.ModuleList(
            TokenBlock(own.token, own.heads, 0, 2 * own.token, own.dropout) for _ in range(own.layers)
        )
        self.drop = nn.Dropout(own.dropout)
        self.leave = nn.Linear(own.token, sum(dim for _, dim in streams.values()))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def fit_base(self, base: FeatureBank) -> None:
        """Keeps base clips with all modalities, the first of each class, then the second, as far as the memory goes.

        Raises UsageError where there are more base classes than label embeddings.
        """
        if self.label_code is not None and len(base.class_names) > self.settings.classes:
            raise UsageError(
                f"There are {len(base.class_names)} base classes and {self.settings.classes} label embeddings; use "
                f"--set classes={len(base.class_names)}, or --set label_prompt=false."
            )
        whole = torch.stack([t.present for t in base.tables.values()]).all(0).nonzero()[:, 0]
        label = torch.zeros_like(whole) if base.multi else base.label[whole]
        rows = whole[torch.argsort(_turn(label), stable=True)[: self.settings.memory]]
        self.known.copy_(torch.arange(len(self.known), device=self.known.device) < len(rows))
        self.label[: len(rows)] = 0 if base.multi else base.label[rows]
        for m, table in base.tables.items():
            clips = stretched(table.gather(rows), self.inputs.streams[m][0])
            self.memory_of(m)[: len(rows)] = clips.x.to(self.memory_of(m))

    def memory_of(self, modality: str) -> Tensor:
        """The features of a modality of the kept base clips, [R, T, D]."""
        return self.get_buffer(f"memory_{module_name(modality)}")

    def forward(self, episodes: Episodes) -> Tensor:
        support, support_present = self.embed(episodes.support)
        query, query_present = self.embed(episodes.query)
        logits = -squared_distances(query, class_means(support, support_present)[0])
        return neutral(self.settings.scale * logits, query_present, support_present.any(2))

    def loss(self, episodes: Episodes) -> Losses:
        """The cross-entropy of episodes in which some clips have lost a modality."""
        lost = replace(episodes, support=self._robbed(episodes.support), query=self._robbed(episodes.query))
        value = cross_entropy(self(lost), episodes.query_label)
        return Losses(value, {"ce": value})

    def _robbed(self, clips: dict[str, Stream]) -> dict[str, Stream]:
        """The clips, of which a share lacks a random one of the modalities if they have all of them."""
        present = torch.stack([s.present for s in clips.values()])
        chosen = torch.randint(len(clips), present.shape[1:], device=present.device)
        gone = present.all(0) & (torch.rand(chosen.shape, device=present.device) < self.settings.lost)
        return {m: _without(s, gone & (chosen == i)) for i, (m, s) in enumerate(clips.items())}

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each clip is embedded once, and scores are read from products."""
        return (FromGram(logits=self._scores_from_products, points=self.points),)

    @torch.no_grad()
    def points(self, bank: FeatureBank) -> Tensor:
        """The embedded clips of a bank [n, D]."""
        rows = torch.arange(len(bank), device=bank.device).split(EMBEDDED_AT_ONCE)
        return torch.cat([self.embed({m: t.gather(r) for m, t in bank.tables.items()})[0] for r in rows])

    def _scores_from_products(self, products: Products) -> Tensor:
        return -self.settings.scale * products.squared_distance_to_mean()

    def embed(self, streams: Mapping[str, Stream]) -> tuple[Tensor, Tensor]:
        """Clips as vectors [..., D], and which of them have any modality, bool [...].

        A vector is the modalities' mean features side by side, those of the base clips' where one is missing, plus a
        map of what the transformer makes of the tokens, which begins at zero.
        """
        clips = self._ordered(streams)
        present = torch.stack([s.present for s in clips.values()]).any(0)
        cosines = {m: self._cosines(m, s) for m, s in clips.items()}
        together = torch.stack(list(cosines.values())).sum(0)
        found = {
            m: self._found(torch.where(s.present[..., None], cosines[m], together)) for m, s in clips.items()
        }
        plain = torch.cat([self._pooled(m, s, found[m]) for m, s in clips.items()], -1)
        joint = plain + self.leave(self._read(clips, found, self._found(together)))
        return joint * present[..., None].to(joint.dtype), present

    def _ordered(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """The head's modalities of clips, of its numbers of steps; absent where the clips do not carry them.

        Raises UsageError where they carry none.
        """
        like = next((s for m, s in streams.items() if m in self.inputs.streams), None)
        if like is None:
            raise UsageError(
                f"This head was built for {', '.join(self.inputs.streams)}; none of them is in the task."
            )
        held = {}
        for m, (steps, dim) in self.inputs.streams.items():
            given = streams.get(m)
            if given is None:
                x = like.x.new_zeros((*like.present.shape, steps, dim))
                given = Stream(x, torch.zeros_like(like.present), torch.zeros_like(like.length))
            held[m] = stretched(given.to(given.x.device, self.leave.weight.dtype), steps)
        return held

    def _cosines(self, modality: str, clips: Stream) -> Tensor:
        """The cosines [..., R] of clips and the kept base clips in one modality; zero for clips that lack it."""
        memory = F.normalize(self.memory_of(modality).mean(-2).to(clips.x), dim=-1)
        cosine = F.normalize(clips.pooled(), dim=-1) @ memory.T
        return cosine.masked_fill((cosine > SAME) | ~self.known, -torch.inf).masked_fill(
            ~clips.present[..., None], 0.0
        )

    def _found(self, cosine: Tensor) -> Found:
        """The base clips with the greatest values [..., R]."""
        cosine = cosine.masked_fill(~self.known, -torch.inf)
        value, row = cosine.topk(min(self.settings.neighbours, cosine.shape[-1]), dim=-1)
        return Found(row, value > -torch.inf)

    def _pooled(self, modality: str, clips: Stream, found: Found) -> Tensor:
        """The mean features [..., D] of clips, or of the base clips that they found."""
        near = self.memory_of(modality).mean(-2).to(clips.x)[found.row]
        weight = found.known[..., None].to(near.dtype)
        stand_in = F.normalize((near * weight).sum(-2), dim=-1)
        return torch.where(clips.present[..., None], clips.pooled(), stand_in)

    def _read(self, clips: Mapping[str, Stream], found: Mapping[str, Found], all_found: Found) -> Tensor:
        """What the transformer makes of prompts and tokens, their mean [..., token]."""
        tokens, valid = [], []
        for m, stream in clips.items():
            for token, there in self._tokens(m, stream, found[m]):
                tokens.append(token)
                valid.append(there)
        if self.label_code is not None:
            code = self.label_code(self.label)[all_found.row] * all_found.known[..., None]
            tokens.append(code.mean(-2, keepdim=True))
            valid.append(all_found.known.any(-1, keepdim=True))
        x, there = self.drop(torch.cat(tokens, -2)), torch.cat(valid, -1)
        for block in self.blocks:
            x = block(x, there)
        weight = there[..., None].to(x.dtype)
        mean: Tensor = (x * weight).sum(-2) / weight.sum(-2).clamp(min=1)
        return mean

    def _tokens(self, modality: str, clips: Stream, found: Found) -> Iterable[tuple[Tensor, Tensor]]:
        """The tokens [..., n, token] of a modality and its prompts, each with which of them count, bool [..., n]."""
        name, own = module_name(modality), self.settings
        gain = clips.x.shape[-1] ** 0.5
        memory = self.enter[name](self.memory_of(modality).to(clips.x) * gain)
        near = memory[found.row] * found.known[..., None, None].to(memory.dtype)
        mine, mask = self.enter[name](clips.x * gain), clips.mask()
        if own.generate:
            lacking = ~clips.present[..., None]
            mine = torch.where(lacking[..., None], self.generator[name](near), mine)
            mask = mask | (lacking & found.known.any(-1, keepdim=True))
        yield mine + sinusoid(mine.shape[-2], mine), mask
        if own.prompt:
            prompts = self.prompter[name](mine, near)
            yield prompts, (mask.any(-1) & found.known.any(-1))[..., None].expand(prompts.shape[:-1])


def _turn(label: Tensor) -> Tensor:
    """How many clips of its own class stand before each clip, int64 [n], by their classes [n].

    >>> _turn(torch.tensor([4, 7, 4, 4, 7])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = torch.argsort(label, stable=True)
    first = torch.searchsorted(label[order], label[order])
    turn = torch.empty_like(label)
    turn[order] = torch.arange(len(label), device=label.device) - first
    return turn


def _without(stream: Stream, gone: Tensor) -> Stream:
    """The stream without the clips that are gone, bool [...]."""
    kept = stream.present & ~gone
    return Stream(stream.x * kept[..., None, None].to(stream.x.dtype), kept, stream.length * kept)
