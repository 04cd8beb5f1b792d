"""Faults against sweeps: each must be one sentence, and nothing that was finished may be lost.

    python scripts/campaigns/sweep.py [--instants 20] [--seed 0] [--only NAME]

A small study over a synthetic cache is swept undisturbed once. Then it is swept with a fault, and again without: the
runs that were stored before are still the same files, and the figures at the end are those of the undisturbed sweep.
The faults are kill -9 of the sweep and of one worker at random instants, a disk that fills up, mistakes in the study
file, a corrupt run folder, a stream that is extracted anew, a cache that is removed half-way, and a clock set back.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.studies.grid.store import is_stored, read_study

STUDY = """\
name: faults
fixed: {episodes: 40, n_query: 3}
blocks:
  - name: free
    grid: {method: [protonet, nearest], modalities: [each], k_shot: [1, 2]}
  - name: trained
    fixed: {method: relation, modalities: first, train.steps: 15, train.evaluate_episodes: 20, train_seed: 0}
    grid: {seed: [0, 1, 2]}
"""
MISTAKES = {
    "no YAML": "name: [faults",
    "no table": "- faults",
    "nothing": "",
    "no block": "name: faults",
    "a pipe": None,
    "an unknown key": STUDY.replace("fixed:", "fixd:", 1),
    "an unknown option": STUDY.replace("n_query", "n_queries"),
    "an unknown method": STUDY.replace("protonet", "protonett"),
    "an unknown setting": STUDY.replace("train.steps: 15", "train.stepps: 15"),
    "a setting of another head": STUDY.replace("train.steps: 15", "sharpness: 3"),
    "a text for a number": STUDY.replace("episodes: 40", "episodes: many"),
    "a value out of range": STUDY.replace("n_query: 3", "n_query: 0"),
    "a negative seed": STUDY.replace("seed: [0, 1, 2]", "seed: [-1]"),
    "a list without a value": STUDY.replace("k_shot: [1, 2]", "k_shot: []"),
    "two blocks of one name": STUDY.replace("name: trained", "name: free"),
    "no method": STUDY.replace("method: relation, ", ""),
    "an unknown modality": STUDY.replace("[each]", "[smell]"),
    "a third modality of two": STUDY.replace("first", "third"),
    "everything excluded": STUDY.split("  - name: trained")[0] + "    exclude: [{k_shot: 1}, {k_shot: 2}]\n",
    "one key twice": STUDY.replace("fixed:", "fixed: {seed: 1}\nfixed:", 1),
    "one option in two spellings": STUDY.replace("n_query: 3", "n_query: 3, n-query: 3"),
    "a character that no text has": STUDY.replace("faults", "fau\0lts", 1),
    "an unknown split": STUDY.replace("n_query: 3", "n_query: 3, split: nvel"),
    "an unknown class split": STUDY.replace("n_query: 3", "n_query: 3, class_split: s7"),
    "an unknown label set": STUDY.replace("n_query: 3", "n_query: 3, label_set: clas"),
    "an unknown modality that is missing": STUDY.replace("n_query: 3", "n_query: 3, missing: adio=0.5@query"),
    "no supports for a method that needs them": STUDY.replace("k_shot: [1, 2]", "k_shot: [0, 2]"),
    "no modality": STUDY.replace("[each]", "[[]]"),
    "one modality twice": STUDY.replace("[each]", "[[frame, frame]]"),
    "more episodes than anyone waits for": STUDY.replace("episodes: 40", "episodes: 1000000000"),
    "a seed that no generator takes": STUDY.replace("seed: [0, 1, 2]", f"seed: [{1 << 70}]"),
    "more runs than a study may have": STUDY.replace("seed: [0, 1, 2]", f"seed: {[*range(20_001)]}"),
    "another study's folder": STUDY.replace("name: faults", "name: other", 1),
}
"""Study files that are wrong, by what is wrong with them; None stands for a pipe in place of a file."""


class Broken(Exception):
    """A fault that was not taken as it should be."""


@dataclass
class Done:
    """A sweep that has ended: its exit code, and the lines that it printed on standard error."""

    code: int
    told: str

    def ends_with_a_sentence(self, *codes: int) -> None:
        """Raise Broken where the exit code is another one, or a traceback was printed."""
        if self.code not in codes or "Traceback" in self.told:
            raise Broken(f"exit code {self.code} where {codes} was expected: {self.told[-1500:]}")


@dataclass
class Place:
    """The study file, the cache and the study's folder of one trial."""

    home: Path
    cache: Path
    out: Path

    @classmethod
    def in_folder(cls, home: Path, whole: Path) -> Place:
        """A place with a copy of the cache at ``whole``."""
        home.mkdir(parents=True)
        (home / "faults.yaml").write_text(STUDY)
        shutil.copytree(whole, home / "cache")
        return cls(home, home / "cache", home / "out")

    def start(self) -> subprocess.Popen[str]:
        """A sweep that has begun, in a process group of its own."""
        words = [sys.executable, "-m", "fsmm", "sweep", self.home / "faults.yaml", "--cache", self.cache]
        command = [*map(str, words), "--out", str(self.out), "--jobs", "2"]
        return subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def sweep(self) -> Done:
        """A whole sweep."""
        with self.start() as started:
            told = started.communicate(timeout=600)[1]
        return Done(started.returncode, told)

    def stored(self) -> dict[str, int]:
        """The time at which each whole run was written, by key."""
        folders = (self.out / "runs").iterdir() if (self.out / "runs").is_dir() else ()
        return {f.name: (f / "metrics.json").stat().st_mtime_ns for f in folders if is_stored(f)}

    def figures(self) -> dict[str, float]:
        """The accuracy of each run that is done, by key."""
        found = read_study(self.out)
        return {row.key: found.metrics(row)["accuracy"] for row in found.done}

    def goes_on(self, wanted: dict[str, float]) -> None:
        """Sweep again: what was stored is left alone, and the figures are ``wanted``. Raises Broken otherwise."""
        before = self.stored()
        self.sweep().ends_with_a_sentence(0)
        after = self.stored()
        if lost := [key for key, at in before.items() if after.get(key) != at]:
            raise Broken(f"finished runs were done again or lost: {lost}")
        if self.figures() != wanted:
            raise Broken(f"other figures than those of the undisturbed sweep: {self.figures()}")


def make_cache(cache: Path, seed: int = 0, *, streams: tuple[str, ...] = ("frame", "audio")) -> None:
    """Make a data set of 18 classes of 8 clips. seed: of the features; the clips are the same with any."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(18), 8)
    ids = [f"clip{i:03d}" for i in range(len(label))]
    names, codes = [f"class {k}" for k in range(18)], np.repeat([1, 2, 3], 6)
    labels = LabelSet(names, label, splits={"default": codes})
    Catalog("toy", ids, {"class": labels}, "class", attrs={"synthetic": "yes"}).write(cache / "toy")
    for modality in streams:
        centres = rng.standard_normal((18, 16))
        with StreamWriter(cache / "toy", Provenance("net", modality, 16)) as writer:
            for clip, k in zip(ids, label):
                writer.add(clip, centres[k] + rng.standard_normal((2, 16)))


@dataclass
class Campaign:
    """What all trials share: a folder, the undisturbed cache and figures, and the time of the undisturbed sweep."""

    home: Path
    whole: Path
    wanted: dict[str, float]
    seconds: float
    chance: random.Random
    trials: int = 0

    @classmethod
    def begun(cls, home: Path, seed: int) -> Campaign:
        """Make the cache, and sweep the study undisturbed."""
        make_cache(home / "whole")
        place = Place.in_folder(home / "undisturbed", home / "whole")
        began = time.monotonic()
        place.sweep().ends_with_a_sentence(0)
        return cls(home, home / "whole", place.figures(), time.monotonic() - began, random.Random(seed))

    def place(self) -> Place:
        """A place of its own for a trial."""
        self.trials += 1
        return Place.in_folder(self.home / f"trial-{self.trials}", self.whole)

    def swept(self) -> Place:
        """A place of its own for a trial that begins with the whole study."""
        place = self.place()
        shutil.copytree(self.home / "undisturbed" / "out", place.out)
        return place

    def kill_sweep(self, share: float) -> None:
        """Kill -9 of the sweep after a share of the undisturbed sweep's time."""
        place = self.place()
        with place.start() as started:
            _wait(started, share * self.seconds)
            started.send_signal(signal.SIGKILL)
        place.goes_on(self.wanted)

    def kill_worker(self, share: float) -> None:
        """Kill -9 of one worker after a share of the time: its run fails with a reason, and no other one does."""
        place = self.place()
        with place.start() as started:
            _wait(started, share * self.seconds)
            while started.poll() is None and not (workers := _children(started.pid)):
                time.sleep(0.01)
            if started.poll() is None:
                _kill(self.chance.choice(workers))
            told = started.communicate(timeout=600)[1]
        done = Done(started.returncode, told)
        done.ends_with_a_sentence(0, 1)
        lost = read_study(place.out).failures
        if (done.code == 1) != bool(lost) or any("signal 9" not in f.reason for f in lost.values()):
            raise Broken(f"exit code {done.code} with the failures {[*lost.values()]}")
        place.goes_on(self.wanted)

    def full_disk(self, kilobytes: int) -> None:
        """A study's folder on a disk of so many kilobytes, which is then made larger."""
        place = self.place()
        place.out.mkdir()
        with _small_disk(place.out, kilobytes) as grow:
            done = place.sweep()
            done.ends_with_a_sentence(0, 1)
            if done.code and "No space left" not in done.told:
                raise Broken(f"the full disk was not named: {done.told[-1500:]}")
            if left := list(place.out.rglob("*.tmp")):
                raise Broken(f"half-written files are left: {left}")
            grow()
            place.goes_on(self.wanted)

    def mistake(self, name: str) -> None:
        """A mistake in the study file: one sentence, exit code 2, and the study's folder is as it was."""
        place, text = self.swept(), MISTAKES[name]
        before = {path: path.stat().st_mtime_ns for path in place.out.rglob("*")}
        (place.home / "faults.yaml").unlink()
        if text is None:
            os.mkfifo(place.home / "faults.yaml")
        else:
            (place.home / "faults.yaml").write_text(text)
        done = place.sweep()
        done.ends_with_a_sentence(2)
        if len(done.told.strip().splitlines()) != 1:
            raise Broken(f"not one sentence: {done.told}")
        if {path: path.stat().st_mtime_ns for path in place.out.rglob("*")} != before:
            raise Broken("the study's folder was changed")

    def corrupt(self, name: str, how: str) -> None:
        """A file of a stored run that is damaged, cut, emptied or removed: that run alone is done again."""
        place = self.swept()
        run = self.chance.choice(sorted((place.out / "runs").iterdir()))
        path = run / name
        content = path.read_bytes()
        if how == "removed":
            path.unlink()
        else:
            flipped = bytes([*content[:-9], content[-9] ^ 1, *content[-8:]])
            path.write_bytes({"flipped": flipped, "cut": content[:-9], "emptied": b""}[how])
        place.goes_on(self.wanted)

    def extracted_anew(self) -> None:
        """A stream with other features: its runs are done anew, and the old ones and those of other streams stay."""
        place = self.swept()
        before = place.stored()
        shutil.rmtree(place.cache / "toy" / "streams" / "audio")
        make_cache(place.cache, seed=1, streams=("audio",))
        place.sweep().ends_with_a_sentence(0)
        after = place.stored()
        new = after.keys() - before.keys()
        asked = {row.key: row for row in read_study(place.out).rows}
        reads = {key for key, row in asked.items() if "audio/net" in row.config["streams"]}
        if new != reads or any(after[key] != at for key, at in before.items()):
            raise Broken(f"{sorted(new)} are new where {sorted(reads)} read the stream")

    def cache_removed(self, share: float) -> None:
        """A cache that vanishes during the sweep and comes back."""
        place = self.place()
        with place.start() as started:
            _wait(started, share * self.seconds)
            place.cache.rename(place.home / "gone")
            told = started.communicate(timeout=600)[1]
        Done(started.returncode, told).ends_with_a_sentence(0, 1)
        place.sweep().ends_with_a_sentence(0, 1)  # It is still gone: a sentence, or all was done already.
        shutil.rmtree(place.cache, ignore_errors=True)
        (place.home / "gone").rename(place.cache)
        place.goes_on(self.wanted)

    def clock_set_back(self) -> None:
        """A study of which all files are of tomorrow, with a failure of tomorrow."""
        place = self.swept()
        redone = self.chance.choice(sorted((place.out / "runs").iterdir()))
        line = (
            f'{{"key": "{redone.name}", "kind": "OSError", "reason": "x", "at": "2999-01-01T00:00:00+00:00"}}'
        )
        (place.out / "failed.jsonl").write_text(line + "\n")
        shutil.rmtree(redone)
        tomorrow = time.time() + 86_400
        for path in (*place.out.rglob("*"), *place.cache.rglob("*")):
            os.utime(path, (tomorrow, tomorrow))
        place.goes_on(self.wanted)
        if read_study(place.out).failures:
            raise Broken("a run that is stored counts as failed")


def trials(campaign: Campaign, instants: int) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Every trial: its case, what is special about it, and what carries it out."""
    for _ in range(instants):
        share = campaign.chance.random()
        yield "kill -9 of the sweep", f"at {share:.0%}", lambda share=share: campaign.kill_sweep(share)
    for _ in range(instants):
        share = campaign.chance.random()
        yield "kill -9 of one worker", f"at {share:.0%}", lambda share=share: campaign.kill_worker(share)
    for kilobytes in (4, 16, 40, 60, 80, 120, 200):
        yield "a full disk", f"{kilobytes} kB", lambda size=kilobytes: campaign.full_disk(size)
    for name in MISTAKES:
        yield "a mistake in the study file", name, lambda name=name: campaign.mistake(name)
    for name in ("config.json", "metrics.json", "episodes.npz", "SHA256SUMS"):
        for how in ("flipped", "cut", "emptied", "removed"):
            if (name, how) != ("SHA256SUMS", "removed"):  # Runs of older releases have none.
                yield "a corrupt run", f"{name} {how}", lambda n=name, h=how: campaign.corrupt(n, h)
    yield "a stream extracted anew", "", campaign.extracted_anew
    for share in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
        yield "the cache removed", f"at {share:.0%}", lambda share=share: campaign.cache_removed(share)
    yield "the clock set back", "by a day", campaign.clock_set_back


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--instants", type=int, default=20, help="the number of kills of each kind")
    options.add_argument("--seed", type=int, default=0, help="the seed of the instants")
    options.add_argument("--only", default="", help="only the cases whose names have this text")
    given = options.parse_args()
    held: dict[str, list[bool]] = {}
    with tempfile.TemporaryDirectory() as home:
        campaign = Campaign.begun(Path(home), given.seed)
        for case, what, trial in trials(campaign, given.instants):
            if given.only not in case:
                continue
            held.setdefault(case, []).append(_holds(f"{case}, {what}", trial))
            for folder in Path(home).glob("trial-*"):
                shutil.rmtree(folder)
    for case, results in held.items():
        print(f"{case}: {sum(results)} of {len(results)} held")
    sys.exit(not all(map(all, held.values())))


def _holds(name: str, trial: Callable[[], None]) -> bool:
    """Whether a trial ends as it should; otherwise its story is printed."""
    try:
        trial()
    except Broken as error:
        print(f"BROKEN {name}: {error}", flush=True)
        return False
    print(f"held   {name}", flush=True)
    return True


def _wait(started: subprocess.Popen[str], seconds: float) -> None:
    """Wait for so long, or until the process has ended."""
    end = time.monotonic() + seconds
    while started.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


def _children(pid: int) -> list[int]:
    """The child processes of a process; none where it has ended."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # It has ended meanwhile.


@contextmanager
def _small_disk(place: Path, kilobytes: int) -> Iterator[Callable[[], None]]:
    """A file system of so many kilobytes in a folder; what is yielded makes it larger. It needs root."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True) and None
    finally:
        subprocess.run(["umount", str(place)], check=True)


if __name__ == "__main__":
    main()
