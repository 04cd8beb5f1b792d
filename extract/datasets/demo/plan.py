"""The plan of the demo dataset's clips, with everything about each that is drawn by chance before rendering."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from .design import MOTIONS, SHAPES, SOUNDS, VERSION, Event, content_digit, events, orders

CLIPS_A_CLASS, UNLABELLED_CLIPS = 30, 60
SMALL_CLIPS_A_CLASS, SMALL_UNLABELLED_CLIPS = 8, 8
SHARE_WITHOUT_SOUND = 0.1
SECONDS = (2.0, 4.0)
SIZES = ((160, 120), (176, 144), (192, 144), (192, 108), (128, 128), (144, 176), (120, 160), (192, 128))
RATES = (12, 15, 24, 25, 30)
SOUND_RATES = (16_000, 22_050, 44_100)


@dataclass(frozen=True)
class Clip:
    """One clip before it is rendered.

    content, motion, sound: values of the design. event: index of its class, -1 if the clip is unlabelled.
    order: indices of the four scenes as they follow one another. sample: row of ``load_digits``.
    width, height: pixels. fps: frames a second. frames: their number, a multiple of 8. sign: side of the sign as a
    share of the shorter side of the frame. hue: hue of the ink, degrees. grain: standard deviation of the noise, grey
    levels. gain: peak of the sound, 0 to 1. sound_rate: Hz. has_sound: whether the file gets a sound track. key: the
    seed of all other draws.
    """

    clip_id: str
    content: str
    motion: str
    sound: str
    event: int
    order: tuple[int, ...]
    sample: int
    width: int
    height: int
    fps: int
    frames: int
    sign: float
    hue: float
    grain: float
    gain: float
    sound_rate: int
    has_sound: bool
    key: int

    @property
    def path(self) -> str:
        """The clip's path in the dataset's folder."""
        return f"{self.clip_id.partition('-')[0]}/{self.clip_id}.mp4"

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def draws(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose, the same whenever and wherever the clip is rendered."""
        return _generator(self.key, purpose)


@dataclass(frozen=True)
class _Slot:
    """The content, motion and sound of a clip whose looks are not drawn yet."""

    name: str
    content: str
    motion: str
    sound: str
    event: int
    has_sound: bool


def plan_clips(small: bool = False, seed: int = 0) -> list[Clip]:
    """All clips of the dataset, labelled ones first: 52 x 30 + 60, in the small form 16 x 8 + 8.

    The plan depends on the arguments alone. No two clips of one content show the same handwriting sample.
    """
    classes = events(small)
    labelled = _labelled_slots(classes, SMALL_CLIPS_A_CLASS if small else CLIPS_A_CLASS, seed)
    unlabelled = _unlabelled_slots(classes, SMALL_UNLABELLED_CLIPS if small else UNLABELLED_CLIPS, seed)
    slots = labelled + unlabelled
    samples = _samples([slot.content for slot in slots], seed)
    sequence = _orders(len(labelled), len(slots), seed)
    return [
        _draw_looks(slot=slot, order=order, sample=sample, small=small, seed=seed)
        for slot, order, sample in zip(slots, sequence, samples)
    ]


def pictures() -> np.ndarray:
    """The handwriting samples, uint8 [1797, 8, 8] from 0 (paper) to 16 (ink), in scikit-learn's order."""
    return np.asarray(_digits()[0].reshape(-1, 8, 8).astype(np.uint8))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits: their grey values [1797, 64] and the digit that each shows [1797]."""
    from sklearn.datasets import load_digits  # It takes a second, which renderers save.

    values, target = load_digits(return_X_y=True)
    return values, target


def _labelled_slots(classes: list[Event], clips: int, seed: int) -> list[_Slot]:
    """Clip 0 of every class, then clip 1 of every class and so on, so that the first clips are of many classes."""
    silent = max(round(SHARE_WITHOUT_SOUND * clips), 1)
    ranks = [_generator(seed, f"silent/{event.name}").permutation(clips) for event in classes]
    return [
        _Slot(
            name=f"e{index:02d}-{i:02d}",
            content=event.content,
            motion=event.motion,
            sound=event.sound,
            event=index,
            has_sound=bool(ranks[index][i] >= silent),
        )
        for i in range(clips)
        for index, event in enumerate(classes)
    ]


def _unlabelled_slots(classes: list[Event], clips: int, seed: int) -> list[_Slot]:
    """The unlabelled clips: half show the events in turn from the last (novel) on, half show any combination."""
    draws = _generator(seed, "unlabelled")
    contents = sorted({event.content for event in classes})
    silent = draws.permutation(clips) < max(round(SHARE_WITHOUT_SOUND * clips), 1)
    slots = []
    for i in range(clips):
        if i < clips // 2:
            event = classes[-1 - i % len(classes)]
            content, motion, sound = event.content, event.motion, event.sound
        else:
            digit = contents[i % len(contents)].split("-")[1]
            content = f"{draws.choice(SHAPES)}-{digit}"
            motion, sound = str(draws.choice(list(MOTIONS))), str(draws.choice(list(SOUNDS)))
        slots.append(
            _Slot(
                name=f"u-{i:02d}",
                content=content,
                motion=motion,
                sound=sound,
                event=-1,
                has_sound=not silent[i],
            )
        )
    return slots


def _samples(contents: list[str], seed: int) -> list[int]:
    """A row of ``load_digits`` for each clip, which shows the digit of its content.

    A digit's samples are dealt in one shuffled order, from the front for round signs and from the back for square ones:
    a sample comes twice only if both shapes need more samples than exist, and never twice with one shape.
    """
    target = _digits()[1]
    decks = {
        digit: _generator(seed, f"digit/{digit}").permutation(np.flatnonzero(target == digit))
        for digit in range(10)
    }
    dealt: Counter[str] = Counter()
    samples = []
    for content in contents:
        deck, place = decks[content_digit(content)], dealt[content]
        samples.append(int(deck[place] if content.startswith("round") else deck[-1 - place]))
        dealt[content] += 1
    return samples


def _orders(labelled: int, clips: int, seed: int) -> list[tuple[int, ...]]:
    """The order of scenes of every clip, dealt whatever the event.

    Every order comes equally often among the labelled clips, and equally often among the others.
    """
    choices, draws = orders(), _generator(seed, "orders")
    parts = [draws.permutation(np.arange(n) % len(choices)) for n in (labelled, clips - labelled)]
    return [choices[i] for i in np.concatenate(parts)]


def _draw_looks(slot: _Slot, order: tuple[int, ...], sample: int, small: bool, seed: int) -> Clip:
    # Features are cached by clip id, so clips that differ must not share one.
    clip_id = f"{'s' if small else ''}{slot.name}{f'-seed{seed}' if seed else ''}"
    key = _number(seed, clip_id)
    draws = _generator(key, "looks")
    width, height = (64, 64) if small else SIZES[draws.integers(len(SIZES))]
    fps = 8 if small else RATES[draws.integers(len(RATES))]
    # A multiple of 8 gives the four scenes equally many frames, also if a clip is cut into eight segments.
    fewest, most = math.ceil(SECONDS[0] * fps / 8), math.floor(SECONDS[1] * fps / 8)
    frames = 8 * (fewest if small else int(draws.integers(fewest, most + 1)))
    return Clip(
        clip_id=clip_id,
        content=slot.content,
        motion=slot.motion,
        sound=slot.sound,
        event=slot.event,
        order=order,
        sample=sample,
        width=width,
        height=height,
        fps=fps,
        frames=frames,
        sign=draws.uniform(0.52, 0.66),
        hue=draws.uniform(0, 360),
        grain=float(draws.choice([0.0, 2.0, 4.0])),
        gain=10 ** draws.uniform(-0.7, -0.05),
        sound_rate=16_000 if small else SOUND_RATES[draws.integers(len(SOUND_RATES))],
        has_sound=slot.has_sound,
        key=key,
    )


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(_number(seed, purpose)))


def _number(*parts: object) -> int:
    """A seed of 63 bits, made from printable values and the version."""
    text = "/".join(str(part) for part in (VERSION, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
