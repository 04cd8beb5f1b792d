"""The passport of a stream: the features of a few built-in clips, made by the encoder and on the machine that began it.

Whoever opens the cache elsewhere makes the same features again and sees whether new clips would fit the old ones. A
passport is a shard beside those of the stream, ``passport.h5``, whose rows are the built-in clips (for class words, the
words of the built-in handful), and whose log holds a coarse picture of what the decoder gave, so that a difference can
be laid at the door of decoder, colours, resampling, weights, arithmetic or the type that features are stored in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.schema import PASSPORT, Provenance, StreamName, stream_folder
from ..cache.shard import Shard, build_shard, read_shard, write_shard
from ..errors import DecodeError
from .built_in.clips import FOLDER, HANDFUL_CLASSES, ODD
from .built_in.series import AXES, CLASSES, made_windows
from .contract import (
    AudioNeed,
    Decoded,
    Encoder,
    FrameNeed,
    Need,
    Sampling,
    SeriesNeed,
    TextNeed,
    single_needs,
)
from .datasets.base import Source
from .decoding.decode import decode
from .pipeline.worker import READY, prepare_part

SAMPLING = Sampling(segments=2)  # It is the same for every stream, so that a passport costs little.
_CLIPS = ("rotated", "ten-bit", "odd-sound")
_COARSE = 4  # The side of the coarse picture of a frame.
_BANDS = 8
_SAME_COSINE = 0.9999
_COLOUR = 1.5  # levels of 255
_SOUND = 0.02  # share of a sound's energy, or of its length


@dataclass(frozen=True)
class Comparison:
    """A stream's passport beside what this machine makes of the same clips."""

    stream: str
    """The stream's name."""
    cosine: float
    """The smallest cosine between old and new features of a clip, averaged over time."""
    largest: float
    """The largest difference of a number, in units of the largest number of the old features."""
    same: bool
    """Whether new features fit the old ones."""
    cause: str
    """The likely cause of a difference, "" where there is none."""


def passport_path(folder: Path, stream: StreamName) -> Path:
    """The file of a stream's passport; it need not exist."""
    return stream_folder(folder, stream) / PASSPORT


def write_passport(folder: Path, encoder: Encoder, provenance: Provenance) -> None:
    """Make the passport of the stream that an encoder fills, and write it.

    Raises DecodeError where the encoder can use none of the built-in clips, and whatever the encoder raises.
    """
    stream = StreamName(encoder.modality, encoder.name)
    write_shard(passport_path(folder, stream), made(folder.name, encoder, provenance))


def made(dataset: str, encoder: Encoder, provenance: Provenance) -> Shard:
    """The passport that this machine would write for a stream of a data set."""
    rows: list[tuple[str, np.ndarray | None, Mapping[str, object]]] = []
    inputs: dict[str, object] = {}
    for name, features, seen in _features(encoder):
        rows.append((name, features, {}))
        inputs[name] = seen
    if all(features is None for _, features, _ in rows):
        raise DecodeError(f"Encoder {encoder.name!r} can use none of the built-in clips.")
    return build_shard(dataset, provenance, rows, {"inputs": inputs})


def rows_of(passport: Shard) -> dict[str, list[list[float]]]:
    """The features of a passport by clip, as plain lists [T][D]; clips that the encoder cannot use are left out."""
    return {
        key: passport.clip(row).astype(np.float64).tolist()
        for row, key in enumerate(passport.key)
        if passport.present[row]
    }


def _features(encoder: Encoder) -> Iterator[tuple[str, np.ndarray | None, object]]:
    """The name, the features and the coarse input of each row of a passport."""
    if isinstance(encoder.need, TextNeed):
        for words in HANDFUL_CLASSES.values():
            try:
                yield words[0], encoder.encode([words[0]])[0], words[0]
            except DecodeError:  # The vocabulary does not hold the word.
                yield words[0], None, words[0]
        return
    if isinstance(encoder.need, SeriesNeed):
        for label in range(CLASSES):
            windows = made_windows(label, 0, getattr(encoder, "axes", AXES))
            seen = {"windows": list(windows.shape), "power": round(float((windows**2).mean()), 6)}
            yield f"series-{label}", encoder.encode([encoder.prepare(windows)])[0], seen
        return
    for name, source in passport_clips().items():
        decoded = decode(source, name, [encoder.need], SAMPLING)
        part = prepare_part(encoder, decoded)
        features = encoder.encode([part.value])[0] if part.state == READY else None
        yield name, features, coarse_input(decoded, encoder)


def passport_clips() -> dict[str, Source]:
    """The built-in clips of a passport: three odd ones, and one whose picture moves."""
    odd = {clip.name: clip.source for clip in ODD if clip.name in _CLIPS}
    return {**odd, "star-0": Source(video=FOLDER / "star-0.mp4")}


def coarse_input(decoded: Decoded, encoder: Encoder) -> dict[str, Any]:
    """What a decoder gave an encoder, in few numbers: coarse pictures of two frames, or length and bands of a sound."""
    return {
        key: value for need in single_needs([encoder.need]) for key, value in _coarse(decoded, need).items()
    }


def _coarse(decoded: Decoded, need: Need) -> dict[str, Any]:
    if isinstance(need, FrameNeed) and need in decoded.frames:
        frames = decoded.frames[need].reshape(-1, *decoded.frames[need].shape[2:])
        parts = [
            [np.array_split(row, _COARSE, axis=1) for row in np.array_split(frame, _COARSE, axis=0)]
            for frame in (frames[0], frames[-1])
        ]
        pictures = [[[part.mean((0, 1)).round(1).tolist() for part in row] for row in f] for f in parts]
        return {"frames": len(frames), "pictures": pictures}
    if isinstance(need, AudioNeed) and need in decoded.audio:
        samples = decoded.audio[need]
        power = np.abs(np.fft.rfft(samples)) ** 2
        bands = [float(band.sum()) for band in np.array_split(power, _BANDS)]
        shares = [round(band / max(sum(bands), 1e-12), 5) for band in bands]
        return {"samples": len(samples), "power": round(float((samples**2).mean()), 6), "bands": shares}
    return {}


def compare(folder: Path, encoder: Encoder, held: Provenance, made_now: Provenance) -> Comparison:
    """Make a stream's passport again with this machine's encoder, and compare.

    held: the origin of the stream. made_now: the origin that new features would have. Raises CacheError where the
    passport cannot be read, and whatever the encoder raises.
    """
    stream = StreamName(encoder.modality, encoder.name)
    old = read_shard(passport_path(folder, stream))
    if encoder.dim != held.dim:
        cause = f"weights: features have {encoder.dim} numbers here and {held.dim} in the cache"
        return Comparison(str(stream), 0.0, float("inf"), False, cause)
    new = made(folder.name, encoder, old.provenance)
    rows = {key: row for row, key in enumerate(new.key)}
    cosine, largest, changed = 1.0, 0.0, []
    for i, key in enumerate(old.key):
        j = rows.get(key)
        if not old.is_right(i) or j is None or old.present[i] != new.present[j]:
            changed.append(key)
            continue
        if not old.present[i]:
            continue
        a, b = (shard.clip(row).astype(np.float64) for shard, row in ((old, i), (new, j)))
        cosine = min(cosine, _cosine(a.mean(0), b.mean(0)))
        if a.shape == b.shape:
            largest = max(largest, float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)))
        else:
            changed.append(key)
    same = not changed and cosine >= _SAME_COSINE
    cause = _cause(old, new, held, made_now, changed=changed) if not same or largest > 0 else ""
    return Comparison(str(stream), cosine, largest, same, cause)


def _cause(old: Shard, new: Shard, held: Provenance, made_now: Provenance, *, changed: list[str]) -> str:
    """The likely cause of a difference: what provenance says, then what the decoders gave, then the network."""
    if held.weights_sha256 != made_now.weights_sha256:
        return f"weights: {held.weights_sha256[:12]} in the cache, {made_now.weights_sha256[:12]} here"
    if held.preprocessing != made_now.preprocessing:
        return f"version: the input is prepared differently ({held.preprocessing!r} in the cache)"
    inputs = [shard.written.get("inputs") for shard in (old, new)]
    if all(isinstance(found, dict) for found in inputs) and (says := _cause_of_inputs(*inputs)):
        return says
    if changed:
        return f"decoder: {', '.join(changed)} is usable on one machine only, or has other steps"
    if held.dtype != made_now.dtype:
        return f"dtype: features are stored as {held.dtype} in the cache and as {made_now.dtype} here"
    return "arithmetic: the same input gives other features (processor, GPU, or version of the network's library)"


def _cause_of_inputs(old: Any, new: Any) -> str:
    """The first difference between what two decoders gave; "" where they gave the same."""
    for name in sorted(set(old) & set(new)):
        a, b = old[name], new[name]
        if not (isinstance(a, dict) and isinstance(b, dict)):
            continue
        if bool(a) != bool(b) or a.get("frames") != b.get("frames"):
            return f"decoder: clip {name} gives other frames"
        if "pictures" in a and "pictures" in b:
            if says := _cause_of_pictures(name, np.array(a["pictures"]), np.array(b["pictures"])):
                return says
        elif "samples" in a and "samples" in b:
            longer = abs(a["samples"] - b["samples"]) / max(a["samples"], 1)
            bands = float(np.abs(np.array(a["bands"]) - np.array(b["bands"])).sum())
            louder = abs(a["power"] - b["power"]) / max(a["power"], 1e-9)
            if longer > _SOUND:
                return f"decoder: the sound of {name} has {b['samples']:,} samples, not {a['samples']:,}"
            if bands > _SOUND or louder > _SOUND:
                return f"resampling: the sound of {name} has another spectrum or level"
    return ""


def _cause_of_pictures(name: str, old: np.ndarray, new: np.ndarray) -> str:
    """The clause about coarse pictures [2, S, S, 3] that differ; one shift or scale of all colours is the colours'."""
    off = float(np.abs(old - new).max())
    if off <= _COLOUR:
        return ""
    design = np.concatenate([old.reshape(-1, 3), np.ones((old.size // 3, 1))], 1)
    solution = np.linalg.lstsq(design, new.reshape(-1, 3), rcond=None)[0]
    left = float(np.abs(design @ solution - new.reshape(-1, 3)).max())
    if left <= _COLOUR:
        return f"colour: the colours of {name} differ by up to {off:.0f} of 255 levels, everywhere alike"
    return f"decoder: the pictures of {name} differ by up to {off:.0f} of 255 levels"


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
