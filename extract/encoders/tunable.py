"""An encoder's torch network as it can be tuned: its input, its features with gradients, and its parts in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .frames_to_features import FramesToFeatures

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, kw_only=True)
class Tunable:
    """The network of an encoder that maps prepared frames [N, ..., S, S, 3] to features [N, D]."""

    forward: FramesToFeatures
    """What extraction computes of prepared frames."""
    units: Sequence[nn.Module]
    """The parts of the network that make the features, in the order of computation."""
    device: torch.device
    """The device of the network."""

    @property
    def module(self) -> nn.Module:
        """The network whose tensors are a whole checkpoint of the encoder."""
        network: nn.Module = self.forward.module
        return network

    def enter(self, frames: Tensor) -> Tensor:
        """The network's input, made of frames from 0 to 255."""
        entered: Tensor = self.forward.enter(frames)
        return entered

    def embed(self, frames: Tensor) -> Tensor:
        """The features float32 [N, D] of frames, as extraction computes them, with gradients."""
        features: Tensor = self.forward(frames)
        return features.float()


def units_of(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules with weights, in order; a container, or a module around one only, stands for what it holds.

    >>> tower = [nn.Conv2d(3, 8, 3), nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Sequential(nn.LayerNorm(8)))]
    >>> [type(unit).__name__ for unit in units_of(tower)]
    ['Conv2d', 'Linear', 'LayerNorm']
    """
    found: list[nn.Module] = []
    for module in modules:
        inner = list(module.children())
        alone = len(inner) == 1 and isinstance(inner[0], _CONTAINERS)
        if (isinstance(module, _CONTAINERS) or alone) and not list(module.parameters(recurse=False)):
            found += units_of(inner)
        elif any(True for _ in module.parameters()):
            found.append(module)
    return found


def last_units(units: Sequence[nn.Module], count: int) -> list[nn.Module]:
    """The last ``count`` units that hold matrices, in order, and the normalisations between and behind them.

    >>> [type(unit).__name__ for unit in last_units([nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2)], 1)]
    ['Linear', 'LayerNorm']
    """
    found: list[nn.Module] = []
    for unit in reversed(units):
        heavy = any(weight.ndim > 1 for weight in unit.parameters())
        if heavy and count == 0:
            break
        count -= heavy
        found.append(unit)
    return found[::-1]
