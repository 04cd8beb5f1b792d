"""Tables of JSON that bear a digest of their own values, by which a bit that flipped on the disk is found.

Files that belong together have a list of digests instead (see ``digests``). A table that is written by itself, again
and again, has its digest inside, so that the two can never be of different states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from .json_text import json_text

CHECK = "check"
"""The key of the digest."""


def with_check(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table with the digest of its values, as JSON states them, under the key ``check``.

    >>> with_check({"accuracy": 0.5})["check"]
    '6d40636b231a0ce3'
    """
    return {**table, CHECK: _digest(table)}


def without_check(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table that was read, without their digest. Raises ValueError where it is the digest of others.

    Tables of earlier releases have no digest, and are taken as they are.
    """
    values = {key: value for key, value in table.items() if key != CHECK}
    if CHECK in table and table[CHECK] != _digest(values):
        raise ValueError("it is not as it was written")
    return values


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(table, sort_keys=True).encode()).hexdigest()[:16]
