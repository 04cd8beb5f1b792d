"""Class words as the weights of a classifier of features: as they are, or mapped by a ridge regression.

The language methods were made for encoders with a text tower, whose class words lie in the space of the features. There
the weights are the words. Words of another kind (GloVe, say) are mapped: a ridge regression from class words to class
means is fitted to base classes in closed form. Its penalty, and the scale of the cosines with mapped words, are chosen
on base classes, each by the words of a map that has not seen the class.

In shapes B is the number of tasks, N that of classes, E the width of words, D that of features, C that of base classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ..parts.distances import cosine
from ..parts.ridge_map import ridge_map, without_each

SHARED_SCALE = 100.0
"""The scale that CLIP learned for cosines of images and texts, which the published methods keep."""
SCALES = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FEWEST_CLASSES = 3
_UNFITTED_SCALE = 10.0


class WordWeights(nn.Module):
    """Class words [..., E] to classifier weights [..., D], and the scale of a classifier's cosines.

    shared: whether words lie in the space of the features, so that nothing is fitted.
    """

    mean: Tensor
    slope: Tensor
    offset: Tensor
    ridge: Tensor
    scale: Tensor

    def __init__(self, words: int, dim: int, *, shared: bool, scale: float | None) -> None:
        super().__init__()
        self.shared, self.fixed_scale = shared, scale
        if not shared:
            self.register_buffer("mean", torch.zeros(words))
            self.register_buffer("slope", torch.zeros(words, dim))
            self.register_buffer("offset", torch.zeros(dim))
            self.register_buffer("ridge", torch.ones((), dtype=torch.float64))
        start = SHARED_SCALE if shared else _UNFITTED_SCALE
        first = start if scale is None else scale
        self.register_buffer("scale", torch.tensor(first, dtype=torch.float64))

    def chosen(self) -> dict[str, Any]:
        """The penalty and the scale that base classes chose, without those that are set; none in a shared space."""
        if self.shared:
            return {}
        own = {"word_ridge": float(self.ridge)}
        return own if self.fixed_scale is not None else {**own, "scale": float(self.scale)}

    def forward(self, words: Tensor) -> Tensor:
        """The weights [..., D] of class words [..., E], of any length."""
        if self.shared:
            return words
        words = F.normalize(words, dim=-1)
        return (words - self.mean.to(words)) @ self.slope.to(words) + self.offset.to(words)

    @torch.no_grad()
    def fit(self, base: FeatureBank) -> Tensor | None:
        """Fits the map to base clips, and gives what words say of each class by a map without the class, [C, D].

        None is given where words are missing, or too few base classes have clips to fit a map to; a map is then
        left at zero. A class without clips is not left out of a map that it never was in.
        """
        if base.words is None:
            return None
        if self.shared:
            return base.words
        x, label = unit_clips(base)
        member = (label if base.multi else F.one_hot(label, len(base.class_names))).to(x)
        count = member.sum(0)
        seen = count > 0
        if int(seen.sum()) < FEWEST_CLASSES:
            return None
        words = F.normalize(base.words.to(x), dim=-1)
        centre = (member.T @ x / count.clamp(min=1)[:, None])[seen]
        self._choose(x, member[:, seen], words[seen], centre)
        ridge = float(self.ridge)
        mean, slope = ridge_map(words[seen], centre, ridge)
        self.mean.copy_(mean)
        self.slope.copy_(slope)
        self.offset.copy_(centre.mean(0))
        unseen = self(words)
        unseen[seen] = without_each(words[seen], centre, ridge)
        return unseen

    def _choose(self, x: Tensor, member: Tensor, words: Tensor, centre: Tensor) -> None:
        """Takes the penalty and the scale at which unit clips x [n, D] find their classes with the least log-loss.

        member: [n, C], 1 where a clip is of a class; every class counts the same.
        """
        share = member / member.sum(0)
        scales = SCALES if self.fixed_scale is None else (self.fixed_scale,)
        best = float("inf")
        for ridge in RIDGES:
            near = cosine(x, without_each(words, centre, ridge))
            for scale in scales:
                loss = float(-(share * torch.log_softmax(scale * near, -1)).sum())
                if loss < best:
                    best = loss
                    self.ridge.fill_(ridge)
                    self.scale.fill_(scale)


def unit_clips(base: FeatureBank) -> tuple[Tensor, Tensor]:
    """Features [n, D] of length one of the base clips that are present, in float64, and their labels [n] or [n, C]."""
    (table,) = base.pooled().tables.values()
    rows = torch.arange(len(base), device=base.device)[table.present]
    return F.normalize(table.gather(rows).pooled().double(), dim=-1), base.label[rows]
