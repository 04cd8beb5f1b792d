"""The learned gate of generalised tests: trained on base clips of all modalities and on mixtures of their classes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..heads.parts.entropy_gate import EntropyGate, between_classes

STEPS, BATCH, RATE = 300, 64, 1e-3


class LearnedGate:
    """How much clips look like those of base classes, by the entropy of a gate that was trained on these clips."""

    def __init__(self, base: FeatureBank, seed: int) -> None:
        """Trains the gate on the base clips. The unseen half of a batch are mixtures of clips of two classes."""
        torch.manual_seed(seed)
        x = _features(base)
        self.gate = EntropyGate(x.shape[1], len(base.class_names)).to(x)
        with torch.enable_grad():
            optimiser = torch.optim.Adam(self.gate.parameters(), RATE, betas=(0.5, 0.999))
            for _ in range(STEPS):
                rows = torch.randint(len(base), (BATCH,), device=x.device)
                label = base.label[rows]
                terms = self.gate.losses(x[rows], label, between_classes(x[rows], label))
                optimiser.zero_grad(set_to_none=True)
                (terms[0] + terms[1]).backward()
                optimiser.step()

    @torch.no_grad()
    def score(self, bank: FeatureBank) -> Tensor:
        """Minus the entropy of each clip, [n]."""
        return -self.gate.entropy(_features(bank))


def _features(bank: FeatureBank) -> Tensor:
    """The pooled features of all modalities side by side, read as sqrt(D) z, [n, D]; zeros where a clip lacks one."""
    rows = torch.arange(len(bank), device=bank.device)
    parts = [table.gather(rows).pooled().float() for table in bank.pooled().tables.values()]
    return torch.cat([x * x.shape[1] ** 0.5 for x in parts], 1)
