"""The classes of published benchmarks and their class splits, which come with the package as data.

Each file of ``class_splits`` holds ``splits`` (by name, lists of class names under base, val and novel), ``aliases``
(other published spellings of a class) and ``words`` (readable texts of classes), the last two where there are any.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import numpy as np

from ...cache.catalog import LabelSet, readable, split_codes

PARTS = ("base", "val", "novel")
DEFAULT = "default"
LABEL_SET = "class"


@dataclass(frozen=True)
class ClassFacts:
    """The classes of a benchmark.

    splits: by name, the classes of base, val and novel, in the order in which published lists number them. ``default``
    is the usual one.
    """

    name: str
    splits: dict[str, dict[str, list[str]]]
    aliases: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    def class_names(self) -> list[str]:
        """The names of all classes that any split has, sorted."""
        return sorted({name for split in self.splits.values() for part in PARTS for name in split[part]})

    def by_key(self) -> dict[str, str]:
        """The name of each class by the key of each of its published spellings."""
        return {class_key(name): name for name in self.class_names()} | {
            class_key(other): name for other, name in self.aliases.items()
        }

    def numbered(self, part: str, number: int) -> str | None:
        """The class that published lists give a number instead of a name, such as 8 of ``base`` for train8."""
        names = self.splits[DEFAULT][part]
        return names[number] if number < len(names) else None

    def label_set(self, labels: Sequence[str], class_names: Sequence[str]) -> LabelSet:
        """The label set of clips whose classes have the names ``labels``, with the published class splits."""
        index = {name: i for i, name in enumerate(class_names)}
        return LabelSet(
            list(class_names),
            np.array([index[name] for name in labels], np.int32),
            [self.words.get(name, readable(name)) for name in class_names],
            {name: self._codes(name, class_names) for name in self.splits},
            dict.fromkeys(self.splits, f"published with {self.name}"),
        )

    def _codes(self, split: str, class_names: Sequence[str]) -> np.ndarray:
        """The codes of a class split over the classes that there are."""
        held = set(class_names)
        return split_codes(
            class_names, *([name for name in self.splits[split][part] if name in held] for part in PARTS)
        )


def class_key(name: str) -> str:
    """What is the same for all spellings of a class: its letters and digits in lower case.

    >>> class_key("HandStandPushups") == class_key("handstand pushups")
    True
    >>> class_key("Closing [something]") == class_key("Closing something")
    True
    """
    return re.sub(r"[^0-9a-z]", "", name.lower())


@cache
def class_facts(name: str) -> ClassFacts:
    """The facts about the data set ``name`` that come with the package."""
    text = (files(__package__) / "class_splits" / f"{name}.json").read_text("utf-8")
    return ClassFacts(name, **json.loads(text))
