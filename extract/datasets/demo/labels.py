"""The catalog of the demo dataset: its label sets, their words and class splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ....cache.catalog import UNLABELLED, Catalog, LabelSet, split_codes
from ....cache.schema import BASE, CLASS_SPLITS, NOVEL, VAL
from .design import (
    MOTIONS,
    SCENE_WORDS,
    SCENES,
    SOUNDS,
    VERSION,
    Event,
    content_digit,
    content_words,
    events,
    order_split,
    orders,
)
from .plan import Clip

DATASET = "demo"

_SIDEWAYS = {"left-then-right", "right-then-left", "slide-right", "slide-left", "sway"}
_VERTICAL = {"slide-up", "slide-down", "up-then-down", "down-then-up"}
_REVERSING = {"sway", *(motion for motion in MOTIONS if "-then-" in motion)}
_STEADY = {"beeps", "telephone", "organ", "bells", "plucked-strings"}
_STEADY |= {"tone-then-hiss", "hiss-then-tone", "knocks-then-hum", "hum-then-knocks"}
_NOISY = {"engine", "buzz", "clock", "drums", "tone-then-hiss", "hiss-then-tone"}
_RHYTHMIC = {"beeps", "telephone", "plucked-strings", "zaps", "clock", "bells", "drums", "chirps"}
_RHYTHMIC |= {"knocks-then-hum", "hum-then-knocks"}
_GLIDING = {"zaps", "siren", "chirps", "rise-then-fall", "fall-then-rise"}
_DIAGONAL = {"slide-up-right", "slide-down-left", "slide-up-left", "slide-down-right"}


def _heard(sounds: set[str]) -> Callable[[Clip], bool]:
    return lambda clip: clip.has_sound and clip.sound in sounds


# Each tag has its class split and a function that says whether the tag holds for a clip.
TAGS: dict[str, tuple[str, Callable[[Clip], bool]]] = {
    "round sign": (BASE, lambda clip: clip.content.startswith("round")),
    "odd digit": (BASE, lambda clip: content_digit(clip.content) % 2 == 1),
    "digit with a loop": (BASE, lambda clip: content_digit(clip.content) in (0, 6, 8, 9)),
    "red background first": (BASE, lambda clip: SCENES[clip.order[0]] == "red"),
    "green background first": (BASE, lambda clip: SCENES[clip.order[0]] == "green"),
    "cool ink": (BASE, lambda clip: 150 <= clip.hue < 270),
    "sideways motion": (BASE, lambda clip: clip.motion in _SIDEWAYS),
    "diagonal motion": (BASE, lambda clip: clip.motion in _DIAGONAL),
    "turning motion": (BASE, lambda clip: clip.motion.split("-")[0] in ("spin", "circle")),
    "steady pitch": (BASE, _heard(_STEADY)),
    "noisy sound": (BASE, _heard(_NOISY)),
    "loud sound": (BASE, lambda clip: clip.has_sound and clip.gain > 0.5),
    "large sign": (VAL, lambda clip: clip.sign > 0.6),
    "grainy picture": (VAL, lambda clip: clip.grain > 3),
    "growing or shrinking": (VAL, lambda clip: "shrink" in clip.motion),
    "gliding pitch": (VAL, _heard(_GLIDING)),
    "yellow background first": (VAL, lambda clip: SCENES[clip.order[0]] == "yellow"),
    "square sign": (NOVEL, lambda clip: clip.content.startswith("square")),
    "even digit": (NOVEL, lambda clip: content_digit(clip.content) % 2 == 0),
    "warm ink": (NOVEL, lambda clip: clip.hue < 60 or clip.hue >= 330),
    "vertical motion": (NOVEL, lambda clip: clip.motion in _VERTICAL),
    "reversing motion": (NOVEL, lambda clip: clip.motion in _REVERSING),
    "rhythmic sound": (NOVEL, _heard(_RHYTHMIC)),
    "silence": (NOVEL, lambda clip: not clip.has_sound),
    "blue background first": (NOVEL, lambda clip: SCENES[clip.order[0]] == "blue"),
}


def catalog_of(clips: Sequence[Clip], small: bool, seed: int) -> Catalog:
    """The catalog of planned clips, one row a clip, with label sets event, content, motion, sound, order and tags."""
    classes = events(small)
    label_sets = {
        "event": _events(clips, classes),
        "content": _factor(clips, classes, "content", content_words),
        "motion": _factor(clips, classes, "motion", MOTIONS.__getitem__),
        "sound": _factor(clips, classes, "sound", SOUNDS.__getitem__),
        "order": _orders(clips),
        "tags": _tags(clips),
    }
    silent = sum(not clip.has_sound for clip in clips) / len(clips)
    attrs = {
        "title": "fsmm demo: synthetic clips of moving handwritten digits with synthetic sounds",
        "synthetic": "true",
        "form": "small" if small else "full",
        "seed": str(seed),
        "generator_version": str(VERSION),
        "share_without_sound": f"{silent:.3f}",
        "handwriting": "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI; CC BY 4.0), "
        "as shipped with scikit-learn",
    }
    return Catalog(
        DATASET,
        [clip.clip_id for clip in clips],
        label_sets,
        "event",
        path=[clip.path for clip in clips],
        attrs=attrs,
    )


def _events(clips: Sequence[Clip], classes: Sequence[Event]) -> LabelSet:
    splits = {event.name: event.split for event in classes}
    words = [event.words for event in classes]
    return _label_set(
        splits, words, [classes[clip.event].name if clip.event >= 0 else None for clip in clips]
    )


def _factor(
    clips: Sequence[Clip], classes: Sequence[Event], factor: str, words: Callable[[str], str]
) -> LabelSet:
    """The label set of one factor, whose values are the classes; a value's split is that of the events that have it."""
    splits: dict[str, str] = {getattr(event, factor): event.split for event in classes}
    values = [getattr(clip, factor) if clip.event >= 0 else None for clip in clips]
    return _label_set(splits, [words(value) for value in splits], values)


def _orders(clips: Sequence[Clip]) -> LabelSet:
    names = {order: "-".join(SCENES[i] for i in order) for order in orders()}
    splits = {name: order_split(order) for order, name in names.items()}
    words = ["background of " + ", then ".join(SCENE_WORDS[i] for i in order) for order in names]
    return _label_set(splits, words, [names[clip.order] if clip.event >= 0 else None for clip in clips])


def _tags(clips: Sequence[Clip]) -> LabelSet:
    """The label set of the tags that hold for any labelled clip; the small form has fewer motions and sounds."""
    labelled = [clip for clip in clips if clip.event >= 0]
    held = {tag: row for tag, row in TAGS.items() if any(row[1](clip) for clip in labelled)}
    hot = [[clip.event >= 0 and holds(clip) for _, holds in held.values()] for clip in clips]
    codes = _codes({tag: split for tag, (split, _) in held.items()})
    return LabelSet(list(held), np.array(hot, np.uint8), splits={"default": codes})


def _label_set(splits: dict[str, str], words: list[str], values: Sequence[str | None]) -> LabelSet:
    """A label set with a default class split.

    splits: class name to its split. values: each clip's class name, None if the clip has none.
    """
    index = {name: i for i, name in enumerate(splits)}
    label = [UNLABELLED if value is None else index[value] for value in values]
    return LabelSet(list(splits), np.array(label, np.int32), words, {"default": _codes(splits)})


def _codes(splits: dict[str, str]) -> np.ndarray:
    lists = [[name for name, held in splits.items() if held == split] for split in CLASS_SPLITS]
    return split_codes(list(splits), *lists)
