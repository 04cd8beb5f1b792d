"""Recurrent layers without packing: the same numbers as packed bidirectional layers, whatever the padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fsmm.heads.parts.recurrent import BothWays, last, reverse, zero_init


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_as_a_packed_bidirectional_layer(kind: type[nn.GRU] | type[nn.LSTM]) -> None:
    torch.manual_seed(0)
    ours = BothWays(kind, 5, 3).double()
    peer = kind(5, 3, batch_first=True, bidirectional=True).double()
    peer.load_state_dict(
        ours.ahead.state_dict() | {f"{k}_reverse": v for k, v in ours.back.state_dict().items()}
    )
    x, length = torch.randn(4, 6, 5, dtype=torch.float64), torch.tensor([6, 1, 3, 4])
    packed = pack_padded_sequence(x, length, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(peer(packed)[0], batch_first=True)
    valid = (torch.arange(6) < length[:, None])[..., None]
    torch.testing.assert_close(torch.cat(ours(x, length), -1) * valid, expected)


def test_reverse_twice_is_nothing_and_padding_stays() -> None:
    x, length = torch.randn(3, 5, 2), torch.tensor([5, 2, 0])
    assert torch.equal(reverse(reverse(x, length), length), x)
    assert torch.equal(reverse(x, length)[1, 2:], x[1, 2:])
    assert torch.equal(reverse(x, length)[1, 0], x[1, 1])
    assert torch.equal(last(x, length), torch.stack([x[0, 4], x[1, 1], x[2, 0]]))


def test_an_lstm_at_its_zero_init_puts_out_zeros_but_learns() -> None:
    cell = nn.LSTM(4, 3, batch_first=True)
    zero_init(cell)
    out, _ = cell(torch.randn(2, 5, 4))
    assert not out.any()
    out.sum().backward()
    assert cell.weight_ih_l0.grad is not None
    assert cell.weight_ih_l0.grad.abs().sum() > 0
