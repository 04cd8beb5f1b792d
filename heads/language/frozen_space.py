"""Frozen space: Learning Transferable Visual Models From Natural Language Supervision (Radford et al., ICML 2021), the
zero-shot classifier of CLIP.

A query goes to the class whose words have the greatest cosine with it, in the space that the encoder and its text tower
already share; nothing is trained. Other words are mapped by a ridge regression to the means of base classes. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .word_head import WordHead, WordSettings, WordTask


@dataclass(frozen=True)
class FrozenSpaceSettings(WordSettings):
    """The settings of the frozen space."""


class FrozenSpace(WordHead[FrozenSpaceSettings]):
    Settings = FrozenSpaceSettings

    def decide(self, task: WordTask) -> Tensor:
        return task.text_logits
