"""Static embeddings turn class words into vectors: Potion, GloVe, or the user's own.

Pennington, Socher and Manning, "GloVe: Global Vectors for Word Representation", EMNLP 2014. Potion: Minish
Lab's model2vec. A text of which no word is known has no vector, which is an error of that text; it never gets zeros.
"""

from __future__ import annotations

import importlib
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DecodeError, WeightsError
from ..contract import TextNeed
from .base import BaseEncoder, Spec

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class WordEncoder(BaseEncoder):
    """The encoder of a string to the mean [1, E] of the vectors of its known words.

    ``encode`` raises DecodeError for a text of which no word is known.
    """

    need = TextNeed()
    batch_clips = 256

    @abstractmethod
    def rows(self, text: str) -> tuple[list[int], list[str]]:
        """The rows of the vectors that make up ``text``, and its words that have none."""

    @abstractmethod
    def table(self) -> np.ndarray:
        """The vectors [V, E] of the vocabulary."""

    def unknown_words(self, text: str) -> list[str]:
        """The words of ``text`` that this encoder has no vector for, in order."""
        return self.rows(text)[1]

    def pool(self, vectors: np.ndarray) -> np.ndarray:
        """The vector [E] of a text from the vectors [W, E] of its words."""
        return vectors.mean(0)

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        table = self.table()
        result = []
        for text in batch:
            rows, _ = self.rows(str(text))
            if not rows:
                raise DecodeError(f"Encoder {self.name!r} has no vector for any word of {text!r}.")
            result.append(self.pool(np.asarray(table[rows], np.float32))[None])
        return result


class Potion(WordEncoder):
    """The encoder potion-base-8M, 256-d: the mean over word pieces, brought to unit length."""

    preprocessing = "lower case word pieces without specials, mean, unit length"

    def rows(self, text: str) -> tuple[list[int], list[str]]:
        tokenizer, table, unknown_id = self.network
        pieces = tokenizer.encode(text, add_special_tokens=False)
        known = [i != unknown_id and i < len(table) for i in pieces.ids]
        missing = [text[start:end] for (start, end), keep in zip(pieces.offsets, known) if not keep]
        return [i for i, keep in zip(pieces.ids, known) if keep], missing

    def table(self) -> np.ndarray:
        return self.network[1]

    def pool(self, vectors: np.ndarray) -> np.ndarray:
        mean = vectors.mean(0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)

    def _load(self) -> Any:
        assert self.spec.weights is not None
        path = self.spec.weights.path
        try:
            table = importlib.import_module("safetensors.numpy").load_file(path)["embeddings"]
            tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(
                str(path.with_name("tokenizer.json"))
            )
        except Exception as error:  # tokenizers and safetensors raise errors of their own kinds.
            raise WeightsError(
                f"{str(path)!r} is not a Potion model with its tokenizer.json beside it ({error}); fetch "
                "it again."
            ) from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer, table, tokenizer.token_to_id("[UNK]")


class Glove(WordEncoder):
    """The encoder GloVe 6B, 50-d: the mean over a text's words."""

    preprocessing = "lower case words, mean"

    def rows(self, text: str) -> tuple[list[int], list[str]]:
        index, _ = self.network
        words = split_words(text)
        return [index[w] for w in words if w in index], [w for w in words if w not in index]

    def table(self) -> np.ndarray:
        return self.network[1]

    def _load(self) -> Any:
        assert self.spec.weights is not None
        path = self.spec.weights.path
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            parquet = importlib.import_module("pyarrow.parquet")
            words = parquet.read_table(path.with_name("glove_6B_index.parquet")).column(0).to_pylist()
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{str(path)!r} is not a GloVe table with glove_6B_index.parquet beside it ({error}); "
                "fetch it again."
            ) from None
        return _indexed(words, vectors, path)


class GloveFile(Glove):
    """The encoder of the user's own word vectors: the mean over a text's words.

    The file is an .npz with ``words`` [V] and ``vec`` [V, E].
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.dim = int(self.network[1].shape[1])

    def _load(self) -> Any:
        assert self.spec.weights is not None
        path = self.spec.weights.path
        try:
            with np.load(path, allow_pickle=False) as file:
                words, vectors = [str(word) for word in file["words"]], np.asarray(file["vec"], np.float32)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsError(
                f"{str(path)!r} is not an .npz with text `words` [V] and numbers `vec` [V, E] ({error})."
            ) from None
        return _indexed(words, vectors, path)


def split_words(text: str) -> list[str]:
    """The lower-case words of a text: runs of letters and digits, with inner apostrophes."""
    return _WORD.findall(text.lower())


def _indexed(words: Sequence[str], vectors: np.ndarray, path: Path) -> tuple[dict[str, int], np.ndarray]:
    if vectors.ndim != 2 or len(words) != len(vectors) or not len(words):
        raise WeightsError(
            f"{str(path)!r} holds {len(words)} words and vectors of shape {list(vectors.shape)}; "
            "they must be [V] and [V, E]."
        )
    index = {word: row for row, word in enumerate(words)}
    for row, word in enumerate(words):  # "Karate" answers to "karate" unless that is a word of its own
        index.setdefault(word.lower(), row)
    return index, vectors
