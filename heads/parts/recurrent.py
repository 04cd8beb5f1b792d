"""Recurrent layers over sequences of unequal length, batched without packing (packing needs lengths on the CPU)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def reverse(x: Tensor, length: Tensor) -> Tensor:
    """Sequences x [M, T, D] with their first ``length`` [M] steps in reverse order and the rest in place."""
    steps = torch.arange(x.shape[1], device=x.device)
    index = torch.where(steps < length[:, None], length[:, None] - 1 - steps, steps)
    return torch.gather(x, 1, index[..., None].expand_as(x))


def last(x: Tensor, length: Tensor) -> Tensor:
    """The output [M, H] at each sequence's last valid step, of outputs x [M, T, H] and lengths [M]."""
    index = (length.clamp(min=1) - 1)[:, None, None].expand(-1, 1, x.shape[-1])
    return torch.gather(x, 1, index).squeeze(1)


class BothWays(nn.Module):
    """A bidirectional layer made of two: one reads forwards, one backwards from each sequence's own end.

    kind: the layer, nn.GRU or nn.LSTM. Outputs beyond a sequence's length have no meaning.
    """

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], width: int, hidden: int) -> None:
        super().__init__()
        self.ahead = kind(width, hidden, batch_first=True)
        self.back = kind(width, hidden, batch_first=True)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of both directions, [M, T, H] each in the order of x [M, T, D]; length: int64 [M]."""
        return self.ahead(x)[0], reverse(self.back(reverse(x, length))[0], length)


@torch.no_grad()
def zero_init(cell: nn.Module) -> None:
    """Make the weights of an LSTM (or LSTMCell) such that it puts out zeros until it is trained.

    What enters its memory is then tanh(0); gradients reach all its weights.
    """
    for weight in cell.parameters():
        weight.chunk(4)[2].zero_()  # gates are stacked as input, forget, cell, output
