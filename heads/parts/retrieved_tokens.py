"""What RAGPT makes of the tokens of retrieved clips: those of a missing modality, and prompts.

In shapes k is the number of retrieved clips, n that of a clip's tokens and D the width of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenGenerator(nn.Module):
    """The tokens [..., n, D] that a clip lacks, from those of retrieved clips [..., k, n, D].

    Their mean x becomes x + Re IFFT(W * FFT(x)), with a learned complex filter W [n, D] over the n positions, and then
    Linear(LN(.)).
    """

    def __init__(self, tokens: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.real = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.imaginary = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, retrieved: Tensor) -> Tensor:
        x = retrieved.mean(-3)
        spectrum = torch.fft.fft(x, dim=-2) * torch.complex(self.real, self.imaginary)
        filtered = x + self.dropout(torch.fft.ifft(spectrum, dim=-2).real)
        tokens: Tensor = self.linear(self.norm(filtered))
        return tokens


class PromptAttention(nn.Module):
    """Prompts [..., rows, D]: what a clip's tokens [..., n, D] find in those of retrieved clips [..., k, n, D].

    One attention head, scaled by sqrt(D); the n results are averaged to ``rows`` of them.
    """

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.rows = rows

    def forward(self, tokens: Tensor, retrieved: Tensor) -> Tensor:
        memory = retrieved.flatten(-3, -2)
        found = F.scaled_dot_product_attention(self.query(tokens), self.key(memory), self.value(memory))
        flat = F.adaptive_avg_pool1d(found.flatten(0, -3).transpose(-1, -2), self.rows).transpose(-1, -2)
        return flat.reshape(*found.shape[:-2], *flat.shape[-2:])
