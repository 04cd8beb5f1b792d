"""TRX: Temporal-Relational CrossTransformers (Perrett, Masullo, Burghardt, Mirmehdi and Damen, CVPR 2021).

A clip is the set of its ordered frame tuples. Each tuple of the query attends to all tuples of all supports of a class
at once, and what it gathers there is that class's prototype for this tuple. The class nearest on average over the
query's tuples wins; several tuple lengths (cardinalities) are averaged. Inductive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs, Scorer
from ..parts.absence import neutral
from ..parts.positions import sinusoid
from ..parts.steps import at_least
from ..parts.tensors import single
from ..scoring.once_per_clip import KEPT_BYTES, in_parts
from ..settings import Recipe, Settings


@dataclass(frozen=True)
class TRXSettings(Settings):
    """cardinalities: tuple lengths. width: of keys and values. position: weight of the position code.

    level: scale each clip so that its mean step has unit length, as pooled features have: otherwise clips whose steps
        differ much are short, and distances say more about that than about content.
    rescale: multiply the features by sqrt(D), the scale that the position code was chosen for.
    scale: multiplies the logits, which are divided by D again after a rescale (1 in the paper).
    sharpness: where the gain of the keys' normalisation begins; 1 in the paper, near 0 attention begins uniform and the
        untrained head is close to ProtoNet.
    orthogonal: values begin as an isometry (or a projection); False: torch's usual random numbers.
    memory: MiB that the tuple pairs of one pass may take; above it queries are scored in parts.
    """

    cardinalities: tuple[int, ...] = (2, 3)
    width: int = 1152
    position: float = 0.1
    dropout: float = 0.1
    level: bool = True
    rescale: bool = True
    scale: float = 10.0
    sharpness: float = 0.7
    orthogonal: bool = True
    memory: int = 64


class TupleHead(Head):
    """TRX and what is built on it: logits are ``factor`` times those of ``tuples`` over clips as they are ``seen``."""

    sequences = True
    all_cores = True
    pairwise = True
    steps: int
    stretch: float
    tuples: CrossTransformers

    def seen(self, stream: Stream) -> Stream:
        """Clips as the tuples take them, but for the position code."""
        return scaled(stream, self.settings.level, self.stretch, self.tuples.dtype)

    @property
    def factor(self) -> float:
        """Of the logits."""
        return float(self.settings.scale / self.stretch**2)

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = (self.seen(s) for s in single(episodes))
        return neutral(self.factor * self.tuples(support, query), query.present, support.present.any(2))

    def prepared(self, bank: FeatureBank) -> Scorer | None:
        """Frames are mapped once."""
        if not self.keeps(bank):
            return None
        kept = self._kept(bank)

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            support, query = (rows.to(bank.device) for rows in (index.support, index.query))
            return self.factor * self.tuples.of_kept(kept, support, query).float()

        return Scorer(score)

    def pair_scores(self, bank: FeatureBank) -> Callable[[Tensor, Tensor], Tensor]:
        if not self.keeps(bank):
            return super().pair_scores(bank)
        kept = self._kept(bank)

        def score(rows: Tensor, columns: Tensor) -> Tensor:
            return self.factor * self.tuples.of_kept(kept, columns[None, :, None], rows[None])[0].float()

        return score

    @torch.no_grad()
    def _kept(self, bank: FeatureBank) -> list[Tuples]:
        return self.tuples.kept([self.seen(clips) for clips in in_parts(bank)])

    def keeps(self, bank: FeatureBank) -> bool:
        """Whether the mapped frames of all clips fit ``KEPT_BYTES``."""
        slots = sum(max(self.steps, *self.settings.cardinalities) * c for c in self.settings.cardinalities)
        return len(bank) * slots * self.settings.width * 8 <= KEPT_BYTES

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        return pair_bytes(self.steps, self.settings.cardinalities, ways * shots) * queries


class TRX(TupleHead):
    settings_class = TRXSettings
    recipe = Recipe(
        steps=120, tasks=4, query=5, rate=1e-4, evaluate_every=30, evaluate_episodes=100, patience=3, mix=0.5
    )

    def __init__(self, inputs: Inputs, settings: TRXSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        _, self.steps, dim = inputs.one()
        self.stretch = dim**0.5 if own.rescale else 1.0
        self.tuples = CrossTransformers(
            dim, own.cardinalities, own.width, own.position, own.dropout, own.memory
        )
        self.tuples.begin(own.sharpness, own.orthogonal)


def scaled(stream: Stream, level: bool, stretch: float, dtype: torch.dtype) -> Stream:
    """The stream in the weights' dtype, times ``stretch``; ``level``: each clip over the length of its mean step."""
    stream = stream.to(stream.x.device, dtype)
    x = stream.x * stretch if stretch != 1.0 else stream.x
    if level:
        x = x / stream.pooled().norm(dim=-1)[..., None, None].clamp(min=1e-6)
    return Stream(x, stream.present, stream.length)


class CrossTransformers(nn.Module):
    """The mean over cardinalities of one TupleAttention each. Raises UsageError for a cardinality below one."""

    def __init__(
        self,
        dim: int,
        cardinalities: tuple[int, ...],
        width: int,
        position: float,
        dropout: float,
        memory: int,
    ) -> None:
        super().__init__()
        if not cardinalities or min(cardinalities) < 1:
            raise UsageError(
                f"cardinalities={cardinalities} must name at least one tuple length, each 1 or more."
            )
        self.each = nn.ModuleList([TupleAttention(dim, size, width) for size in cardinalities])
        self.cardinalities, self.position, self.memory = cardinalities, position, memory
        self.dropout = nn.Dropout(dropout)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def begin(self, sharpness: float, orthogonal: bool) -> None:
        """Where training starts: the gain of the keys' normalisation, and values as an isometry."""
        for module in self.each:
            assert isinstance(module, TupleAttention)
            nn.init.constant_(module.norm.weight, sharpness)
            if orthogonal:
                nn.init.orthogonal_(module.value.weight)

    def forward(self, support: Stream, query: Stream) -> Tensor:
        """Logits [B, Q, N] of support [B, N, K, T, D] and query [B, Q, T, D]."""
        return torch.stack(self.by_cardinality(support, query)).mean(0)

    def by_cardinality(self, support: Stream, query: Stream) -> list[Tensor]:
        """Logits [B, Q, N] of each cardinality alone. Clips shorter than a tuple hold their last step."""
        support, query = self._placed(support), self._placed(query)
        queries = query.present.shape[1]

        def one(module: TupleAttention) -> Tensor:
            there = module.tuples(support)
            return torch.cat(
                [module(there, module.tuples(query[:, p])) for p in self._parts(there, queries)], 1
            )

        return [one(module) for module in self._attentions()]

    def kept(self, clips: Sequence[Stream]) -> list[Tuples]:
        """The tuples of all clips of some streams [n, T, D], one entry a cardinality."""
        placed = [self._placed(part) for part in clips]
        return [Tuples.joined([m.tuples(part) for part in placed]) for m in self._attentions()]

    def of_kept(self, kept: Sequence[Tuples], support: Tensor, query: Tensor) -> Tensor:
        """Logits [B, Q, N] of rows [B, N, K] and [B, Q] of the clips whose tuples are ``kept``."""

        def one(module: TupleAttention, own: Tuples) -> Tensor:
            there = own[support]
            return torch.cat([module(there, own[query[:, p]]) for p in self._parts(there, query.shape[1])], 1)

        return torch.stack([one(module, own) for module, own in zip(self._attentions(), kept)]).mean(0)

    def _attentions(self) -> list[TupleAttention]:
        return [module for module in self.each if isinstance(module, TupleAttention)]

    def _parts(self, support: Tuples, queries: int) -> list[slice]:
        """Which queries of every task each pass takes against supports [B, N, K]; of even sizes."""
        clips, tuples = support.valid.shape[:-1].numel(), support.valid.shape[-1]
        most = max(1, (self.memory << 20) // tuples_bytes(tuples, clips))
        edges = torch.linspace(0, queries, max(1, -(-queries // most)) + 1).round().int().tolist()
        return [slice(first, last) for first, last in pairwise(edges)]

    def _placed(self, stream: Stream) -> Stream:
        """Position codes added to every step; clips shorter than a tuple hold their last step."""
        stream = at_least(stream, max(self.cardinalities))
        code = self.position * sinusoid(stream.x.shape[-2], stream.x)
        return Stream(self.dropout(stream.x + code), stream.present, stream.length)


@dataclass
class Tuples:
    """The ordered tuples of clips [*clips], P a clip, by what their frames contribute.

    A frame contributes to a tuple by its place in it, so a clip has S = T * size contributions (slots) and a tuple is
    the sum of ``size`` of them. key, value: [*clips, S, d], keys centred, with their share of the bias.
    member: 0/1 [P, S], which slots make up a tuple. deviation [*clips, P]: of the tuple's key over its d entries.
    valid: bool [*clips, P], whether all of a tuple's frames are steps of the clip.
    """

    key: Tensor
    value: Tensor
    member: Tensor
    deviation: Tensor
    valid: Tensor

    def __getitem__(self, rows: Tensor) -> Tuples:
        """Those of some of the clips."""
        return Tuples(self.key[rows], self.value[rows], self.member, self.deviation[rows], self.valid[rows])

    @staticmethod
    def joined(parts: Sequence[Tuples]) -> Tuples:
        """One after another, along the first dimension of the clips."""
        key, value, deviation, valid = (
            torch.cat([getattr(p, name) for p in parts]) for name in ("key", "value", "deviation", "valid")
        )
        return Tuples(key, value, parts[0].member, deviation, valid)


class TupleAttention(nn.Module):
    """The CrossTransformer of one cardinality.

    For tuples u (frames side by side): key k = LN(Wk u + bk), value v = Wv u; for query tuple p and class c

        a = softmax over the tuples p' of all supports of c of <k_p, k_p'> / sqrt(d)
        logit = - mean over p of |v_p - sum a v_p'|^2.

    Both are linear in the frames before the normalisation, so that every inner product of two tuples is a sum of inner
    products of frames: those are computed once and summed by 0/1 matrices, a fraction of the arithmetic of products
    between tuples, and no prototype is ever written out. A bias of the values would cancel in the difference.
    """

    def __init__(self, dim: int, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.key = nn.Linear(size * dim, width)
        self.value = nn.Linear(size * dim, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def tuples(self, clips: Stream) -> Tuples:
        """All tuples of clips [*clips, T, D]."""
        steps = clips.x.shape[-2]
        chosen = torch.combinations(torch.arange(steps, device=clips.x.device), self.size)
        slot = chosen * self.size + torch.arange(self.size, device=clips.x.device)
        key, value = (self._slots(clips.x, layer.weight) for layer in (self.key, self.value))
        bias = self.key.bias.to(key.dtype)
        key = key - key.mean(-1, keepdim=True) + (bias - bias.mean()) / self.size
        member = key.new_zeros(len(slot), steps * self.size).scatter_(1, slot, 1.0)
        deviation = (_lengths(key, member) / key.shape[-1] + self.norm.eps).sqrt()
        return Tuples(key, value, member, deviation, chosen[:, -1] < clips.length[..., None])

    def _slots(self, x: Tensor, weight: Tensor) -> Tensor:
        """Each frame's share at each place: x [*clips, T, D], weight [d, size * D] -> [*clips, T * size, d]."""
        width = weight.shape[0]
        by_place = weight.view(width, self.size, -1).transpose(0, 1).reshape(self.size * width, -1)
        out = F.linear(x, by_place).unflatten(-1, (self.size, width)).flatten(-3, -2)
        return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out

    def forward(self, support: Tuples, query: Tuples) -> Tensor:
        """Logits [B, Q, N] of supports [B, N, K] and queries [B, Q]."""
        gathered = self.gathered(support, query)  # [B, N, K, Q*P, S]
        cross = _between(query.value, support.value, query.member)
        values, weight = support.value.flatten(2, 3), gathered.transpose(2, 3).flatten(3)  # [B, N, Q*P, K*S]
        products = values @ values.transpose(-1, -2)
        prototype = ((weight @ products) * weight).sum(-1)  # |sum a v|^2 [B, N, Q*P]
        own = _lengths(query.value, query.member)  # |v|^2 [B, Q, P]
        distance = prototype - 2 * (gathered * cross).sum((2, 4))
        distance = distance.unflatten(-1, own.shape[1:]) + own[:, None]
        counted = query.valid.to(distance.dtype)
        mean = torch.einsum("bnqp,bqp->bqn", distance, counted) / counted.sum(-1).clamp(min=1)[..., None]
        return -mean.to(self.key.weight.dtype)

    def gathered(self, support: Tuples, query: Tuples) -> Tensor:
        """How much each support slot weighs in the prototypes of query tuples, [B, N, K, Q*P, S].

        The softmax is written out: its sums over (K, P') come from the product that sums tuples to slots.
        """
        gain, shift = (w.to(support.key.dtype) for w in (self.norm.weight, self.norm.bias))
        scaled = query.member / (query.deviation[..., None] * gain.numel() ** 0.5)
        product = _between(query.key * gain.square(), support.key, scaled)
        # <k_p, k_p'> without what is the same for every p'
        constant = (support.key @ (gain * shift)) @ support.member.T / support.deviation / gain.numel() ** 0.5
        constant = constant.masked_fill(~support.valid, -1e30)[..., None, :]
        tuples = support.member.T / support.deviation[..., None, :]
        parts = (t.flatten(0, 2) for t in (constant, product, tuples))
        logits = torch.baddbmm(*parts).view(*product.shape[:-1], -1)  # [B, N, K, Q*P, P']
        most = logits.detach().amax((2, 4), keepdim=True)
        weight = (logits - most).exp() if logits.requires_grad else logits.sub_(most).exp_()
        slots = weight @ F.pad(support.member, (0, 1), value=1.0)
        return slots[..., :-1] / slots[..., -1:].sum(2, keepdim=True)


def _lengths(slots: Tensor, member: Tensor) -> Tensor:
    """Squared lengths [*clips, P] of the tuples of slots [*clips, S, d]."""
    gram = slots @ slots.transpose(-1, -2)
    return ((member @ gram) * member).sum(-1).clamp(min=0)


def _between(query: Tensor, support: Tensor, member: Tensor) -> Tensor:
    """Inner products of query tuples and support slots [B, N, K, Q*P, S].

    query [B, Q, S, d], support [B, N, K, S, d]; member [P, S] or [B, Q, P, S] sums the query's slots to tuples.
    """
    flat = query.flatten(1, 2) @ support.flatten(1, 3).transpose(1, 2)
    product = member @ flat.unflatten(1, query.shape[1:3])  # [B, Q, P, N*K*S]
    return product.unflatten(-1, support.shape[1:4]).permute(0, 3, 4, 1, 2, 5).flatten(3, 4)


def pair_bytes(steps: int, sizes: tuple[int, ...], supports: int) -> int:
    """Bytes of the tuple pairs of one query and so many supports: attention, its logits and their parts."""
    return tuples_bytes(max(comb(max(steps, max(sizes)), size) for size in sizes), supports)


def tuples_bytes(tuples: int, supports: int) -> int:
    """The same, of clips of so many tuples."""
    return 4 * 3 * tuples * tuples * max(supports, 1)
