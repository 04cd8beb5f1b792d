"""What many heads share, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fsmm.heads.parts.maps import max_pool


@pytest.mark.parametrize("shape", [(3, 2, 8, 8), (2, 3, 2, 6, 4), (3, 2, 5, 7), (2, 1, 1, 4)])
def test_pooling_is_torchs_with_and_without_gradients(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, dtype=torch.float64)
    if min(shape[-2:]) < 2:
        assert max_pool(x).numel() == 0
        return
    expected = F.max_pool2d(x.flatten(0, -4), 2).view(*shape[:-2], shape[-2] // 2, shape[-1] // 2)
    assert torch.equal(max_pool(x), expected)
    free, torchs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn_like(expected)
    (max_pool(free) * weight).sum().backward()
    (F.max_pool2d(torchs.flatten(0, -4), 2).view_as(expected) * weight).sum().backward()
    assert torch.equal(free.grad, torchs.grad)
