"""A network's features of a picture are the same to the bit, whichever others are encoded with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fsmm.extract.encoders.efficientnet_net import EfficientNetLiteNet
from fsmm.extract.encoders.torch_run import normalised, run_in_chunks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> EfficientNetLiteNet:
    torch.manual_seed(0)
    return EfficientNetLiteNet().eval()


@pytest.mark.parametrize("chunk", [1, 8, 16])
def test_neighbours_change_no_bit(network: EfficientNetLiteNet, chunk: int) -> None:
    def forward(frames: torch.Tensor) -> torch.Tensor:
        return network(normalised(frames, (127.0,) * 3, (128.0,) * 3))

    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    together = run_in_chunks(forward, frames, chunk, CPU)
    assert together.shape == (20, 1280)
    for rows in (slice(0, 1), slice(3, 8), slice(11, 20)):
        assert np.array_equal(run_in_chunks(forward, frames[rows], chunk, CPU), together[rows])
