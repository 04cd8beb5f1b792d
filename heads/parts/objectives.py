"""Objectives of points in a common space, each one function of a batch, in one table.

In shapes M is the number of clips of a batch, C that of the base classes, D the width of the space. All points and
anchors have length one. ``same`` means that two clips have one class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FAR = -2.0  # Below any cosine.


@dataclass(frozen=True, kw_only=True)
class Points:
    """A batch of clips as an objective sees it."""

    point: Tensor
    """Where the clips lie, [M, D]."""
    label: Tensor
    """Their base classes, int64 [M]."""
    anchors: Tensor
    """A point for each base class, [C, D]."""
    second: Tensor
    """Where the clips lie under another draw of dropout, [M, D]; the points themselves where nothing is dropped."""
    temperature: float
    """What cosines are divided by."""
    margin: float
    """The margin of the triplet losses."""

    @property
    def same(self) -> Tensor:
        """Whether two clips have one class, bool [M, M]."""
        return self.label[:, None] == self.label[None]

    @property
    def others(self) -> Tensor:
        """Whether two clips are different ones, bool [M, M]."""
        return ~torch.eye(len(self.point), dtype=torch.bool, device=self.point.device)


def softmax(batch: Points) -> Tensor:
    """Cross-entropy of the cosines to the anchors of all base classes."""
    return F.cross_entropy(batch.point @ batch.anchors.T / batch.temperature, batch.label)


def triplet(batch: Points) -> Tensor:
    """A triplet loss over anchors: the clip's own against the hardest wrong one."""
    similarity = batch.point @ batch.anchors.T
    right = similarity.gather(1, batch.label[:, None])
    wrong = similarity.scatter(1, batch.label[:, None], FAR).amax(1, keepdim=True)
    return (batch.margin + wrong - right).clamp(min=0).mean()


def triplet_random(batch: Points) -> Tensor:
    """A triplet loss over clips, averaged over all pairs of a positive and a negative, as drawing them at random is."""
    cosines, positive = batch.point @ batch.point.T, batch.same & batch.others
    excess = (batch.margin + cosines[:, None, :] - cosines[:, :, None]).clamp(min=0)
    pair = positive[:, :, None] & ~batch.same[:, None, :]
    return _mean_where(excess, pair)


def triplet_semi_hard(batch: Points) -> Tensor:
    """FaceNet's semi-hard triplets: of a positive pair, the nearest negative that is farther than the positive.

    Where there is no such negative, the farthest one is taken (Schroff et al., CVPR 2015).
    """
    cosines, positive = batch.point @ batch.point.T, batch.same & batch.others
    negative = cosines.masked_fill(batch.same, FAR)[:, None, :].expand(-1, len(cosines), -1)
    farther = (negative < cosines[:, :, None]) & ~batch.same[:, None, :]
    nearest = negative.masked_fill(~farther, FAR).amax(2)
    farthest = cosines.masked_fill(batch.same, -FAR).amin(1, keepdim=True).expand_as(cosines)
    wrong = torch.where(farther.any(2), nearest, farthest)
    return _mean_where(
        (batch.margin + wrong - cosines).clamp(min=0), positive & (~batch.same).any(1)[:, None]
    )


def triplet_hardest(batch: Points) -> Tensor:
    """Batch-hard triplets (Hermans et al., arXiv 1703.07737): the farthest positive and the nearest negative."""
    cosines, positive = batch.point @ batch.point.T, batch.same & batch.others
    right = cosines.masked_fill(~positive, -FAR).amin(1)
    wrong = cosines.masked_fill(batch.same, FAR).amax(1)
    return _mean_where((batch.margin + wrong - right).clamp(min=0), positive.any(1) & (~batch.same).any(1))


def n_pairs(batch: Points) -> Tensor:
    """The N-pairs loss (Sohn, NeurIPS 2016): one positive a clip, against one clip of each other class of the batch.

    The positive is the next clip of the class, and a class is stood for by its first clip.
    """
    positive = batch.same & batch.others
    after = torch.arange(len(batch.label), device=batch.label.device)
    next_one = (positive & (after[None] > after[:, None])).long().argmax(1)
    first = positive.long().argmax(1)
    chosen = torch.where((positive & (after[None] > after[:, None])).any(1), next_one, first)
    _, position = torch.unique(batch.label, return_inverse=True)
    leader = (position[None] == torch.arange(int(position.max()) + 1, device=position.device)[:, None]).long()
    logits = batch.point @ batch.point[leader.argmax(1)].T
    own = (batch.point * batch.point[chosen]).sum(-1)
    logits = logits.scatter(1, position[:, None], own[:, None]) / batch.temperature
    each = F.cross_entropy(logits, position, reduction="none")
    return _mean_where(each, positive.any(1))


def infonce(batch: Points) -> Tensor:
    """InfoNCE of each clip's anchor against the clips of the batch (van den Oord et al. 2018).

    Every clip of the class is a positive; their log-probabilities are averaged.
    """
    log_p = F.log_softmax(batch.anchors[batch.label] @ batch.point.T / batch.temperature, -1)
    return -(log_p * batch.same).sum(1).div(batch.same.sum(1)).mean()


def supcon(batch: Points) -> Tensor:
    """The supervised contrastive loss (Khosla et al., NeurIPS 2020): other clips of the class are the positives."""
    logits = (batch.point @ batch.point.T / batch.temperature).masked_fill(~batch.others, -torch.inf)
    positive = batch.same & batch.others
    log_p = torch.where(positive, F.log_softmax(logits, -1), 0.0)
    return _mean_where(-log_p.sum(1) / positive.sum(1).clamp(min=1), positive.any(1))


def simclr(batch: Points) -> Tensor:
    """SimCLR's loss (Chen et al., ICML 2020) between two views of a clip; no label is read.

    The views of cached features are two draws of dropout.
    """
    both = torch.cat([batch.point, batch.second])
    logits = both @ both.T / batch.temperature
    logits = logits.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -torch.inf)
    count = len(batch.point)
    target = torch.arange(2 * count, device=both.device).roll(count)
    return F.cross_entropy(logits, target)


def words(batch: Points) -> Tensor:
    """The mean squared distance of clips to their class's anchor, as one half of it: one minus the cosine."""
    return (1 - (batch.point * batch.anchors[batch.label]).sum(-1)).mean()


OBJECTIVES: Mapping[str, Callable[[Points], Tensor]] = {
    "softmax": softmax,
    "triplet": triplet,
    "triplet_random": triplet_random,
    "triplet_semi_hard": triplet_semi_hard,
    "triplet_hardest": triplet_hardest,
    "n_pairs": n_pairs,
    "infonce": infonce,
    "supcon": supcon,
    "simclr": simclr,
    "words": words,
}
"""The objectives by name."""
WITHOUT_LABELS = ("simclr",)
"""The objectives that read no label."""


def pairing(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The loss of CLIP (Radford et al., ICML 2021) between two modalities [M, D] of the same clips, in both ways."""
    logits = one @ other.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def noise_contrastive(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Noise-contrastive estimation over pairs [M, D] of two views, -1/M sum_i log(e^s_ii / (e^s_ii + negatives)).

    s is the cosine over the temperature, and the negatives of a pair are all e^s_ij and e^s_ji with another j.
    """
    s = F.normalize(one, dim=-1) @ F.normalize(other, dim=-1).T / temperature
    own = torch.eye(len(s), dtype=torch.bool, device=s.device)
    mismatched = torch.cat([s, s.T.masked_fill(own, -torch.inf)], -1)
    return (mismatched.logsumexp(-1) - s.diagonal()).mean()


def masked_error(said: Tensor, true: Tensor, masked: Tensor) -> Tensor:
    """The mean squared error of masked steps, as masked autoencoders have it (He et al., CVPR 2022).

    said, true: [M, T, D]; masked: bool [M, T].
    """
    return _mean_where((said - true).square().mean(-1), masked)


def _mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of the values where they count; zero where none does."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)
