"""Word streams hold one row for the words of each class of each label set.

Each shard's log keeps a digest of the text behind each row, so that words that a dataset changes are embedded anew.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.catalog import Catalog
from ...cache.schema import StreamName, shard_paths
from ...cache.shard import Shard, read_shard
from ...cache.stream import lock_stream, stream_keys
from ...errors import DecodeError
from ..contract import Encoder, Sampling
from .lane import Clock, provenance_of
from .passports import write_passport_of
from .writing import open_writer, writable

_SHARD_ROWS = 256  # so that a shard's log, with a digest a row, stays well inside HDF5's 64 KiB an attribute


@dataclass
class Words:
    """The outcome of a word stream. unknown: keys whose words the encoder does not know, recorded as absent."""

    written: int = 0
    held: int = 0
    unknown: list[str] = field(default_factory=list)


def class_texts(catalog: Catalog) -> dict[str, str]:
    """A mapping from "label set/class name" to the class's words, over all label sets."""
    return {
        f"{name}/{class_name}": text
        for name, labels in catalog.label_sets.items()
        for class_name, text in zip(labels.class_names, labels.words)
    }


def embed_words(folder: Path, catalog: Catalog, encoder: Encoder, dtype: str, clock: Clock) -> Words:
    """Bring one word stream up to date. Raises CacheError if the cache cannot be written."""
    texts = class_texts(catalog)
    stream = StreamName(encoder.modality, encoder.name)
    _drop_changed(folder, stream, texts)
    with open_writer(folder, provenance_of(encoder, Sampling(), dtype, axis="class")) as writer:
        held = stream_keys(folder, stream)
        write_passport_of(folder, encoder, writer)
        missing = [key for key in texts if key not in held]
        result = Words(held=len(texts) - len(missing))
        for start in range(0, len(missing), _SHARD_ROWS):
            keys = missing[start : start + _SHARD_ROWS]
            with clock("words"):
                vectors = [_embed(encoder, texts[key]) for key in keys]
            writer.log = {"text": [_digest(texts[key]) for key in keys]}
            for key, vector in zip(keys, vectors):
                writer.add(key, vector)
            writer.flush()
            result.written += sum(vector is not None for vector in vectors)
            result.unknown += [key for key, vector in zip(keys, vectors) if vector is None]
    return result


def _embed(encoder: Encoder, text: str) -> np.ndarray | None:
    """The text's vector [1, E], or None if the encoder knows none of the words."""
    try:
        return encoder.encode([text])[0]
    except DecodeError:
        return None


def _drop_changed(folder: Path, stream: StreamName, texts: dict[str, str]) -> None:
    """Remove each shard that holds a class whose words have changed; its other rows are then made again too."""
    paths = shard_paths(folder, stream)
    if not paths:
        return
    with writable(folder):
        lock = lock_stream(paths[0].parent, stream)
        try:
            for path in paths:
                if _outdated(read_shard(path, features=False), texts):
                    path.unlink()
        finally:
            os.close(lock)


def _outdated(shard: Shard, texts: dict[str, str]) -> bool:
    digests = shard.written.get("text")
    if not isinstance(digests, list) or len(digests) != len(shard):
        return False  # The vectors were imported, so their maker answers for them.
    return any(key in texts and _digest(texts[key]) != digest for key, digest in zip(shard.key, digests))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def unknown_words(stream: StreamName, words: Words) -> str:
    """A sentence about the classes without a word vector; "" if all have one."""
    if not words.unknown:
        return ""
    named = ", ".join(repr(key) for key in words.unknown[:5])
    more = f" and {len(words.unknown) - 5} more" if len(words.unknown) > 5 else ""
    return (
        f"{stream} knows no word of {named}{more}: these classes have no word vector there; choose another word "
        "encoder if you need them."
    )
