"""The heterogeneous graph of a clip: its nodes are the steps of all modalities, its edges are of several types.

Types are, for each modality, its own steps among themselves (time), and for each ordered pair of modalities, steps at
equal or neighbouring times (association). A layer is h <- h + relu(W h + sum over types of attention-weighted means of
what the neighbours of that type say).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..parts.names import module_name

ABSENT = -1e4  # The score of what attention must not choose.


class EdgeType(nn.Module):
    """The messages from the steps of one modality to those of another (or the same), by scaled dot products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask, self.answer, self.say = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, to: Tensor, of: Tensor, near: Tensor, present: Tensor) -> Tensor:
        """The messages [n, T, W] to steps [n, T, W] of steps [n, T, W]; zero where the sender is absent.

        near: which steps are neighbours, bool [T, T]; present: which clips have the sender, bool [n].
        """
        score = self.ask(to) @ self.answer(of).transpose(1, 2) / to.shape[-1] ** 0.5
        weight = torch.softmax(score.masked_fill(~near, ABSENT), -1)
        return weight @ self.say(of) * present[:, None, None].to(of.dtype)


class StepGraphLayer(nn.Module):
    """One layer over the steps of all modalities. association: False leaves out the edges between modalities."""

    def __init__(self, names: Sequence[str], width: int, *, association: bool) -> None:
        super().__init__()
        self.own = {m: nn.Linear(width, width) for m in names}
        pairs = [(a, b) for a in names for b in names if a == b or association]
        self.types = {pair: EdgeType(width) for pair in pairs}
        self.of_steps = nn.ModuleDict({module_name(m): layer for m, layer in self.own.items()})
        self.of_pairs = nn.ModuleList(self.types.values())

    def forward(
        self, h: Mapping[str, Tensor], present: Mapping[str, Tensor], reach: int
    ) -> dict[str, Tensor]:
        """The steps [n, T, W] of each modality after the layer.

        present: which clips have each modality, bool [n]; reach: how far in time association goes.
        """
        steps = next(iter(h.values())).shape[1]
        time = torch.arange(steps, device=next(iter(h.values())).device)
        apart = (time[:, None] - time).abs()
        new = {}
        for m, x in h.items():
            total = self.own[m](x)
            for (to, of), edge in self.types.items():
                if to == m:
                    near = apart >= 0 if of == m else apart <= reach
                    total = total + edge(x, h[of], near, present[of])
            new[m] = x + torch.relu(total)
        return new
