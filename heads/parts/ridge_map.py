"""Ridge regression from class words to class features, in closed form by a system as large as the number of classes.

In shapes C is the number of classes, E the width of words and D that of features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ridge_map(words: Tensor, centre: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The mean [E] of words [C, E] and the slope [E, D] of the regression of class means ``centre`` [C, D] on them.

    Both are taken about their mean, so that (w - mean) @ slope + centre.mean(0) is what the words w say. The penalty is
    ``ridge`` times the mean squared length of a centred word vector. Computed and returned in float64.
    """
    words, centre = words.double(), centre.double()
    away = words - words.mean(0)
    dual = torch.linalg.solve(_penalised(away @ away.T, ridge), centre - centre.mean(0))
    return words.mean(0), away.T @ dual


def without_each(words: Tensor, centre: Tensor, ridge: float) -> Tensor:
    """What the regression says of each class when it is fitted to the others, [C, D]; in closed form.

    The residual of a class left out is its residual over one minus its leverage, at the penalty of all classes.
    """
    words, target = words.double(), centre.double()
    away = words - words.mean(0)
    gram = away @ away.T
    hat = torch.linalg.solve(_penalised(gram, ridge), gram).T + 1 / len(gram)
    left = (1 - hat.diagonal()).clamp(min=1e-9)[:, None]
    return (target - (target - hat @ target) / left).to(centre)


def _penalised(gram: Tensor, ridge: float) -> Tensor:
    """The inner products [C, C] of centred words plus ``ridge`` times the mean squared length on the diagonal."""
    penalty = ridge * gram.diagonal().mean().clamp(min=1e-12)
    return gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
