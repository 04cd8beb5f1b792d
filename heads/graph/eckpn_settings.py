"""What ECKPN lets its user choose, and the training-free rule that its modules start from."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Literal

from ...errors import UsageError
from ..settings import Count, CountOrNone, NonNegative, Positive, Settings, Share

QueryMass = Literal["supports", "equal", "all"]
MASS: dict[QueryMass, float] = {"supports": 0.0, "equal": 1.0, "all": 1e9}
"""How many times the weight of a class's supports the queries of the class have at most."""
BLENDS = (0.0, 0.5)
SHARPNESSES = (9.0, 18.0)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The training-free rule that ECKPN is while all its learned updates are zero."""

    blend: float
    """The share of the neighbours in a message."""
    sharpness: float
    """The sharpness of the similarity."""
    query_mass: QueryMass
    """How much of the queries a class node takes."""
    word_weight: float
    """The share by which words draw a class node."""

    @property
    def is_class_means(self) -> bool:
        """Whether queries go to the nearest mean of the supports, whatever the graph and the words say."""
        return self.blend == 0 and self.query_mass == "supports" and self.word_weight == 0

    def to_dict(self) -> dict[str, float | str]:
        """The fields as plain JSON values."""
        return asdict(self)


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
    sharpness: Positive | None = None
    """The sharpness of the plain similarity, for distances in units of a task's mean squared distance; none: chosen on
    the base classes."""
    blend: Share | None = None
    """The share of the neighbours in a message; none: chosen on the base classes."""
    query_mass: QueryMass | None = None
    """How much of the queries a class node takes: supports alone, queries of at most the weight of the supports
    ("equal"), or all as they are assigned, as published ("all"); none: chosen on the base classes."""
    word_weight: Share | None = None
    """The share by which words draw a class node; 0 for no use of words. none: 0 where the head starts from a rule,
    since base classes cannot tell what words of other classes are worth, else 0.2."""
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
    def reads_words(self) -> bool:
        """Whether class words take part where there are any."""
        return self.words and self.calibration and self.rules(has_words=True)[0].word_weight > 0

    @property
    def residual(self) -> bool:
        """Whether the learned parts add to a training-free rule, and so start at zero."""
        return self.start == "similarity"

    def rules(self, *, has_words: bool) -> list[Rule]:
        """The rules among which the base classes choose, the plainest first; one where the settings leave no choice.

        has_words: whether there are class words. Only ``start=similarity`` in the symmetric form starts from a rule;
        other heads get the published values.
        """
        if not self.residual or self.form == "positional":
            published = (0.5 if self.blend is None else self.blend, self.sharpness or 9.0)
            weight = 0.2 if self.word_weight is None else self.word_weight
            return [_rule(*published, self.query_mass or "all", weight)]
        blends = BLENDS if self.blend is None else (self.blend,)
        sharpnesses = SHARPNESSES if self.sharpness is None else (self.sharpness,)
        masses = tuple(MASS) if self.query_mass is None else (self.query_mass,)
        weight = 0.0 if self.word_weight is None or not has_words else self.word_weight
        return [
            _rule(*values, weight)
            for values in itertools.product(blends, sharpnesses, masses if self.squeeze else ("supports",))
        ]


def _rule(blend: float, sharpness: float, query_mass: QueryMass, word_weight: float) -> Rule:
    return Rule(blend=blend, sharpness=sharpness, query_mass=query_mass, word_weight=word_weight)
