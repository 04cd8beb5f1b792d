"""Tuning: settings of one head are chosen by val classes, and by folds of base classes; novel ones are not read.

request.json    what is tuned: the run, the searched settings, the parts, digests of the clips
optuna.db       the trials that have ended, with their settings and accuracies
default.npz     the outcomes of the default settings on each part; trials/N.npz: those of trial N
tuning.json     the result; config.json: the run with the winning settings, for fsmm episode-eval --config
"""

from __future__ import annotations

import shlex
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..._version import NUMERIC_VERSION
from ...cache.schema import dataset_folder, default_cache
from ...errors import FsmmError, UsageError, listed
from ...machine.digests import write_sums
from ...machine.files import parsed_json, whole_or_absent, write_json
from ...machine.locks import lock_of
from ...runs.digest import digest
from ...runs.job import Job
from ...runs.spec import RunSpec
from ...runs.store import check_writable
from ..grid.identity import settings_of
from .data import Part, TuningData, about_parts, parts_of, tuning_data
from .judge import Certainty, Judged, certainty, judged, mean_of
from .search import Search, Trial, check_installed
from .space import Dimension, defaults, space_of

REQUEST, RESULT, CONFIG, TRIALS, LOCK, DEFAULT = (
    "request.json",
    "tuning.json",
    "config.json",
    "trials",
    "lock",
    "default.npz",
)
FOLDER = "studies"
# Called with the trial that has ended, the number of trials that have, and the best one so far.
Tell = Callable[[Trial, int, "Trial | None"], None]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The result of a tuning."""

    method: str
    """The method."""
    best: Mapping[str, str]
    """The winning settings as --set takes them; empty where the default is best."""
    accuracy: float
    """The accuracy of the winning settings, as the mean over parts, in 0..1."""
    default: Mapping[str, str]
    """The defaults of the searched settings."""
    default_accuracy: float
    """The accuracy of the default settings."""
    certainty: Certainty
    """How certain the choice is."""
    parts: Sequence[str]
    """What judged: val classes, and folds of base classes."""
    space: Sequence[str]
    """The settings that were searched, with their values."""
    trials: Sequence[Trial]
    """The trials, the best first and failed ones last."""
    line: str
    """The options that set the winning settings."""
    folder: Path
    """The folder of the tuning."""
    notes: Sequence[str] = ()
    """Sentences that a reader of the result should see."""

    @property
    def config(self) -> Path:
        """The file with the winning settings that fsmm episode-eval --config takes."""
        return self.folder / CONFIG

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        values = asdict(self)
        return {
            **values,
            "certainty": self.certainty.to_dict(),
            "folder": str(self.folder),
            "config": str(self.config),
        }


def tune(
    job: Job,
    *,
    trials: int = 30,
    search: Sequence[str] = (),
    folds: int | None = None,
    class_splits: Sequence[str] = (),
    val_episodes: int = 400,
    tell: Tell | None = None,
) -> Tuning:
    """Choose settings of a job's head by its val classes and by folds of its base classes.

    trials: the settings that are tried beside the default, in all calls into one folder together. search: the settings
    that are searched, as KEY or KEY=RANGE; all that have a range of their own where none is named. folds: into how many
    folds base classes are divided; None decides by the number of val classes. class_splits: further class splits.
    val_episodes: the episodes by which each part judges. tell: called after each trial.
    Raises UsageError for what has no meaning, FsmmError where Optuna is missing or no trial could be carried out.
    """
    for name, value, least in (
        ("trials", trials, 1),
        ("val-episodes", val_episodes, 2),
        ("folds", folds or 0, 0),
    ):
        if value < least:
            raise UsageError(f"--{name} is {value}; it must be at least {least}.")
    if folds == 1:
        raise UsageError("--folds is 1; base classes are divided into 2 folds or more, or 0 for none.")
    if job.episodes_file is not None:
        raise UsageError("A tuning draws its episodes from val and base classes; leave out --episodes-file.")
    check_installed()
    data = tuning_data(job.spec, job.place, class_splits)
    space = space_of(job.spec, search, modalities=data.modalities)
    parts = parts_of(data, job.spec.protocol, folds)
    asked = _request(job.spec, space=space, parts=parts, data=data, episodes=val_episodes)
    folder = _folder(job, asked)
    check_writable(folder)
    with lock_of(folder / LOCK) as is_ours:
        if not is_ours:
            raise UsageError(
                f"Another tuning works in {str(folder)!r}; wait for it, or name a folder with --out."
            )
        _check_same(folder, asked)
        write_json(folder / REQUEST, asked)
        tuner = _Tuner(job=job, data=data, parts=parts, space=space, folder=folder, episodes=val_episodes)
        return tuner.run(trials, tell)


@dataclass(kw_only=True)
class _Tuner:
    """A tuning at work."""

    job: Job
    """The request for the run that is tuned."""
    data: TuningData
    """What may be looked at."""
    parts: Sequence[Part]
    """The divisions of the clips that judge."""
    space: Sequence[Dimension]
    """The settings that are searched."""
    folder: Path
    """The folder of the tuning."""
    episodes: int
    """The number of episodes by which each part judges."""

    def run(self, trials: int, tell: Tell | None) -> Tuning:
        """Try settings until there are so many trials, and write the result."""
        spec = self.job.spec
        search = Search(self.folder, self.space, spec.protocol.seed)
        usual = defaults(spec, self.space, modalities=self.data.modalities)
        default = self._kept_or_judged(self.folder / DEFAULT, {})
        ended = search.trials()
        if not ended and all(d.value(usual[d.key]) is not None for d in self.space):
            # The search begins at the default, of which nothing has to be judged again.
            search.add(self._trial(0, usual, default, 0.0))
        while len(ended := search.trials()) < trials:
            settings = search.propose(trials)
            if settings is None:
                break
            trial = self._tried(len(ended), settings)
            search.add(trial)
            if tell is not None:
                tell(trial, len(ended) + 1, _best([*ended, trial]))
        return self._result(search.trials(), usual, default)

    def _tried(self, number: int, settings: Mapping[str, str]) -> Trial:
        """The trial of some settings, whose outcomes are kept."""
        began = time.perf_counter()
        try:
            found = self._kept_or_judged(self.folder / TRIALS / f"{number}.npz", settings)
        except FsmmError as error:
            spent = time.perf_counter() - began
            return Trial(number=number, settings=dict(settings), reason=str(error), seconds=spent)
        return self._trial(number, settings, found, time.perf_counter() - began)

    def _trial(self, number: int, settings: Mapping[str, str], found: Judged, seconds: float) -> Trial:
        return Trial(
            number=number,
            settings=dict(settings),
            value=mean_of(self.parts, found.accuracy),
            accuracy=list(found.accuracy),
            seconds=seconds,
        )

    def _kept_or_judged(self, path: Path, settings: Mapping[str, str]) -> Judged:
        """What the parts say of some settings, from a file where it holds just that."""
        told = digest({"settings": dict(settings)})
        kept = _kept(path, told, len(self.parts))
        if kept is not None:
            return kept
        found = judged(self._with(settings), self.parts, self.episodes)
        _keep(path, told, found)
        return found

    def _with(self, settings: Mapping[str, str]) -> RunSpec:
        """The specification with some more settings."""
        return replace(self.job.spec, settings={**self.job.spec.settings, **settings})

    def _result(self, trials: Sequence[Trial], usual: Mapping[str, str], default: Judged) -> Tuning:
        """The result, which is written, too."""
        winner, spec = _best(trials), self.job.spec
        if winner is None:
            reasons = dict.fromkeys(trial.reason for trial in trials)
            raise FsmmError(f"None of {len(trials)} trials could be carried out. {listed([*reasons])}")
        base = mean_of(self.parts, default.accuracy)
        won = winner.value is not None and winner.value > base and dict(winner.settings) != dict(usual)
        best = dict(winner.settings) if won else {}
        judged_best = (
            self._kept_or_judged(self.folder / TRIALS / f"{winner.number}.npz", best) if won else default
        )
        tried = [list(default.accuracy)]
        tried += [
            list(trial.accuracy)
            for trial in trials
            if not trial.reason and dict(trial.settings) != dict(usual)
        ]
        found = certainty(self.parts, self._with(best), judged_best, default, tried=tried)
        changed = {key: value for key, value in best.items() if value != usual[key]}
        place = {"dataset": dataset_folder(_cache(self.job), self.job.place.dataset).name}
        config = {**self.job.to_dict(), **place, "settings": {**spec.settings, **changed}}
        if changed:
            config |= self._about(changed, place["dataset"])
        result = Tuning(
            method=spec.method,
            best=changed,
            accuracy=mean_of(self.parts, judged_best.accuracy),
            default=usual,
            default_accuracy=base,
            certainty=found,
            parts=[part.name for part in self.parts],
            space=[str(dimension) for dimension in self.space],
            trials=sorted(trials, key=lambda trial: (bool(trial.reason), -(trial.value or 0.0))),
            line=" ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in changed.items()),
            folder=self.folder,
            notes=[*self.data.notes, about_parts(self.parts), *self._about_splits()],
        )
        write_json(self.folder / CONFIG, config)
        write_json(self.folder / RESULT, result.to_dict())
        write_sums(self.folder, [CONFIG, RESULT])
        return result

    def _about(self, changed: Mapping[str, str], dataset: str) -> dict[str, Any]:
        """What a run with the winning settings says of their choice, beside what it says of an earlier tuning."""
        names = [part.name for part in self.parts]
        on = {"val" if name.endswith(": val") else "base" for name in names}
        by = f"fsmm tune on {dataset}, {listed(names)}"
        return {
            "tuned_settings": {**self.job.tuned_settings, **changed},
            "tuned_on": " and ".join(sorted(on)),
            "tuned_by": f"{self.job.tuned_by}; {by}" if self.job.tuned_by else by,
        }

    def _about_splits(self) -> list[str]:
        """A sentence on the class splits that a result may be tested on, where there are further ones."""
        if not self.data.codes:
            return []
        return [
            f"Classes that are novel in class split {self.data.base.class_split} took no part; those that are novel in "
            f"{listed([*self.data.codes])} may have, so that the choice is to be tested on "
            f"{self.data.base.class_split} alone."
        ]


def _best(trials: Sequence[Trial]) -> Trial | None:
    """The most accurate trial, the earliest of several."""
    whole = [trial for trial in trials if trial.value is not None]
    return max(whole, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def _request(
    spec: RunSpec, *, space: Sequence[Dimension], parts: Sequence[Part], data: TuningData, episodes: int
) -> dict[str, Any]:
    """All that the value of a trial depends on beside its settings, in plain JSON values."""
    return {
        "numeric": NUMERIC_VERSION,
        "run": spec.content(),
        "defaults": settings_of(spec),
        "space": [asdict(dimension) for dimension in space],
        "parts": [[part.name, part.base.class_names, part.test.class_names] for part in parts],
        "data": dict(data.identity),
        "episodes": episodes,
    }


def _cache(job: Job) -> Path:
    return default_cache() if job.place.cache is None else job.place.cache.expanduser()


def _folder(job: Job, asked: Mapping[str, Any]) -> Path:
    """The folder of the tuning: that of --out, else one of the cache that is named by the request."""
    if job.place.out is not None:
        return job.place.out.expanduser()
    cache = _cache(job)
    name = dataset_folder(cache, job.place.dataset).name
    return cache / FOLDER / f"tune-{job.spec.method}-{name}-{digest(asked)}"


def _check_same(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raise UsageError where a folder holds another tuning, or something else."""
    path = folder / REQUEST
    if not path.exists():
        if any(each.name != LOCK for each in folder.iterdir()):
            raise UsageError(
                f"{str(folder)!r} holds something else; name an empty or a new folder with --out."
            )
        return
    try:
        held = parsed_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or digest(held) != digest(asked):
        differ = [
            key
            for key in asked
            if not isinstance(held, dict) or digest({key: held.get(key)}) != digest({key: asked[key]})
        ]
        raise UsageError(
            f"The folder {str(folder)!r} holds a tuning with other {' and '.join(differ)}; name another with --out."
        )


def _keep(path: Path, told: str, found: Judged) -> None:
    """Write what the parts say of some settings; told: the digest of the settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bits: dict[str, Any] = {f"right_bits_{i}": b for i, b in enumerate(found.right_bits) if b is not None}
    with whole_or_absent(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, accuracy=np.array(found.accuracy), told=np.array(told), **bits)


def _kept(path: Path, told: str, parts: int) -> Judged | None:
    """What a file says of the settings with a digest; None where there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["told"]) != told or len(file["accuracy"]) != parts:
                return None
            bits = [
                file[f"right_bits_{i}"] if f"right_bits_{i}" in file.files else None for i in range(parts)
            ]
            return Judged(accuracy=file["accuracy"].tolist(), right_bits=bits)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
