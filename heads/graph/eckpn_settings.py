"""What ECKPN lets its user choose; its modules are built from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import UsageError
from ..settings import Count, CountOrNone, NonNegative, Positive, Settings, Share


@dataclass(frozen=True)
class ECKPNSettings(Settings):
    """ECKPN's settings."""

    form: Literal["symmetric", "positional"] = "symmetric"
    """A form in which classes may be permuted ("symmetric"), or the literal reading with an N-column assignment layer
    and a linear N-way classifier tied to class positions ("positional")."""
    layers: Count = 2
    """The number of comparison layers."""
    heads: CountOrNone = 8
    """The number of groups of channels whose relations stand beside the un-split one; 0 for that one alone."""
    width: Count = 32
    """The number of channels that are compared; ``heads`` must divide it."""
    projection: Literal["fixed", "learned"] = "fixed"
    """The nodes are the features, and a frozen random rotation picks what is compared ("fixed"), or a linear map to
    ``width`` channels makes the nodes ("learned")."""
    start: Literal["similarity", "none"] = "similarity"
    """The learned stacks start at zero on top of a plain similarity graph ("similarity"), or alone, as published
    ("none")."""
    norm: Literal["layer", "batch"] = "layer"
    """Layer normalisation, or batch normalisation as published (batch statistics in training, running ones in
    evaluation)."""
    masks: bool = True
    """Multiply edges by the previous layer's adjacency."""
    squeeze: bool = True
    """Pool the instance graph into class nodes; without it class nodes are the means of the supports, and without
    ``calibration`` too only the instance graph is left."""
    calibration: bool = True
    """Let class nodes speak to each other and to their words."""
    words: bool = True
    """Let the calibration use class words."""
    sharpness: Positive = 9.0
    """The sharpness of the plain similarity, for distances in units of a task's mean squared distance."""
    blend: Share = 0.5
    """The share of the neighbours in a message."""
    word_weight: Share = 0.2
    """The share by which words draw a class node; 0 for no use of words."""
    ridge: NonNegative = 1.0
    """The penalty of the regression of class means on class words."""
    adjacency_weight: NonNegative = 1.0
    """The weight of the loss of edges."""
    assignment_weight: NonNegative = 0.5
    """The weight of the loss of the assignment of nodes to classes."""
    classification_weight: NonNegative = 1.0
    """The weight of the classification loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads and self.width % self.heads:
            raise UsageError(f"width={self.width} is not divisible by heads={self.heads}; choose a multiple.")

    @property
    def residual(self) -> bool:
        """Whether the learned parts add to a training-free rule, and so start at zero."""
        return self.start == "similarity"
