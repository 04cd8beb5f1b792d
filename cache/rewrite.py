"""Rows of a stream that are given another key, or dropped, in the shards that hold them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from .schema import StreamName, shard_paths, stream_folder
from .shard import Shard, clip_check, read_shard, write_shard
from .stream import lock_stream

NewKey = Callable[[str, str], str | None]
"""From a row's key and the SHA-256 of its clip's file ("" if unknown) to the key it shall have, None to drop it."""


def rewrite_stream(folder: Path, stream: StreamName, new_key: NewKey) -> int:
    """Give rows other keys, or drop them, and return how many were concerned.

    Shards without such rows are left alone; each other one is replaced as a whole or not at all. A row whose new key
    the stream holds already is dropped, and so is one whose features are damaged.
    Raises CacheError where another process writes the stream, or a shard cannot be read or written.
    """
    paths = shard_paths(folder, stream)
    if not paths:
        return 0
    lock = lock_stream(stream_folder(folder, stream), stream)
    try:
        wanted = {path: _new_keys(read_shard(path, features=False), new_key) for path in paths}
        held = {key for keys in wanted.values() for old, key in keys if key == old}
        count = 0
        for path, keys in wanted.items():
            if changes := sum(old != new for old, new in keys):
                _rewrite(path, [new for _, new in keys], held)
                count += changes
        return count
    finally:
        os.close(lock)


def _new_keys(shard: Shard, new_key: NewKey) -> list[tuple[str, str | None]]:
    """The key of each row, and the one that it shall have."""
    digests = shard.facts.get("sha256", np.full(len(shard), b"", "S64"))
    return [(key, new_key(key, digest.decode())) for key, digest in zip(shard.key, digests.tolist())]


def _rewrite(path: Path, keys: list[str | None], held: set[str]) -> None:
    """Write a shard with these keys again, without the rows that have none; ``held`` takes up those that are new."""
    shard = read_shard(path)
    rows, kept = [], []
    for row, (old, new) in enumerate(zip(shard.key, keys)):
        if new is not None and (new == old or (new not in held and shard.is_right(row))):
            rows.append(row)
            kept.append(new)
            held.add(new)
    if not rows:
        path.unlink()
        return
    rest = shard.take(rows)
    checks = [
        clip_check(key, bool(rest.present[i]), rest.clip(i)) if key != rest.key[i] else int(rest.check[i])
        for i, key in enumerate(kept)
    ]
    write_shard(path, replace(rest, key=kept, check=np.array(checks, np.uint64)))
