"""Relations from the files of WordNet (Fellbaum, 1998): index.noun, data.noun and their like, read as plain text.

Two nodes are related by the number of pointers between their nearest senses, in either direction: 1 / (1 + pointers).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...errors import UsageError
from .terms import terms_of

KINDS = ("noun", "verb", "adj", "adv")
_LETTER = {"n": "n", "v": "v", "a": "a", "s": "a", "r": "r"}
_OPPOSITE = "!"  # Antonyms are no relation of likeness.
HOPS = 2
"""Senses that are more pointers apart than this are not related."""
Sense = tuple[str, int]


class WordNet:
    """The senses of WordNet, and the pointers between them. folder: the folder of its files.

    Raises UsageError where the folder does not hold them, or a line is not of their form.
    """

    def __init__(self, folder: Path) -> None:
        self.senses: dict[str, list[Sense]] = defaultdict(list)
        self.near: dict[Sense, set[Sense]] = defaultdict(set)
        for kind in KINDS:
            self._read(folder / f"index.{kind}", self._read_index)
            self._read(folder / f"data.{kind}", self._read_data)

    def _read(self, path: Path, take: Callable[[Sequence[str], str], None]) -> None:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(file, 1):
                    if not line.startswith(" "):  # the licence, at the top
                        take(line.split("|")[0].split(), f"{str(path)!r}, line {number}")
        except OSError as error:
            raise UsageError(
                f"WordNet's file {str(path)!r} cannot be read ({error.strerror}); install the dictionary (Debian's "
                "package wordnet-base) and give its folder by --data."
            ) from None

    def _read_index(self, fields: Sequence[str], place: str) -> None:
        """lemma pos senses pointers symbol... senses tagged offset..."""
        try:
            letter, count = _LETTER[fields[1]], int(fields[2])
            offsets = [int(text) for text in fields[-count:]] if count else []
        except (IndexError, KeyError, ValueError):
            raise _strange(place) from None
        self.senses[fields[0].replace("_", " ").casefold()] += [(letter, offset) for offset in offsets]

    def _read_data(self, fields: Sequence[str], place: str) -> None:
        """offset file type words word id ... pointers symbol offset pos source ..."""
        try:
            sense = (_LETTER[fields[2]], int(fields[0]))
            at = 4 + 2 * int(fields[3], 16)
            for i in range(int(fields[at])):
                symbol, offset, letter = fields[at + 1 + 4 * i : at + 4 + 4 * i]
                if symbol != _OPPOSITE:
                    other = (_LETTER[letter], int(offset))
                    self.near[sense].add(other)
                    self.near[other].add(sense)
        except (IndexError, KeyError, ValueError):
            raise _strange(place) from None

    def edges(self, texts: Sequence[str]) -> tuple[list[tuple[int, int, float]], list[str]]:
        """The edges between nodes of these names, and the names that WordNet does not know."""
        senses = [
            {sense for term in terms_of(text, self.senses.__contains__) for sense in self.senses[term]}
            for text in texts
        ]
        holders: dict[Sense, set[int]] = defaultdict(set)
        for i, own in enumerate(senses):
            for sense in own:
                holders[sense].add(i)
        edges = []
        for i, own in enumerate(senses):
            for j, hops in self._reached(own, holders):
                if j > i:
                    edges.append((i, j, 1 / (1 + hops)))
        return sorted(edges), [text for text, own in zip(texts, senses) if not own]

    def _reached(self, own: set[Sense], holders: dict[Sense, set[int]]) -> Iterator[tuple[int, int]]:
        """Each node that senses lead to, and by how few pointers."""
        seen, front, found = set(own), set(own), set[int]()
        for hops in range(HOPS + 1):
            for node in sorted({j for sense in front for j in holders.get(sense, ())} - found):
                found.add(node)
                yield node, hops
            front = {other for sense in front for other in self.near.get(sense, ())} - seen
            seen |= front


def _strange(place: str) -> UsageError:
    return UsageError(
        f"{place} is not of the form of WordNet's files; give the folder of WordNet 3 by --data."
    )
