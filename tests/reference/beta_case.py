"""What the mappings of the calibration of seen classes share."""

from __future__ import annotations

import torch
from torch import Tensor

from fsmm.runs.seen_unseen import Clips, Rule, Trial, accuracies


class Calibrated:
    """Scores [n, C] of clips with their labels, and the classes that are seen."""

    def __init__(self, scores: Tensor, labels: Tensor, seen: Tensor, unseen: Tensor) -> None:
        order = torch.cat([seen, unseen])
        place = torch.argsort(order)[labels] if len(order) == int(order.max()) + 1 else labels
        is_seen = place < len(seen)
        logits = scores[:, order]
        self.order, self.place, self.logits, self.seen = order, place, logits, len(seen)
        unseen, known = (
            Clips(logits[~is_seen], place[~is_seen] - len(seen)),
            Clips(logits[is_seen], place[is_seen]),
        )
        self.trial = Trial(unseen, known, known, len(seen))

    def best(self, betas: Tensor) -> tuple[float, Tensor]:
        """The first bias of the best harmonic mean, and S, U and HM there."""
        found = accuracies(self.trial, "bias", betas)
        best = int(found[:, 2].argmax())
        return float(betas[best]), found[best]

    def recall(self, beta: float) -> Tensor:
        """The accuracy of each class at a bias, [C]."""
        right = Rule(kind="bias").predicted(Clips(self.logits, self.place), self.seen, beta) == self.place
        return torch.stack([right[self.place == c].double().mean() for c in torch.argsort(self.order)])

    def unseen_alone(self) -> Tensor:
        """The mean accuracy over unseen classes where no seen class competes."""
        return accuracies(self.trial, "bias", torch.tensor([torch.inf]))[0, 1]
