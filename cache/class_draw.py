"""Class splits that are drawn by a seed where they are named: ``random:8:3``, ``random:8+4/10:3``.

No stored class split can have such a name, since a colon is no part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError, brief

PREFIX = "random:"
_FORM = re.compile(
    rf"{PREFIX}(?P<novel>\d{{1,9}})(\+(?P<val>\d{{1,9}}))?(/(?P<base>\d{{1,9}}))?:(?P<seed>\d{{1,18}})",
    re.ASCII,
)
_SEEDS = re.compile(rf"{PREFIX}[^:]*:(?P<first>\d{{1,18}})-(?P<last>\d{{1,18}})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ClassDraw:
    """The rule of a class split that is drawn, written ``random:NOVEL[+VAL][/BASE]:SEED``.

    >>> draw = ClassDraw.parse("random:2+1/3:7")
    >>> draw.novel, draw.val, draw.base, draw.seed
    (2, 1, 3, 7)
    >>> np.bincount(draw.codes(9), minlength=4).tolist()  # none, base, val, novel
    [3, 3, 1, 2]
    >>> draw.origin(9)
    'drawn by seed 7 from 9 classes: 3 base, 1 val, 2 novel'
    """

    novel: int
    """The number of novel classes, one or more."""
    val: int = 0
    """The number of val classes."""
    base: int | None = None
    """The number of base classes; None for all that are neither novel nor val."""
    seed: int
    """The seed of numpy's ``default_rng``."""

    @classmethod
    def parse(cls, name: str) -> ClassDraw:
        """The rule that a name states. Raises UsageError for another form, or where no class would be novel."""
        found = _FORM.fullmatch(name)
        if found is None:
            raise UsageError(
                f"Class split {brief(name)} is not of the form {PREFIX}NOVEL[+VAL][/BASE]:SEED, whole numbers of "
                f"classes and a seed such as {PREFIX}8:3 or {PREFIX}8+4/10:3."
            )
        novel, seed = int(found["novel"]), int(found["seed"])
        if not novel:
            raise UsageError(
                f"Class split {name!r} has no novel class; draw one or more, such as {PREFIX}8:{seed}."
            )
        base = None if found["base"] is None else int(found["base"])
        return cls(novel=novel, val=int(found["val"] or 0), base=base, seed=seed)

    def codes(self, classes: int) -> np.ndarray:
        """The codes int8 [C] of the classes: 0 none, 1 base, 2 val, 3 novel.

        Of ``default_rng(seed).permutation(C)`` the first ``novel`` are novel and the next ``val`` are val; of the
        others the first ``base`` in the label set's order are base. Fewer base classes are hence some of more ones.
        Raises UsageError where there are not so many classes.
        """
        needed = self.novel + self.val + (self.base or 0)
        if needed > classes:
            raise UsageError(
                f"A class split of {self.base or 0} base, {self.val} val and {self.novel} novel classes needs {needed} "
                f"classes, and the label set has {classes}; draw fewer."
            )
        order = np.random.default_rng(self.seed).permutation(classes)
        codes = np.zeros(classes, np.int8)
        codes[order[: self.novel]] = 3
        codes[order[self.novel : self.novel + self.val]] = 2
        codes[np.flatnonzero(codes == 0)[: self.base]] = 1
        return codes

    def origin(self, classes: int) -> str:
        """Where the class split of so many classes comes from, in words."""
        base = classes - self.novel - self.val if self.base is None else self.base
        return f"drawn by seed {self.seed} from {classes} classes: {base} base, {self.val} val, {self.novel} novel"


def seed_range(name: str) -> range | None:
    """The seeds of a name that stands for a draw by each of them; None for any other name.

    >>> seed_range("random:8:0-19"), seed_range("random:8:3")
    (range(0, 20), None)
    """
    found = _SEEDS.fullmatch(name)
    return None if found is None else range(int(found["first"]), int(found["last"]) + 1)


def by_each_seed(name: str) -> list[str]:
    """The names of the draws that a name with a range of seeds stands for; the name itself for any other.

    >>> by_each_seed("random:8/5:3-5"), by_each_seed("s0")
    (['random:8/5:3', 'random:8/5:4', 'random:8/5:5'], ['s0'])
    """
    seeds = seed_range(name)
    return [name] if seeds is None else [f"{name.rpartition(':')[0]}:{seed}" for seed in seeds]


def is_drawn(name: str) -> bool:
    """Whether the name of a class split is meant to say how it is drawn."""
    return name.startswith(PREFIX)
