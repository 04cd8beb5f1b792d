"""The design of the synthetic demo dataset: its factors, and the classes that they make.

A clip shows one real handwritten digit (scikit-learn's ``load_digits``) on a sign that moves before four
backgrounds, which follow one another, while a synthetic sound plays.

    factor       values  base / val / novel  carried by    separated from the others by
    content        18       8 / 5 / 5        frame         digit and shape of the sign; no digit is in two splits
    motion         18       8 / 5 / 5        flow          path of the sign; frames of a path and its reverse agree
    sound          18       8 / 5 / 5        audio         timbre and rhythm
    order          24      12 / 6 / 6        frame + time  order of the four backgrounds, nothing else
    event          52      20 / 12 / 20      all three     a combination (content, motion, sound)

No value of a factor is in two splits, so novel events are made of contents, motions and sounds never seen in base.
Within each split two events or more share each content, each motion and each sound (four of the novel ones do),
so no single modality names the event; and one factor tells little about another (docs/demo.md measures it).
Every split holds pairs of events that differ in one factor only; among the novel ones:

    differ in       pair                            what both share
    content         round-four / square-four        slide-left, drums
    motion          slide-right / up-then-down      square-zero, chirps
    sound           drums / chirps                  square-zero, slide-right
    motion's order  up-then-down / down-then-up     round-four, bells
    sound's order   rise-then-fall / fall-then-rise square-four, up-then-down

The order classes use the same four backgrounds for a quarter of the clip each, and are independent of the event:
features averaged over time carry nothing of them. The base classes are the even permutations, the val classes the
odd ones that swap two backgrounds, and the novel classes the odd ones that move all four; two classes of one split
agree in at most one place of the four.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from ....cache.schema import BASE, NOVEL, VAL

VERSION = 1  # part of every seed and of the folder's name: raise it whenever a picture or a sound changes
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPES = ("round", "square")
SCENES = ("red", "green", "blue", "yellow")
SCENE_WORDS = ("red stripes", "green checks", "blue dots", "yellow waves")

# motion -> the words of it
MOTIONS = {
    "slide-up-right": "sliding up and to the right",
    "slide-down-left": "sliding down and to the left",
    "slide-up-left": "sliding up and to the left",
    "slide-down-right": "sliding down and to the right",
    "spin-clockwise": "spinning clockwise",
    "spin-anticlockwise": "spinning anticlockwise",
    "left-then-right": "moving left and then right",
    "right-then-left": "moving right and then left",
    "slide-up": "rising from bottom to top",
    "slide-down": "sinking from top to bottom",
    "sway": "swaying quickly from side to side",
    "grow-then-shrink": "growing and then shrinking",
    "shrink-then-grow": "shrinking and then growing",
    "slide-right": "sliding from left to right",
    "slide-left": "sliding from right to left",
    "circle-clockwise": "circling clockwise",
    "up-then-down": "moving up and then down",
    "down-then-up": "moving down and then up",
}

# sound -> the words of it
SOUNDS = {
    "beeps": "steady beeps",
    "engine": "a rumbling engine",
    "plucked-strings": "plucked strings",
    "telephone": "a ringing telephone",
    "zaps": "laser zaps",
    "organ": "an organ chord",
    "knocks-then-hum": "knocking and then humming",
    "hum-then-knocks": "humming and then knocking",
    "siren": "a wailing siren",
    "clock": "a ticking clock",
    "buzz": "a buzzing saw",
    "tone-then-hiss": "a steady tone and then hissing",
    "hiss-then-tone": "hissing and then a steady tone",
    "bells": "tolling bells",
    "drums": "a drum beat",
    "chirps": "chirping birds",
    "rise-then-fall": "a whistle rising and then falling",
    "fall-then-rise": "a whistle falling and then rising",
}


@dataclass(frozen=True)
class Event:
    """One class of the main label set. ``content`` is written ``round-three``."""

    content: str
    motion: str
    sound: str
    split: str

    @property
    def name(self) -> str:
        return f"{self.content}_{self.motion}_{self.sound}"

    @property
    def words(self) -> str:
        return f"{content_words(self.content)} {MOTIONS[self.motion]} with {SOUNDS[self.sound]}"


def content_words(content: str) -> str:
    """The words of a content: ``round-three`` gives "digit three on a round sign"."""
    shape, digit = content.split("-")
    return f"digit {digit} on a {shape} sign"


def content_digit(content: str) -> int:
    """The digit that a content shows: ``round-three`` gives 3."""
    return DIGIT_WORDS.index(content.split("-")[1])


# This table was found once by annealing: every value is in two classes or more, each kind of one-factor pair is in
# each split, and under these conditions the association between factors is least.
_TABLE = {
    BASE: """
        round-two     slide-up-left       knocks-then-hum
        round-two     slide-up-left       hum-then-knocks
        round-two     slide-down-right    engine
        square-two    left-then-right     telephone
        square-two    right-then-left     telephone
        round-three   spin-clockwise      plucked-strings
        round-three   spin-anticlockwise  knocks-then-hum
        square-three  slide-down-left     engine
        square-three  slide-up-left       hum-then-knocks
        square-three  slide-down-right    plucked-strings
        round-six     slide-down-left     telephone
        round-six     slide-down-right    beeps
        round-six     spin-anticlockwise  beeps
        square-six    slide-up-right      engine
        square-six    slide-up-right      organ
        round-eight   slide-up-right      zaps
        round-eight   spin-clockwise      organ
        square-eight  slide-down-left     beeps
        square-eight  left-then-right     plucked-strings
        square-eight  right-then-left     zaps
        """,
    VAL: """
        round-one     slide-up            clock
        round-one     slide-up            buzz
        round-one     shrink-then-grow    clock
        square-one    sway                tone-then-hiss
        square-one    grow-then-shrink    siren
        round-five    grow-then-shrink    siren
        round-five    shrink-then-grow    siren
        square-five   slide-up            hiss-then-tone
        square-five   slide-down          buzz
        square-nine   slide-down          tone-then-hiss
        square-nine   slide-down          hiss-then-tone
        square-nine   sway                clock
        """,
    NOVEL: """
        round-zero    slide-right         fall-then-rise
        round-zero    slide-left          bells
        round-zero    circle-clockwise    drums
        round-zero    down-then-up        rise-then-fall
        square-zero   slide-right         drums
        square-zero   slide-right         chirps
        square-zero   circle-clockwise    fall-then-rise
        square-zero   up-then-down        chirps
        round-four    slide-left          drums
        round-four    circle-clockwise    rise-then-fall
        round-four    up-then-down        bells
        round-four    down-then-up        bells
        square-four   slide-left          drums
        square-four   up-then-down        rise-then-fall
        square-four   up-then-down        fall-then-rise
        square-four   down-then-up        chirps
        round-seven   slide-right         rise-then-fall
        round-seven   slide-left          chirps
        round-seven   circle-clockwise    bells
        round-seven   down-then-up        fall-then-rise
        """,
}

# The small form has five classes a split and one more novel; each kind of one-factor pair is in at least one split.
_SMALL = {
    BASE: (0, 1, 3, 4, 8),
    VAL: (0, 1, 2, 4, 5),
    NOVEL: (4, 5, 7, 8, 10, 12),
}


def events(small: bool = False) -> list[Event]:
    """The event classes, base first, then val, then novel: 52, or 16 of them in the small form."""
    found = []
    for split, table in _TABLE.items():
        rows = [
            Event(content, motion, sound, split)
            for content, motion, sound in (line.split() for line in table.strip().splitlines())
        ]
        found += [rows[i] for i in _SMALL[split]] if small else rows
    return found


def orders() -> list[tuple[int, ...]]:
    """The 24 orders of the four scenes, as indices into SCENES."""
    return list(permutations(range(len(SCENES))))


def order_split(order: tuple[int, ...]) -> str:
    """The split of an order: base if it is even; if it is odd, val if two scenes keep their place, else novel."""
    if _is_even(order):
        return BASE
    return VAL if any(scene == place for place, scene in enumerate(order)) else NOVEL


def _is_even(order: tuple[int, ...]) -> bool:
    inversions = sum(order[j] < order[i] for i in range(len(order)) for j in range(i + 1, len(order)))
    return inversions % 2 == 0
