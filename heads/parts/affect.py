"""How emotional the classes of objects are, by the valence and arousal of their names in an affect lexicon.

No lexicon is shipped. A lexicon is a text file of lines "word, valence, arousal", separated by tabs or commas, with
values in 0..1, as the NRC VAD lexicon has them (Mohammad, ACL 2018); further columns and a line of headings are passed
over. The norms of Warriner et al. (Behavior Research Methods 2013), which `fsmm encoders --fetch warriner-affect` gets,
are known by their headings and brought from 1..9 to 0..1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import UsageError
from ...machine.files import refuse_special

Lexicon = Mapping[str, tuple[float, float]]
"""The valence and arousal of words in lower case, each in 0..1."""
WARRINER = ("Word", "V.Mean.Sum", "A.Mean.Sum")
"""The headings of the words, the mean valences and the mean arousals of the norms of Warriner et al."""
NEUTRAL = (0.5, 0.0)
"""The valence and arousal of a name that no lexicon knows: it has no affect."""


def read_lexicon(path: Path) -> Lexicon:
    """The lexicon in a file. Raises UsageError, with the line, where it cannot be read or a value is not in 0..1."""
    found: dict[str, tuple[float, float]] = {}
    lines = _lines(path, "affect lexicon")
    heading = _parts(lines[0]) if lines else []
    norms = set(WARRINER) <= set(heading)
    columns = [heading.index(name) for name in WARRINER] if norms else [0, 1, 2]
    for number, line in enumerate(lines, 1):
        word, *values = _parts(line)
        try:
            valence, arousal = (_value(_parts(line)[place], norms=norms) for place in columns[1:])
        except (IndexError, ValueError):
            if found or len(values) < 2:
                raise UsageError(
                    f"Line {number} of the affect lexicon {str(path)!r} is not a word, its valence and its arousal, "
                    "separated by tabs or commas."
                ) from None
            continue  # The headings.
        if not (0 <= valence <= 1 and 0 <= arousal <= 1):
            raise UsageError(
                f"Line {number} of the affect lexicon {str(path)!r} has a value outside 0..1; bring valence and "
                "arousal to 0..1, as version 1 of the NRC VAD lexicon has them."
            )
        found[word.lower()] = (valence, arousal)
    if not found:
        raise UsageError(f"The affect lexicon {str(path)!r} holds no word.")
    return found


def _parts(line: str) -> list[str]:
    return [part.strip() for part in re.split(r"[\t,;]", line)]


def _value(text: str, *, norms: bool) -> float:
    """A valence or an arousal in 0..1; norms are means of ratings from 1 to 9."""
    return (float(text) - 1) / 8 if norms else float(text)


def read_names(path: Path) -> list[str]:
    """The names in a file, one a line. Raises UsageError where it cannot be read or holds none."""
    names = list(_lines(path, "list of object classes"))
    if not names:
        raise UsageError(f"The list of object classes {str(path)!r} is empty; write one name a line.")
    return names


def affects(names: Sequence[str], lexicon: Lexicon) -> tuple[list[float], list[str]]:
    """The affect |(V - 1/2, A/2)| of each name, in 0..0.71, and the names that the lexicon does not know.

    A name of several words that the lexicon does not hold as a whole has the mean of those words that it holds.

    >>> affects(["knife", "teddy bear", "xyz"], {"knife": (0.5, 1.0), "bear": (1.0, 0.0)})
    ([0.5, 0.5, 0.0], ['xyz'])
    """
    found, unknown = [], []
    for name in names:
        words = [name.lower(), *re.split(r"[\s_-]+", name.lower())]
        known = [lexicon[word] for word in words[:1] if word in lexicon] or [
            lexicon[word] for word in words[1:] if word in lexicon
        ]
        if not known:
            unknown.append(name)
        valence, arousal = (sum(v) / len(v) for v in zip(*(known or [NEUTRAL])))
        found.append(math.hypot(valence - 0.5, arousal / 2))
    return found, unknown


def _lines(path: Path, what: str) -> list[str]:
    """The lines of a text file that are not empty. Raises UsageError where it cannot be read."""
    refuse_special(path, what)
    try:
        return [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"The {what} {str(path)!r} cannot be read ({why}).") from None
