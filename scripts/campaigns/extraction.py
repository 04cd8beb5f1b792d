"""Faults against extraction: no run may crash or hang, each reason is recorded, and nothing that was done may be lost.

    python scripts/campaigns/extraction.py [--kills 50] [--files 100] [--seed 0] [--only NAME]

A few clips of the demo are extracted undisturbed once, by the two encoders that need no weights. Then:

- kills: the run is killed (kill -9) at random instants, and in turn one of its decoding workers by a random signal;
- mutations: copies of the clips in three containers with flipped bits, a lost end, or exchanged boxes lie among them;
- disk: the cache lies on a file system that fills up (needs root);
- changes: the clips' files are replaced by one another while the run reads them;
- writers: two runs write one cache at once;
- weights: the weights of an encoder are damaged (where the weights are on this machine).

Afterwards the same command without the fault must end well, the cache must be whole, and every clip must have the
features of the undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from fsmm.cache.catalog import Catalog
from fsmm.cache.schema import StreamName, shard_paths
from fsmm.cache.shard import read_shard
from fsmm.cache.upkeep.verify import verify
from fsmm.extract.clip_files import sha256_of
from fsmm.extract.datasets import load
from fsmm.extract.datasets.base import DatasetOptions
from fsmm.extract.weights.store import entry, weight_cache

STREAMS = ("flow/dis-hof", "audio/logmel-mfcc")
CONTAINERS = (".mp4", ".mkv", ".avi")
PATIENCE = 600.0
"""Seconds after which a run counts as hung."""
CLIP_SECONDS = 20.0
"""The time limit of a clip among mutated files."""
Rows = dict[str, np.ndarray | None]


class Broken(Exception):
    """A fault that was not taken as it should be."""


@dataclass
class World:
    """What the campaigns share: clips, their undisturbed features, and the counts that are printed."""

    home: Path
    """A folder for everything."""
    clips: Path
    """A folder of clips, in folders of classes."""
    right: dict[str, Rows]
    """The features of an undisturbed run, by stream and clip."""
    seconds: float
    """The time that the undisturbed run took, its start included."""
    draw: random.Random
    """The source of chance."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often what happened."""


def command(data: Path, cache: Path, *more: object) -> list[str]:
    """An extraction of a folder by both encoders."""
    words: list[object] = ["extract", "--dataset", "folder", "--data", data, "--cache", cache, "--name", "x"]
    for stream in STREAMS:
        words += ["--encoder", stream.replace("/", "=")]
    return [sys.executable, "-m", "fsmm", *map(str, [*words, "--workers", 2, "--flush-seconds", 0.1, *more])]


def finished(words: list[str]) -> subprocess.CompletedProcess[str]:
    """The end of a command. Raises Broken where it hangs or prints a traceback."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Broken(f"it hung: {' '.join(words)}") from None
    if "Traceback" in done.stderr:
        raise Broken(f"a traceback: {done.stderr[-2000:]}")
    return done


def rows(cache: Path, stream: str) -> Rows:
    """The features of each clip. Raises Broken where a clip is stored twice."""
    found: Rows = {}
    for path in shard_paths(cache / "x", StreamName.parse(stream)):
        shard = read_shard(path)
        for i, key in enumerate(shard.key):
            if key in found:
                raise Broken(f"{key} is stored twice in {stream}")
            found[key] = shard.clip(i) if shard.present[i] else None
    return found


def same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two features are equal to the bit."""
    return one is other if one is None or other is None else np.array_equal(one, other)


def need(what: bool, sentence: str) -> None:
    """Raise Broken where something does not hold."""
    if not what:
        raise Broken(sentence)


def ends_well(world: World, cache: Path, *more: object, right: dict[str, Rows] | None = None) -> None:
    """The command without a fault ends well, and the cache is whole and holds the features of the undisturbed run."""
    done = finished(command(world.clips, cache, "-q", "--retry-failed", *more))
    need(done.returncode == 0, f"it does not go on: {done.stderr[-500:]}")
    need(verify(cache).ok, "the cache is damaged")
    for stream, expected in (world.right if right is None else right).items():
        held = rows(cache, stream)
        need(held.keys() == expected.keys(), f"{stream} holds other clips")
        need(all(same(held[key], expected[key]) for key in expected), f"{stream} holds other features")


def children(pid: int) -> list[int]:
    """The child processes of a process, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def kills(world: World, count: int) -> None:
    """Kill the run, or one of its workers, at random instants, until ``count`` were killed."""
    turn, killed = 0, 0
    while killed < count:
        cache = world.home / f"kills{turn}"
        turn += 1
        held = 0
        while killed < count:
            running = subprocess.Popen(
                command(world.clips, cache, "-q"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(world.draw.uniform(0.3, 1.0) * world.seconds)
            workers = children(running.pid)
            if running.poll() is not None:  # What kills before it had left was done sooner.
                break
            killed += 1
            if killed % 3 == 0 and workers:
                how = world.draw.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
                os.kill(world.draw.choice(workers), how)
                need(running.wait(PATIENCE) == 0, "the run did not survive the death of a worker")
                world.counts[f"a worker ended by {how.name}"] += 1
                break
            running.kill()
            running.wait()
            world.counts["kill -9 of the run"] += 1
            now = sum(len(rows(cache, stream)) for stream in STREAMS)
            need(now >= held, "clips that were stored are gone")
            held = now
        ends_well(world, cache)
        shutil.rmtree(cache)


def mutations(world: World, count: int) -> None:
    """Extract ``count`` mutated files among whole ones: each is done or has a reason, and the whole ones are right."""
    data = world.home / "mutated"
    shutil.copytree(world.clips, data)
    whole = sorted(world.clips.rglob("*.mp4"))
    kinds = (flipped, cut, exchanged)
    made = {}
    for number in range(count):
        ending = CONTAINERS[number // len(kinds) % len(CONTAINERS)]
        source = remuxed(world.draw.choice(whole), world.home / f"source{ending}")
        kind = kinds[number % len(kinds)]
        path = data / "mutated" / f"{number:03d}-{kind.__name__}{ending}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(kind(source.read_bytes(), world.draw))
        made[path.relative_to(data).as_posix()] = kind.__name__
    cache = world.home / "mutations"
    done = finished(command(data, cache, "--json", "-q", "--timeout", CLIP_SECONDS))
    need(done.returncode == 0, f"the run ended: {done.stderr[-500:]}")
    report = json.loads(done.stdout)
    log = [json.loads(line) for line in Path(report["failures_file"]).read_text().splitlines()]
    need(all(line["reason"] for line in log), "a failure has no reason")
    told = {line["id"]: line["stage"] for line in log if not line["stream"]}
    held = {stream: rows(cache, stream) for stream in STREAMS}
    for clip, kind in made.items():
        stored = all(clip in found for found in held.values())
        need(stored or clip in {line["id"] for line in log}, f"{clip} is neither done nor in the log")
        world.counts[f"{kind}: {told.get(clip, 'done')}"] += 1
    for stream, expected in world.right.items():
        need(all(same(held[stream].get(clip), x) for clip, x in expected.items()), "a whole clip is wrong")
    need(verify(cache).ok, "the cache is damaged")


def flipped(content: bytes, draw: random.Random) -> bytes:
    """The content with one to a hundred bits flipped, half of the time among the first two kilobytes."""
    changed = bytearray(content)
    reach = min(2048, len(content)) if draw.random() < 0.5 else len(content)
    for _ in range(draw.choice([1, 10, 100])):
        changed[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    """The first part of the content."""
    return content[: draw.randrange(len(content))]


def exchanged(content: bytes, draw: random.Random) -> bytes:
    """The content with two neighbouring boxes of an MP4 file, or pieces of another file, in each other's place."""
    edges = boxes(content) or sorted(draw.sample(range(len(content)), 4))
    at = draw.randrange(len(edges) - 2)
    first, middle, last = edges[at : at + 3]
    return content[:first] + content[middle:last] + content[first:middle] + content[last:]


def boxes(content: bytes) -> list[int]:
    """The places of the boxes of an MP4 file, of those within moov too, with the end; empty for another file."""
    if content[4:8] != b"ftyp":
        return []
    found, at, end = [], 0, len(content)
    while at + 8 <= end:
        size = int.from_bytes(content[at : at + 4], "big")
        found.append(at)
        if content[at + 4 : at + 8] in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            at += 8
        elif size < 8:
            break
        else:
            at += size
    return [*found, end]


def remuxed(path: Path, target: Path) -> Path:
    """The clip in the container of another name: the same packets, or in AVI, pictures that are coded anew."""
    if target.suffix == path.suffix:
        return Path(shutil.copyfile(path, target))
    with av.open(str(path)) as source, av.open(str(target), "w") as file:
        if target.suffix == ".avi":
            _recode(source, file)
        else:
            made = {stream.index: file.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = made[packet.stream.index]
                    file.mux(packet)
    return target


def _recode(source: av.container.InputContainer, file: av.container.OutputContainer) -> None:
    """Write the pictures as MPEG-4, twelve a second."""
    video = source.streams.video[0]
    made = file.add_stream("mpeg4", rate=12)
    made.width, made.height, made.pix_fmt = video.width, video.height, "yuv420p"
    for number, decoded in enumerate(source.decode(video)):
        frame = av.VideoFrame.from_ndarray(decoded.to_ndarray(format="rgb24"), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 12)
        file.mux(made.encode(frame))
    file.mux(made.encode(None))


def disk(world: World) -> None:
    """Extract into file systems that are too small, by a few kilobytes or by much."""
    size = sum(path.stat().st_size for path in (world.home / "right").rglob("*") if path.is_file())
    for share in (0.05, 0.3, 0.6, 0.9):
        with small_disk(world.home / "disk", int(share * size) // 1024) as place:
            if place is None:
                world.counts["a full disk: not tried, since nothing can be mounted"] += 1
                return
            done = finished(command(world.clips, place / "cache", "-q"))
            need(done.returncode == 1, f"it ended with {done.returncode} on a full disk")
            need(len(done.stderr.strip().splitlines()) == 1, f"not one sentence: {done.stderr[-500:]}")
            need(not list(place.rglob(".*.tmp")), "something half-written is left")
            kept = world.home / "from-disk"
            if (place / "cache").exists():
                shutil.copytree(place / "cache", kept)
            ends_well(world, kept)
            shutil.rmtree(kept)
            world.counts["a full disk"] += 1


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path | None]:
    """A file system of so many kilobytes; None where this user cannot mount one."""
    place.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={max(kilobytes, 8)}k", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(words, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def changes(world: World, rounds: int) -> None:
    """Exchange the contents of clips while the run reads them: what is stored belongs to the digest beside it."""
    by_digest = {
        stream: {sha256_of([world.clips / clip]): features for clip, features in world.right[stream].items()}
        for stream in STREAMS
    }
    for number in range(rounds):
        data, cache = world.home / f"changing{number}", world.home / f"changes{number}"
        shutil.copytree(world.clips, data)
        paths = sorted(data.rglob("*.mp4"))
        running = subprocess.Popen(
            command(data, cache, "-q"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while running.poll() is None:
            one, other = world.draw.sample(paths, 2)
            spare = one.with_suffix(".spare")
            os.replace(one, spare)
            os.replace(other, one)
            os.replace(spare, other)
            world.counts["two files exchanged"] += 1
            time.sleep(world.draw.uniform(0.0, 0.1))
        told = running.communicate()[1]
        need(running.returncode == 0, f"the run ended: {told[-500:]}")
        for stream in STREAMS:
            for path in shard_paths(cache / "x", StreamName.parse(stream)):
                shard = read_shard(path)
                for i, sha256 in enumerate(shard.facts["sha256"].tolist()):
                    found = shard.clip(i) if shard.present[i] else None
                    need(same(found, by_digest[stream][sha256.decode()]), "features of another file's digest")
        done = finished(command(data, cache, "-q", "--retry-failed"))
        need(done.returncode == 0 and verify(cache).ok, "it does not go on")
        catalog = Catalog.read(cache / "x")
        for stream in STREAMS:
            held = rows(cache, stream)
            for clip in catalog.clip_id:
                expected = by_digest[stream][sha256_of([data / clip])]
                need(same(held[clip], expected), f"{clip} has not the features of its file")


def writers(world: World, rounds: int) -> None:
    """Two runs into one cache at once: each ends well, or says in one sentence that another one writes."""
    for number in range(rounds):
        cache = world.home / f"writers{number}"
        words = command(world.clips, cache, "-q")
        both = [
            subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        told = [running.communicate(timeout=PATIENCE)[1] for running in both]
        codes = sorted(running.returncode for running in both)
        need(codes in ([0, 0], [0, 1]), f"they ended with {codes}: {told}")
        for running, text in zip(both, told):
            if running.returncode:
                need(len(text.strip().splitlines()) == 1, f"not one sentence: {text[-500:]}")
                need("Another process is writing stream" in text, f"another sentence: {text[-500:]}")
        world.counts["two writers: " + ("both ended well" if codes == [0, 0] else "one was refused")] += 1
        ends_well(world, cache)


def weights(world: World, rounds: int) -> None:
    """Damaged weights are refused in one sentence, or are those of another encoder by their digest."""
    name = "efficientnet-lite0"
    source = weight_cache() / name / entry(name).file
    if not source.is_file():
        world.counts["damaged weights: not tried, since `fsmm encoders --fetch` has not got any"] += 1
        return
    content = source.read_bytes()
    for number in range(rounds):
        path = world.home / f"weights{number}{source.suffix}"
        kind = world.draw.choice((flipped, cut))
        path.write_bytes(kind(content, world.draw))
        cache = world.home / f"weights-cache{number}"
        words = ["--encoder", f"frame={name}", "--weights", f"{name}={path}"]
        base = ["extract", "--dataset", "folder", "--data", world.clips, "--cache", cache, "-q", *words]
        done = finished([sys.executable, "-m", "fsmm", *map(str, base)])
        need(
            done.returncode == 0 or len(done.stderr.strip().splitlines()) == 1,
            f"not one sentence: {done.stderr[-500:]}",
        )
        need(done.returncode == 0 or not cache.exists(), "something is left of a run that could not begin")
        world.counts[f"{kind.__name__} weights: " + ("refused" if done.returncode else "taken")] += 1


def made_world(home: Path, seed: int, clips: int) -> World:
    """The clips, and their undisturbed extraction."""
    listing = load("demo", home / "demo", DatasetOptions(small=True, limit=clips))
    data = home / "clips"
    for number, source in enumerate(listing.sources.values()):
        assert source.video is not None
        place = data / f"class{number % 3}" / f"{number:02d}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.video, place)
    began = time.monotonic()
    done = finished(command(data, home / "right", "-q"))
    seconds = time.monotonic() - began
    need(done.returncode == 0, f"the undisturbed run ended: {done.stderr[-500:]}")
    right = {stream: rows(home / "right", stream) for stream in STREAMS}
    return World(home=home, clips=data, right=right, seconds=seconds, draw=random.Random(seed))


def main() -> None:
    """Run the campaigns, and print what happened; the exit code is 1 where a fault was not taken as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="how many processes are killed")
    parser.add_argument("--files", type=int, default=100, help="how many files are mutated")
    parser.add_argument("--rounds", type=int, default=5, help="how often each of the other faults is tried")
    parser.add_argument("--clips", type=int, default=12, help="how many whole clips there are")
    parser.add_argument("--seed", type=int, default=0, help="the seed of everything that is drawn")
    parser.add_argument("--only", nargs="*", help="the campaigns that are run, by name")
    given = parser.parse_args()
    campaigns: dict[str, Callable[[World], None]] = {
        "kills": lambda world: kills(world, given.kills),
        "mutations": lambda world: mutations(world, given.files),
        "disk": disk,
        "changes": lambda world: changes(world, given.rounds),
        "writers": lambda world: writers(world, given.rounds),
        "weights": lambda world: weights(world, given.rounds),
    }
    broken = False
    with tempfile.TemporaryDirectory(prefix="fsmm-campaign-") as home:
        world = made_world(Path(home), given.seed, given.clips)
        for name, campaign in campaigns.items():
            if given.only and name not in given.only:
                continue
            began = time.monotonic()
            world.counts.clear()
            try:
                campaign(world)
                verdict = "taken as they should be"
            except Broken as error:
                broken, verdict = True, f"BROKEN: {error}"
            print(f"{name}: {verdict} ({time.monotonic() - began:.0f} s)", flush=True)
            for what, count in sorted(world.counts.items()):
                print(f"  {count:>5} x {what}", flush=True)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
