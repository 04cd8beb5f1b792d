"""How many planted near-duplicates `fsmm cache duplicates` finds, kind by kind, and how many different clips it joins.

    python scripts/duplicates.py --demo fsmm-demo/clips --clips FOLDER_OF_REAL_CLIPS --work FOLDER --other CACHE/ave28 \
        --out docs/results/trust.json

Copies of some clips are made by PyAV: re-encoded at three qualities, cropped, resized, shifted in time, muted, as a
still with the sound, as a still without it, and with another clip's pictures under the sound. Originals and copies are
extracted together; a pair is right where both come from one original. Everything is drawn by a fixed seed.

The originals are divided into two halves. Thresholds are chosen on the first: for each modality the least margin, in
steps of 0.05, that joins at most 0.02 % of its pairs of different clips. Recall and false alarms are those of the
second half with the defaults of the command, which are these thresholds.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from figures.data import UNKNOWN, Data, Figure, Table, put_tables

import fsmm
from fsmm.cache.catalog import Catalog
from fsmm.cache.duplicate_groups import PREFIX, grouped
from fsmm.cache.duplicates import VIEWS, alike, clip_features, near_duplicates, whitened
from fsmm.cache.schema import list_streams

STREAMS = ("frame", "audio", "hash/picture-hash")
ALLOWED = 2e-4
"""The share of pairs of different clips that a threshold may join in the half where it is chosen."""
CUT_FROM = {"part_0.mp4": "test.mp4"}
"""Real clips that were cut from another one, which the search found and eyes confirmed."""
Frames = list[np.ndarray]
KINDS: dict[str, dict[str, Any]] = {
    "re-encoded, crf 18": {"crf": "18"},
    "re-encoded, crf 28": {"crf": "28"},
    "re-encoded, crf 38": {"crf": "38"},
    "cropped by 10 % on each side": {"crop": 0.1},
    "resized to a half": {"resize": 0.5},
    "shifted by a fifth": {"shift": 0.2},
    "muted": {"mute": True},
    "still with its sound": {"still": True},
    "still without sound": {"still": True, "mute": True},
    "its sound under other pictures": {"other": True},
}


def read(path: Path) -> tuple[Frames, float, np.ndarray | None]:
    """The frames, the frames a second, and the mono sound at 16 kHz of a clip, at most ten seconds of it."""
    with av.open(str(path), metadata_errors="ignore") as file:
        video = next(iter(file.streams.video), None)
        if video is None:
            return [], 0.0, None
        rate = float(video.average_rate or 25)
        frames = []
        for frame in file.decode(video):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) >= 10 * rate:
                break
    sound = None
    with av.open(str(path), metadata_errors="ignore") as file:
        if file.streams.audio:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
            parts = [p.to_ndarray()[0] for f in file.decode(audio=0) for p in resampler.resample(f)]
            sound = np.concatenate(parts)[:160_000] if parts else None
    return frames, rate, sound


def write(path: Path, frames: Frames, rate: float, sound: np.ndarray | None, crf: str = "23") -> None:
    height, width = (size // 2 * 2 for size in frames[0].shape[:2])
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=round(rate), options={"crf": crf, "preset": "veryfast"})
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        video.codec_context.thread_count = 1
        track = file.add_stream("aac", rate=16_000, layout="mono") if sound is not None else None
        for picture in frames:
            cut = np.ascontiguousarray(picture[:height, :width])
            file.mux(video.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        file.mux(video.encode(None))
        if track is not None:
            frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16_000
            file.mux(track.encode(frame))
            file.mux(track.encode(None))


def changed(
    frames: Frames, sound: np.ndarray | None, how: dict[str, Any], other: Frames
) -> tuple[Frames, Any]:
    """The frames and the sound of a copy."""
    if share := how.get("crop"):
        y, x = (round(size * share) for size in frames[0].shape[:2])
        frames = [f[y : f.shape[0] - y, x : f.shape[1] - x] for f in frames]
    if factor := how.get("resize"):
        height, width = (round(size * factor / 2) * 2 for size in frames[0].shape[:2])
        frames = [
            av.VideoFrame.from_ndarray(f, format="rgb24")
            .reformat(width=width, height=height, format="rgb24")
            .to_ndarray()
            for f in frames
        ]
    if share := how.get("shift"):
        frames = frames[round(share * len(frames)) :]
        sound = None if sound is None else sound[round(share * len(sound)) :]
    if how.get("still"):
        frames = [frames[len(frames) // 2]] * len(frames)
    if how.get("other"):
        frames = other
    return frames, None if how.get("mute") else sound


def plant(originals: Sequence[Path], chosen: Sequence[int], folder: Path) -> dict[str, tuple[str, str]]:
    """Write originals and copies; the original and the kind ("" for originals) of each clip by its id."""
    about: dict[str, tuple[str, str]] = {}
    for number, path in enumerate(originals):
        frames, rate, sound = read(path)
        if not frames:
            continue
        name = f"{number:04d}"
        write(folder / "original" / f"{name}.mp4", frames, rate, sound, crf="20")
        about[f"original/{name}.mp4"] = (name, "")
        if number not in chosen:
            continue
        stranger = read(originals[(number + 7) % len(originals)])[0] or frames
        for k, (kind, how) in enumerate(KINDS.items()):
            if sound is None and ((how.get("mute") and not how.get("still")) or how.get("other")):
                continue  # The copy would be the original, or nothing of it.
            new_frames, new_sound = changed(frames, sound, how, stranger)
            write(folder / "copy" / f"{name}-{k}.mp4", new_frames, rate, new_sound, how.get("crf", "23"))
            about[f"copy/{name}-{k}.mp4"] = (name, kind)
    return about


def measured(cache: Path, about: dict[str, tuple[str, str]], same: dict[str, str]) -> dict[str, Any]:
    """Recall by kind against the original, and the share of pairs of different clips that are joined.

    same: originals that were cut from another one, with that one.
    """
    folder = cache / "planted"
    catalog = Catalog.read(folder)
    truth = {clip: about[key] for clip in catalog.clip_id if (key := key_of(clip, about))}
    source = {clip: same.get(name, name) for clip, (name, _) in truth.items()}
    first = half_of(source.values())
    chosen = chosen_thresholds(folder, catalog, {c: s for c, s in source.items() if s in first}, truth)
    pairs = near_duplicates(folder, catalog)
    truth = {clip: told for clip, told in truth.items() if source[clip] not in first}
    pairs = [pair for pair in pairs if {pair.first, pair.second} <= truth.keys()]
    found = {frozenset((pair.first, pair.second)) for pair in pairs}
    original = {name: clip for clip, (name, kind) in truth.items() if not kind}
    hits: dict[str, list[bool]] = defaultdict(list)
    for clip, (name, kind) in truth.items():
        if kind:
            hits[kind].append(frozenset((clip, original[name])) in found)
    # A copy with the pictures of another clip is rightly joined with that one, too.
    stranger = next(kind for kind, how in KINDS.items() if "other" in how)
    plain = {clip for clip, (_, kind) in truth.items() if kind != stranger}
    false = [p for p in pairs if {p.first, p.second} <= plain and source[p.first] != source[p.second]]
    counts = np.unique([source[clip] for clip in plain], return_counts=True)[1]
    return {
        "chosen": chosen,
        "recall": {kind: {"found": sum(h), "of": len(h)} for kind, h in sorted(hits.items())},
        "false_pairs": len(false),
        "different_pairs": (len(plain) ** 2 - int((counts**2).sum())) // 2,
        "false": [f"{p.by} {p.likeness:.2f}: {p.first} {p.second}" for p in false],
    }


def half_of(sources: Iterable[str]) -> set[str]:
    """Half of the sources, drawn by a fixed seed."""
    every = sorted(set(sources))
    drawn = np.random.default_rng(1).permutation(len(every))[: len(every) // 2]
    return {every[i] for i in drawn.tolist()}


def chosen_thresholds(
    folder: Path, catalog: Catalog, source: dict[str, str], truth: dict[str, tuple[str, str]]
) -> dict[str, float]:
    """The threshold of each modality by the clips of ``source``, which names the original of each."""
    stranger = next(kind for kind, how in KINDS.items() if "other" in how)
    mine = np.array([clip in source and truth[clip][1] != stranger for clip in catalog.clip_id])
    number = {name: i for i, name in enumerate(dict.fromkeys(source.values()))}
    of = np.array([number[source[clip]] if clip in source else -1 for clip in catalog.clip_id])
    counts = np.bincount(of[mine])
    different = (int(mine.sum()) ** 2 - int((counts**2).sum())) // 2
    found = {}
    for stream in list_streams(folder):
        clips = clip_features(folder, stream, catalog.clip_id)
        pairs = alike(whitened(clips, VIEWS.get(stream.modality, 1)), -1.0)
        false = np.array([m for i, j, m in pairs if mine[i] and mine[j] and of[i] != of[j]])
        grid = np.arange(0.1, 0.71, 0.05)
        right = next((t for t in grid if (false >= t).sum() <= ALLOWED * different), 1.0)
        found[stream.modality] = round(float(right), 2)
    return found


def joined_in(place: Path) -> dict[str, float]:
    """What the defaults join in another data set of a cache, of which no copies are known."""
    catalog = Catalog.read(place)
    pairs = near_duplicates(place, catalog)
    sizes = Counter(name for name in grouped(catalog, pairs) if name.startswith(PREFIX))
    every = len(catalog) * (len(catalog) - 1) / 2
    return {
        "pairs joined": len(pairs),
        "pairs joined, % of all": 100 * len(pairs) / every,
        "groups": len(sizes),
        "clips in groups": sum(sizes.values()),
        "clips of the largest group": max(sizes.values(), default=0),
    }


def as_figures(result: dict[str, Any]) -> Data:
    """The figures of the page of results: the recall of each kind of copy, the false alarms, and the other data set."""
    tables = [
        Table("duplicates", corner="copy", details="copies", columns=("found, %",), digits=1),
        Table("duplicates-false", corner="", details="pairs", columns=("joined, %",), digits=4),
        Table("duplicates-ave28", corner="", columns=("figure",)),
    ]
    rows: list[tuple[Table, str, str | None, float]] = [
        (tables[0], kind, f"{counts['of']}", 100 * counts["found"] / counts["of"])
        for kind, counts in result["recall"].items()
    ]
    share = 100 * result["false_pairs"] / result["different_pairs"]
    rows.append((tables[1], "pairs of different clips", f"{result['different_pairs']:,}", share))
    rows += [(tables[2], name, None, round(value, 4)) for name, value in result.get("other", {}).items()]
    command = f"python scripts/duplicates.py --demo DEMO --clips CLIPS --work WORK --copied {result['asked']}"
    command += " --other CACHE/ave28"
    figures = [
        Figure(
            page="trust",
            table=table.name,
            row=row,
            column=table.columns[0],
            part=None,
            details=details,
            value=value,
            unit="%" if "%" in row + table.columns[0] else "",
            interval=None,
            interval_over=None,
            difference=None,
            difference_widths=UNKNOWN,
            episodes=None,
            command=command,
            commit=None,
            note=None,
            run=None,
        )
        for table, row, details, value in rows
    ]
    return Data({table.name: table for table in tables}, figures)


def key_of(clip: str, about: dict[str, tuple[str, str]]) -> str:
    return next((key for key in about if key.removesuffix(".mp4") == clip.removesuffix(".mp4")), "")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--demo", type=Path, required=True, help="the clips of the demo set")
    options.add_argument("--clips", type=Path, required=True, help="real clips")
    options.add_argument(
        "--work", type=Path, required=True, help="an empty folder for the copies and the cache"
    )
    options.add_argument("--copied", type=int, default=30, help="the number of demo clips with copies")
    options.add_argument(
        "--other", type=Path, help="a data set of a cache without known copies, CACHE/DATASET"
    )
    options.add_argument("--out", type=Path, help="the file of figures whose tables are replaced")
    given = options.parse_args()
    demo = sorted(given.demo.rglob("*.mp4"))
    real = sorted(p for p in given.clips.rglob("*") if p.suffix in (".mp4", ".avi"))
    chosen = np.random.default_rng(0).permutation(len(demo))[: given.copied].tolist()
    chosen += range(len(demo), len(demo) + len(real))
    clips, told = given.work / "clips", given.work / "about.json"
    if not told.is_file():
        for name in ("original", "copy"):
            (clips / name).mkdir(parents=True, exist_ok=True)
        told.write_text(json.dumps(plant([*demo, *real], chosen, clips)))
    about = {key: tuple(value) for key, value in json.loads(told.read_text()).items()}
    fsmm.extract("folder", clips, given.work / "cache", STREAMS, name="planted")
    numbers = {path.name: f"{number:04d}" for number, path in enumerate([*demo, *real])}
    same = {
        numbers[part]: numbers[whole] for part, whole in CUT_FROM.items() if {part, whole} <= set(numbers)
    }
    figures = measured(given.work / "cache", about, same)
    result = {"demo": len(demo), "real": len(real), "copied": len(chosen), "asked": given.copied, **figures}
    if given.other:
        result["other"] = joined_in(given.other)
    print(json.dumps(result, indent=2))
    if given.out:
        put_tables(given.out, as_figures(result))


if __name__ == "__main__":
    main()
