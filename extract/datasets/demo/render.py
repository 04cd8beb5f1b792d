"""The pictures of a demo clip: a sign with a handwritten digit that moves before four textured backgrounds.

A ball that drifts behind the sign, and the sign's own unsteadiness, make the motion less than obvious.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from .design import SCENES
from .plan import Clip

_SPRITE = 128  # side of the sign's own picture, pixels
_SQUARE = np.sqrt(np.pi) / 2  # side of the square whose area is that of the unit disc
_SCENE_HUE = {"red": 2.0, "green": 125.0, "blue": 222.0, "yellow": 52.0}
# This range is wide enough to give the digit of 8 x 8 pixels smooth edges, and narrow enough for solid strokes.
_INK_FROM, _INK_TO = 5.0, 9.0


def render(clip: Clip, picture: np.ndarray) -> Iterator[np.ndarray]:
    """The ``clip.frames`` frames of a clip in order, each uint8 [height, width, 3] RGB.

    picture: uint8 [8, 8], from 0 (paper) to 16 (ink).
    """
    draws = clip.draws("frames")
    scenes = [_scene(SCENES[i], clip, draws) for i in clip.order]
    sign, ball = _sign(clip, picture, draws), _ball(draws)
    grain = _grain(clip, draws)
    moments = (np.arange(clip.frames) + 0.5) / clip.frames
    path, drift = _path(clip, moments, draws), _drift(moments, draws)
    for number in range(clip.frames):
        frame = scenes[number * len(scenes) // clip.frames].copy()
        _paste(frame, ball, drift[number])
        _paste(frame, sign, path[number])
        if grain is not None:
            top, left = draws.integers(0, 32, 2)
            noise = grain[top : top + clip.height, left : left + clip.width]
            frame = frame + noise
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _scene(name: str, clip: Clip, draws: np.random.Generator) -> np.ndarray:
    """One background, float32 [height, width, 3]. Each colour has its pattern, whose scale and angle vary."""
    short = min(clip.width, clip.height)
    angle, phase = draws.uniform(-0.5, 0.5), draws.uniform(0, 2 * np.pi, 2)
    wave = 2 * np.pi * draws.uniform(4.0, 7.0) / short
    y, x = np.mgrid[: clip.height, : clip.width].astype(np.float32)
    u = wave * (x * np.cos(angle) + y * np.sin(angle)) + phase[0]
    v = wave * (y * np.cos(angle) - x * np.sin(angle)) + phase[1]
    level = {
        "red": lambda: np.sin(u),
        "green": lambda: np.sin(u) * np.sin(v) * 2,
        "blue": lambda: np.cos(u) + np.cos(v) - 0.7,
        "yellow": lambda: np.sin(v + 1.8 * np.sin(u)),
    }[name]()
    share = (0.5 + 0.5 * np.tanh(3 * level))[..., None]
    hue, bright = _SCENE_HUE[name] + draws.uniform(-8, 8), draws.uniform(0.85, 1.1)
    dark, light = _colour(hue, 0.75, 0.38 * bright), _colour(hue, 0.6, 0.66 * bright)
    return (dark + (light - dark) * share).astype(np.float32)


def _sign(clip: Clip, picture: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """The sign seen straight on, float32 [128, 128, 4]: RGB multiplied by alpha, alpha 0 to 1."""
    shape = clip.content.split("-")[0]
    ink = _colour(clip.hue, 0.85, draws.uniform(0.12, 0.3))
    plate = _colour(clip.hue + draws.uniform(90, 270), draws.uniform(0.02, 0.12), draws.uniform(0.88, 1.0))
    # A few specks give optical flow something to hold on to on the plain plate.
    specks = cv2.GaussianBlur(draws.normal(0, 60, (_SPRITE, _SPRITE)).astype(np.float32), (0, 0), 2.0)
    alpha, inner = _plate(shape, 0.5), _plate(shape, 0.44)
    strokes = _strokes(picture, draws)[..., None]
    colour = plate + specks[..., None]
    colour = colour + (ink - colour) * np.maximum(strokes, 1 - inner[..., None])
    return np.concatenate([colour * alpha[..., None], alpha[..., None]], 2).astype(np.float32)


def _plate(shape: str, radius: float) -> np.ndarray:
    """The coverage [128, 128] of a disc of this radius (share of the side) or of the square of the same area."""
    along = (np.arange(_SPRITE) + 0.5) / _SPRITE - 0.5
    y, x = np.meshgrid(along, along, indexing="ij")
    away = np.hypot(x, y) - radius if shape == "round" else np.maximum(abs(x), abs(y)) - radius * _SQUARE
    return np.asarray(np.clip(0.5 - away * _SPRITE, 0, 1))


def _strokes(picture: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """The ink [128, 128], 0 to 1: the handwriting, enlarged smoothly and tilted a little, in the middle of the sign."""
    padded = np.pad(picture.astype(np.float32), 2)
    scale = _SPRITE * draws.uniform(0.66, 0.74) / 8  # the digit's 8 pixels fill about 0.7 of the sign
    matrix = cv2.getRotationMatrix2D((5.5, 5.5), draws.uniform(-8, 8), scale)
    matrix[:, 2] = matrix[:, 2] + (_SPRITE / 2 - 5.5)
    large = cv2.warpAffine(padded, matrix, (_SPRITE, _SPRITE), flags=cv2.INTER_CUBIC)
    part = np.clip((cv2.GaussianBlur(large, (0, 0), 2.5) - _INK_FROM) / (_INK_TO - _INK_FROM), 0, 1)
    return np.asarray(part * part * (3 - 2 * part))


def _ball(draws: np.random.Generator) -> np.ndarray:
    """A plain ball, float32 [128, 128, 4]: RGB multiplied by alpha, alpha 0 to 1."""
    alpha = _plate("round", 0.5)[..., None]
    colour = _colour(draws.uniform(0, 360), draws.uniform(0.2, 0.9), draws.uniform(0.4, 1.0))
    return np.concatenate([colour * alpha, alpha], 2).astype(np.float32)


def _paste(frame: np.ndarray, sprite: np.ndarray, place: np.ndarray) -> None:
    """Put a sprite into the frame (float32 [height, width, 3], changed) at ``place``: a row of :func:`_path`."""
    height, width = frame.shape[:2]
    short = min(width, height)
    x, y, size, degrees = place
    middle = (_SPRITE - 1) / 2
    # OpenCV turns anticlockwise for positive angles; ours are clockwise.
    matrix = cv2.getRotationMatrix2D((middle, middle), -degrees, size * short / _SPRITE)
    centre = np.array([(width - 1) / 2 + x * short, (height - 1) / 2 + y * short])
    reach = int(np.ceil(0.72 * size * short))  # half the diagonal and a little more
    left, top = np.clip(np.floor(centre).astype(int) - reach, 0, (width, height))
    right, bottom = np.clip(np.ceil(centre).astype(int) + reach, 0, (width, height))
    if left >= right or top >= bottom:
        return
    matrix[:, 2] += centre - middle - (left, top)
    seen = cv2.warpAffine(sprite, matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
    part = frame[top:bottom, left:right]
    part[...] = part * (1 - seen[..., 3:]) + seen[..., :3]


def _grain(clip: Clip, draws: np.random.Generator) -> np.ndarray | None:
    """A noise picture a little larger than the frame, of which every frame shows another part."""
    if not clip.grain:
        return None
    return clip.grain * draws.standard_normal((clip.height + 32, clip.width + 32, 1), np.float32)


def _path(clip: Clip, moments: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """The sign's path [frames, 4]: x and y from the middle, its size (shares of the short side), its angle (degrees).

    Angles grow clockwise and y grows downwards, as usual in pictures.
    """
    reach = draws.uniform(0.19, 0.25)
    x, y, scale, angle = _MOVES[clip.motion](moments, reach, draws)
    zero = np.zeros_like(moments)
    aside = draws.uniform(-0.04, 0.04, 2) + _shake(moments * clip.seconds, clip.draws("shake"))
    return np.stack([x + aside[:, 0], y + aside[:, 1], clip.sign * (zero + scale), zero + angle], 1)


def _shake(seconds: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """The shifts of an unsteady hand, [frames, 2] in shares of the short side, about as fast as the motions."""
    waves = np.sin(
        2 * np.pi * (draws.uniform(0.7, 3.0, (2, 3)) * seconds[:, None, None] + draws.uniform(0, 1, (2, 3)))
    )
    return np.asarray(0.012 * waves.sum(2) / draws.uniform(1.0, 3.0))


def _drift(moments: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """The ball's path [frames, 4], in the form of :func:`_path`, across the frame in any direction for any class."""
    bearing, aside = draws.uniform(0, 2 * np.pi), draws.uniform(-0.5, 0.5)
    along = np.array([np.cos(bearing), np.sin(bearing)])
    place = np.outer(draws.uniform(0.5, 1.2) * (moments - draws.uniform(0.2, 0.8)), along) + aside * along[
        ::-1
    ] * (-1, 1)
    size = np.full((len(moments), 1), draws.uniform(0.15, 0.35))
    return np.concatenate([place, size, np.zeros_like(size)], 1)


_Move = tuple[np.ndarray | float, np.ndarray | float, np.ndarray | float, np.ndarray | float]


def _there_and_back(t: np.ndarray) -> np.ndarray:
    """A coordinate that goes from -1 to 1 and back at constant speed."""
    return 1 - 4 * abs(t - 0.5)


def _line(dx: float, dy: float) -> Callable[..., _Move]:
    return lambda t, reach, draws: (reach * dx * (2 * t - 1), reach * dy * (2 * t - 1), 1.0, 0.0)


def _turn(dx: float, dy: float) -> Callable[..., _Move]:
    """A motion that goes first along (dx, dy), then back."""
    return lambda t, reach, draws: (
        reach * dx * _there_and_back(t),
        reach * dy * _there_and_back(t),
        1.0,
        0.0,
    )


def _spin(sense: int) -> Callable[..., _Move]:
    return lambda t, reach, draws: (0.0, 0.0, 1.0, sense * (t - draws.uniform()) * draws.uniform(300, 420))


def _swell(sense: int) -> Callable[..., _Move]:
    return lambda t, reach, draws: (0.0, 0.0, 0.92 + sense * 1.2 * reach * _there_and_back(t), 0.0)


def _sway(t: np.ndarray, reach: float, draws: np.random.Generator) -> _Move:
    return 0.6 * reach * np.sin(2 * np.pi * (draws.uniform(2.6, 3.4) * t + draws.uniform())), 0.0, 1.0, 0.0


def _circle(t: np.ndarray, reach: float, draws: np.random.Generator) -> _Move:
    turn = 2 * np.pi * (draws.uniform(0.9, 1.3) * t + draws.uniform())
    return 0.8 * reach * np.cos(turn), 0.8 * reach * np.sin(turn), 1.0, 0.0


_MOVES: dict[str, Callable[..., _Move]] = {
    "slide-up-right": _line(0.8, -0.8),
    "slide-down-left": _line(-0.8, 0.8),
    "slide-up-left": _line(-0.8, -0.8),
    "slide-down-right": _line(0.8, 0.8),
    "spin-clockwise": _spin(1),
    "spin-anticlockwise": _spin(-1),
    "left-then-right": _turn(-1, 0),
    "right-then-left": _turn(1, 0),
    "slide-up": _line(0, -1),
    "slide-down": _line(0, 1),
    "sway": _sway,
    "grow-then-shrink": _swell(1),
    "shrink-then-grow": _swell(-1),
    "slide-right": _line(1, 0),
    "slide-left": _line(-1, 0),
    "circle-clockwise": _circle,
    "up-then-down": _turn(0, -1),
    "down-then-up": _turn(0, 1),
}


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """The RGB colour, float32 [3] from 0 to 255, of a hue in degrees."""
    pixel = np.array([[[hue % 360, saturation, min(value, 1.0)]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255
