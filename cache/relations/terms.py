"""What a node is looked up under in a dictionary: its name as a whole, else the words of its name that matter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

RESERVED = ("words", "none")
"""What a head calls the graph of its class words, and no graph; no relation graph has such a name."""
SOURCES = ("words", "wordnet", "conceptnet")
"""Where relations come from: the likeness of class words, or one of two dictionaries."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_ENDINGS = (("ies", "y"), ("ing", ""), ("ing", "e"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"))
STOP = frozenset(
    (
        "a",
        "an",
        "and",
        "at",
        "by",
        "for",
        "from",
        "in",
        "into",
        "of",
        "off",
        "on",
        "or",
        "over",
        "the",
        "to",
        "up",
        "with",
    )
)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case.

    >>> words_of("Pick_up the phone")
    ['pick', 'up', 'the', 'phone']
    """
    return _WORD.findall(text.casefold())


def terms_of(text: str, holds: Callable[[str], bool]) -> list[str]:
    """The terms of a dictionary that a node's name stands for; none where the dictionary knows none of them.

    holds: whether the dictionary has a term, whose words a space joins. The whole name counts alone where it is there;
    else each word that is no stop word, without its ending where only that is there.

    >>> terms_of("tennis serve", {"tennis", "serve"}.__contains__)
    ['tennis', 'serve']
    >>> terms_of("jogging", {"jog"}.__contains__), terms_of("throwing", {"throw"}.__contains__)
    (['jog'], ['throw'])
    """
    words = words_of(text)
    if whole := _known([" ".join(words)], holds):
        return whole
    return [term for word in words if word not in STOP for term in _known(_forms(word), holds)]


def _known(forms: Sequence[str], holds: Callable[[str], bool]) -> list[str]:
    """The first of the forms that a dictionary has, as a list of one; none where it has none."""
    return [form for form in forms if form and holds(form)][:1]


def _forms(word: str) -> list[str]:
    """A word, and what may be left of it without its ending."""
    found = [word]
    for end, new in _ENDINGS:
        if word.endswith(end) and len(word) > len(end) + 2:
            stem = word.removesuffix(end)
            doubled = not new and len(stem) > 2 and stem[-1] == stem[-2]
            found += [stem[:-1]] if doubled else [stem + new]
    return found
