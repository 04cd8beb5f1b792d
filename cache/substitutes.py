"""What a bank may hold in place of modalities that clips lack."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from .table import Stream


class Substitutes(Protocol):
    """A source of stand-ins for the modalities that clips of one bank lack."""

    def gather(self, target: str, sources: tuple[str, ...], rows: Tensor) -> Stream | None:
        """The stand-ins for modality ``target`` of the clips at ``rows`` [n], made of the modalities ``sources``.

        A Stream [n, T, D] with the T of the bank's own table; None where there is no stand-in for that modality.
        """
        ...
