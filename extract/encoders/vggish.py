"""VGGish sound embeddings, whose network reads log-mel pictures of 0.96 s; weights from a file of the user's.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017. The front end has the constants
of the published code: magnitudes, not powers, of frames of 25 ms every 10 ms, 64 mels from 125 to 7,500 Hz, and the
logarithm of what they sum up to plus 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .sound_stats import FFT, STEP, WINDOW, triangular_filters
from .sound_windows import MAX_WINDOWS, SoundEncoder
from .torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from torch import nn

MELS, LOW, HIGH, OFFSET = 64, 125.0, 7_500.0, 0.01
FRAMES = 96
# The channels of the convolutions, and where the maximum of 2 x 2 follows.
_CHANNELS = ((64,), (128,), (256, 256), (512, 512))
_LEFT_OUT = ("pproc.",)  # the principal components of the published post-processing


class Vggish(SoundEncoder, TorchEncoder):
    """The encoder of sound to [n, 128], one embedding for each window of 0.975 s, usually 0.96 s apart.

    The window holds the 96 frames of one picture; the published code lays the same pictures side by side, and leaves
    out a last one that the sound does not fill. The file holds the tensors of the common torch form of the network:
    ``features.*`` and ``embeddings.*``. No principal components are taken and nothing is rounded to 8 bits.
    """

    rate, window, usual_hop = 16_000, WINDOW + (FRAMES - 1) * STEP, FRAMES * STEP

    def described(self) -> str:
        return (
            f"mono 16 kHz, {WINDOW}/{STEP} frames, magnitudes, {MELS} mels {LOW:g}-{HIGH:g} Hz, log of x + {OFFSET:g}, "
            f"windows {self.window}/{self.hop}, at most {MAX_WINDOWS} spread evenly, last padded"
        )

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn samples [n] into pictures float32 [m, 96, 64]. Raises DecodeError for less than 50 ms or bad samples."""
        return log_mel(self.cut(raw))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        network, device = self.network
        return self._run(network, batch, device)

    def _load(self) -> Any:
        from ...machine.device import pick_device
        from ..weights.checkpoint import fill, read_checkpoint

        assert self.spec.weights is not None
        path, device = self.spec.weights.path, pick_device(self.spec.device)
        state = read_checkpoint(path, nests=("state_dict", "model"))
        network = build_network()
        fill(network, {key: value for key, value in state.items() if not key.startswith(_LEFT_OUT)}, path)
        return network.eval().requires_grad_(False).to(device), device


def log_mel(windows: np.ndarray) -> np.ndarray:
    """The pictures float32 [m, frames, 64] of samples [m, n]."""
    frames = np.lib.stride_tricks.sliding_window_view(windows, WINDOW, axis=-1)[:, ::STEP]
    periodic = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    return np.log(np.abs(np.fft.rfft(frames * periodic, FFT)).astype(np.float32) @ _filters() + OFFSET)


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    return triangular_filters(LOW, HIGH, MELS)


def build_network() -> nn.Module:
    """The network from pictures [N, 96, 64] to embeddings [N, 128], with random weights."""
    from torch import nn

    layers: list[nn.Module] = []
    width = 1
    for group in _CHANNELS:
        for channels in group:
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
            width = channels
        layers.append(nn.MaxPool2d(2, 2))
    dense: list[nn.Module] = []
    sizes = (width * (FRAMES // 16) * (MELS // 16), 4096, 4096, 128)
    for inputs, outputs in pairwise(sizes):
        dense += [nn.Linear(inputs, outputs), nn.ReLU()]

    class Network(nn.Module):
        """The convolutions and the three dense layers, which read channels last, as TensorFlow lays them out."""

        def __init__(self) -> None:
            super().__init__()
            self.features, self.embeddings = nn.Sequential(*layers), nn.Sequential(*dense)

        def forward(self, pictures: Any) -> Any:
            return self.embeddings(self.features(pictures[:, None]).permute(0, 2, 3, 1).flatten(1))

    return Network()
