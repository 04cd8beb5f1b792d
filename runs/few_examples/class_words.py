"""The class names of a user's examples as vectors, for methods that read class words."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...errors import UsageError
from .examples import Examples
from .fitted import HeadChoice


@dataclass(frozen=True)
class ClassWords:
    """The vectors of the names of N classes."""

    stream: str
    """The word stream that they are of, ``word/ENCODER``."""
    vectors: Tensor
    """float32 [N, E]."""


def no_tower(method: str) -> UsageError:
    """The error where a method reads class words, and no encoder of words is known."""
    return UsageError(
        f"Method {method!r} reads the names of classes, and no stream of the examples has a text tower; name an "
        "encoder of words by --words, or choose a method without class words."
    )


def check_words(choice: HeadChoice, examples: Examples, words: ClassWords | None, *, has_base: bool) -> None:
    """Raise UsageError where a method needs class words that are not there, or cannot use those that are.

    Without a base set nothing maps words into the space of the features, so that they must lie there.
    """
    row = choice.row
    if words is None:
        if row.words == "needed":
            raise no_tower(choice.method)
        return
    if row.words == "no":
        raise UsageError(f"Method {choice.method!r} reads no class words; leave out --words.")
    width = words.vectors.shape[1]
    for name in choice.modalities:
        own = examples.streams[name].x.shape[2]
        if own != width and row.words == "needed" and not has_base:
            raise UsageError(
                f"{words.stream} has {width} numbers and {name} has {own}, so that class words must be mapped, which "
                "is learned on base classes; name a base set with the same word stream as --base CACHE/DATASET, or "
                f"leave {name} out by --modalities."
            )
