"""Several label sets at once: one loss a label set over one trunk, of which clips may lack labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank


class LabelSets(nn.Module):
    """Which of C classes belong to which label set, and whether a clip has one label of a set or may have several.

    A clip without any label of a set lacks that set's labels, and says nothing in its loss.
    """

    set_of: Tensor
    one_each: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("set_of", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("one_each", torch.zeros(classes, dtype=torch.bool))

    def fit(self, base: FeatureBank) -> None:
        """Reads the label sets of a multi-hot bank: classes of joined label sets are named ``set: class``."""
        names = [name.partition(": ")[0] if "+" in base.label_set else "" for name in base.class_names]
        order = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.set_of = torch.tensor([order[name] for name in names], device=base.device)
        counts = torch.stack([base.label[:, self.set_of == s].sum(1) for s in range(len(order))])
        self.one_each = (counts <= 1).all(1)[self.set_of]

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The mean over the label sets of their losses, for logits [M, C] and multi-hot labels [M, C].

        Where a clip has one label of a set, that is the cross-entropy among the set's classes, else the binary
        cross-entropy of each. Zero where no clip has a label.
        """
        losses = []
        for number in self.set_of.unique().tolist():
            columns = self.set_of == number
            said, true = logits[:, columns], label[:, columns].to(logits.dtype)
            labelled = true.any(1)
            if not bool(labelled.any()):
                continue
            if bool(self.one_each[columns].all()):
                losses.append(F.cross_entropy(said[labelled], true[labelled].argmax(1)))
            else:
                losses.append(F.binary_cross_entropy_with_logits(said[labelled], true[labelled]))
        return torch.stack(losses).mean() if losses else logits.sum() * 0.0
