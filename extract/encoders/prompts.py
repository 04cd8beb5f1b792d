"""Prompt templates put a class word into sentences, as an image-text model saw words in its training.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021: the unit vectors
of several sentences are averaged.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import UsageError

TEXT = "text"
TEMPLATE = "a video of {}."
ENSEMBLE = (
    TEMPLATE,
    "a photo of {}.",
    "a video clip of {}.",
    "a short video that shows {}.",
    "a frame of a video of {}.",
    "a person in a scene of {}.",
    "an example of {}.",
)


@dataclass(frozen=True)
class Templates:
    """Sentences with ``{}`` in the class word's place. name: their part of a stream's name, "" for the usual one."""

    name: str
    texts: tuple[str, ...]


def mean_of_templates(vectors: np.ndarray, templates: int) -> list[np.ndarray]:
    """The vectors [1, D] of words from those [W * templates, D] of their sentences.

    One template's vector stays as it is; of several, the mean of the unit vectors is brought to unit length.
    """
    if templates == 1:
        return list(vectors[:, None])
    means = _unit(vectors).reshape(len(vectors) // templates, templates, -1).mean(1, keepdims=True)
    return list(_unit(means))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def templates_of(asked: str) -> Templates:
    """The templates that ``asked`` stands for: "" the usual one, "ensemble" fsmm's own set, else a file, one a line.

    Raises UsageError for a file that cannot be read, or with a line that lacks ``{}``.

    >>> templates_of("").texts
    ('a video of {}.',)
    """
    if not asked:
        return Templates("", (TEMPLATE,))
    if asked == "ensemble":
        return Templates("ensemble", ENSEMBLE)
    try:
        lines = Path(asked).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The prompt templates {asked!r} cannot be read ({error}); give `ensemble` or a UTF-8 file with one a line."
        ) from None
    texts = tuple(line.strip() for line in lines if line.strip())
    if wrong := [text for text in texts if "{}" not in text]:
        raise UsageError(
            f"The prompt template {wrong[0]!r} in {asked!r} has no {{}} for the class word; add it."
        )
    if not texts:
        raise UsageError(f"The file {asked!r} holds no prompt template; write one a line, with {{}} in it.")
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=3).hexdigest()
    return Templates(f"prompts-{digest}", texts)
