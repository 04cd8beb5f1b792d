"""The runs that lie below a folder: how they are found and named, and what tells one from another."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..cache.schema import dataset_folders
from ..episodes.protocol import Missing, Protocol
from ..errors import FsmmError, UsageError, listed, unknown
from ..machine.digests import SUMS
from .layout import CHECKPOINT, FILES, METRICS, RUNS, TRAINING
from .spec import RunSpec
from .store import load_texts

_DEEPEST = 4  # Folders of runs are looked for this many levels below the first one.
# What a listing shows in columns of its own, and so not among the settings.
_SHOWN = ("method", "protocol", "fusion", "streams", "modalities", "settings", "train_seed")
_SHOWN_OF_PROTOCOL = ("n_way", "k_shot", "split", "label_set")


@dataclass(frozen=True, kw_only=True)
class Described:
    """A run as a listing shows it."""

    name: str
    """The name of the run: its folder, from the folder of runs on."""
    folder: str
    """The run's folder."""
    fault: str = ""
    """A sentence that says why the run cannot be used; nothing but name and folder is known then."""
    dataset: str = ""
    """The data set."""
    split: str = ""
    """The classes that episodes are drawn from."""
    label_set: str = ""
    """The label set of the classes."""
    method: str = ""
    """The method, with its fusion in brackets."""
    modalities: tuple[str, ...] = ()
    """The modalities that the head was built for."""
    task: str = ""
    """The ways and shots of an episode."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What was set otherwise than by default, by option or setting of the head."""
    episodes: int = 0
    """The number of episodes."""
    accuracy: float | None = None
    """The accuracy in 0..1, or the measure that the protocol has in its place."""
    ci95: float | None = None
    """Its 95 % half width over episode draws."""
    ci95_clips: float | None = None
    """Its 95 % half width over clips."""
    ci95_classes: float | None = None
    """Its 95 % half width over classes."""
    choices: Sequence[Mapping[str, Any]] = ()
    """What each choice of the run was made on; empty for runs of older releases."""
    ended: str = ""
    """The time at which the run was stored, in UTC and ISO form."""
    digests: bool = True
    """Whether the run has digests, by which damage would be seen; runs of older releases have none."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


def described(folder: Path, name: str | None = None) -> Described:
    """The description of the run in a folder, or the reason why it cannot be used."""
    name = folder.name if name is None else name
    try:
        config, metrics = load_texts(folder)
    except FsmmError as error:
        unfinished = not (folder / METRICS).exists() and _has_training(folder)
        fault = f"The run {str(folder)!r} has not ended; run the same command again." if unfinished else error
        return Described(name=name, folder=str(folder), fault=str(fault))
    protocol, streams = config["protocol"], metrics.get("streams")
    ci95, clips, classes = (_number(metrics.get(key)) for key in ("ci95", "ci95_clips", "ci95_classes"))
    ended = datetime.fromtimestamp((folder / METRICS).stat().st_mtime, timezone.utc)
    fusion = f" ({str(config['fusion']).upper()})" if config.get("fusion") else ""
    return Described(
        name=name,
        folder=str(folder),
        dataset=config["dataset"],
        split=str(protocol.get("split", "")),
        label_set=str(protocol.get("label_set") or ""),
        method=f"{config['method']}{fusion}",
        modalities=tuple(streams) if isinstance(streams, dict) else (),
        task=f"{_text(protocol.get('n_way'))}-way {_text(protocol.get('k_shot'))}-shot",
        settings=changed_settings(config),
        episodes=metrics["episodes"] if isinstance(metrics.get("episodes"), int) else 0,
        accuracy=metrics["accuracy"],
        ci95=ci95,
        ci95_clips=clips,
        ci95_classes=classes,
        choices=metrics["choices"] if isinstance(metrics.get("choices"), list) else (),
        ended=ended.isoformat(timespec="seconds"),
        digests=(folder / SUMS).exists(),
    )


def changed_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of what a run's configuration sets otherwise than by default, by option or setting of the head.

    >>> task = {"n_way": 5, "k_shot": 1, "n_query": 10, "seed": 3}
    >>> changed_settings({"method": "relation", "protocol": task, "settings": {"hidden": "8"}, "train_seed": 3})
    {'n_query': '10', 'seed': '3', 'hidden': '8'}
    """
    protocol, own = config.get("protocol", {}), config.get("settings")
    found = _changed(protocol, Protocol(), _SHOWN_OF_PROTOCOL)
    found |= _changed(config, RunSpec(method=""), _SHOWN)
    if config.get("train_seed", 0) != protocol.get("seed", 0):
        found["train_seed"] = _text(config.get("train_seed"))
    return found | {key: _text(value) for key, value in (own if isinstance(own, dict) else {}).items()}


def find_runs(root: Path) -> list[Path]:
    """The folders of the runs at and below ``root``, sorted; those of trainings that were cut short are among them."""
    found, unfinished = [], []
    for place, inner, files in os.walk(root):
        folder = Path(place)
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name != TRAINING)
        if len(folder.relative_to(root).parts) >= _DEEPEST:
            inner.clear()
        if not set(FILES).isdisjoint(files):
            found.append(folder)
        elif _has_training(folder):
            unfinished.append(folder)
    # The head of a study lies beside the folders of its runs.
    alone = [folder for folder in unfinished if not any(folder in run.parents for run in found)]
    return sorted([*found, *alone])


def runs_of_cache(cache: Path, dataset: str | None = None) -> dict[str, Path]:
    """The folders of the runs of a cache, or of one of its data sets, by names such as ``demo/protonet-0a1b2c3d4e``.

    Raises CacheError for an unknown data set.
    """
    folders = dataset_folders(cache, dataset, may_be_empty=True)
    return {
        f"{folder.name}/{run.relative_to(folder / RUNS).as_posix()}": run
        for folder in folders
        for run in find_runs(folder / RUNS)
        if run != folder / RUNS
    }


def list_runs(
    cache: Path, dataset: str | None = None, folders: Sequence[Path] | None = None
) -> list[Described]:
    """The descriptions of the runs at and below ``folders``, or else of those of a cache or of one of its data sets.

    Raises CacheError for an unknown data set, UsageError for a folder that is not there.
    """
    if not folders:
        found = runs_of_cache(cache, dataset)
        named = {run: name if dataset is None else name.partition("/")[2] for name, run in found.items()}
        return [described(run, name) for run, name in named.items()]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"There is no folder {str(folder)!r}; name folders that hold runs.")
    runs = dict.fromkeys(run for folder in folders for run in find_runs(folder))
    every = [described(run, _name_below(run, folders)) for run in runs]
    return [run for run in every if dataset is None or run.dataset in ("", dataset)]


def chosen_runs(texts: Sequence[str], cache: Path, dataset: str | None = None) -> list[Path]:
    """The folders of the runs that ``texts`` name, each once; a study, a folder of runs, stands for its runs.

    A text is a folder that holds runs, or the beginning or the end of a name of ``runs_of_cache`` that only one run or
    study has. Raises UsageError for a text that names none or several.
    """
    known: dict[str, Path] | None = None
    found: dict[Path, None] = {}
    for text in texts:
        folder = Path(text).expanduser()
        inside = find_runs(folder) if text and _is_folder(folder) else []
        if not inside:
            known = runs_of_cache(cache, dataset) if known is None else known
            named = run_named(text, known)
            inside = find_runs(named) or [named]
        found.update(dict.fromkeys(inside))
    return list(found)


def short_names(folders: Sequence[Path]) -> dict[Path, str]:
    """The names of several runs: each path from where all lie, or the last parts that no other one ends with.

    >>> runs = [Path("toy/runs/protonet-1"), Path("toy/runs/relation-2/seed-0"), Path("toy/runs/relation-2/seed-1")]
    >>> list(short_names(runs).values())
    ['protonet-1', 'relation-2/seed-0', 'relation-2/seed-1']
    >>> list(short_names([Path("a/b/c/x"), Path("d/e/f/y")]).values())
    ['x', 'y']
    """
    paths = {folder: folder.absolute() for folder in folders}
    root = os.path.commonpath([path.parent for path in paths.values()]) if paths else ""
    below = {folder: path.relative_to(root) for folder, path in paths.items()}
    names = {folder: path.as_posix() for folder, path in below.items() if len(path.parts) <= 2}
    deepest = max((len(path.parts) for path in paths.values()), default=0)
    for count in range(1, deepest):
        if len(names) == len(paths):
            break
        ends = Counter(path.parts[-count:] for path in paths.values())
        for folder, path in paths.items():
            if folder not in names and ends[path.parts[-count:]] == 1:
                names[folder] = "/".join(path.parts[-count:])
    return {folder: names.get(folder, str(folder)) for folder in paths}


def run_named(text: str, runs: Mapping[str, Path]) -> Path:
    """The only run or study of ``runs`` (see runs_of_cache) whose name is, begins with or ends with ``text``.

    Raises UsageError where there is none, or several.
    """
    names = dict(runs)
    for (
        name,
        run,
    ) in runs.items():  # Studies are the folders between a data set's folder of runs and its runs.
        parts = name.split("/")
        for depth in range(2, len(parts)):
            names.setdefault("/".join(parts[:depth]), run.parents[len(parts) - depth - 1])
    wanted = text.strip("/")
    exact = [name for name in names if f"/{name}".endswith(f"/{wanted}")]
    loose = [name for name in names if _begins_or_ends(name, wanted)]
    for matches in (exact, loose):
        outer = [name for name in matches if not any(name.startswith(f"{other}/") for other in matches)]
        if len(outer) == 1:
            return names[outer[0]]
        if outer:
            raise UsageError(
                f"{len(outer)} runs are called like {text!r}; write more of the name: {listed(sorted(outer))}."
            )
    raise unknown("folder or run", text, runs)


def _begins_or_ends(name: str, text: str) -> bool:
    """Whether a name, with its data set or without it, its last part, or its digest, begins or ends with a text."""
    forms = (name, name.partition("/")[2], name.rpartition("/")[2], name.rpartition("-")[2])
    return bool(text) and any(form.startswith(text) or form.endswith(text) for form in forms)


def _name_below(run: Path, folders: Sequence[Path]) -> str:
    """The path of a run from the folder that holds it on; the run's own name where it is one of the folders."""
    outer = next(folder for folder in folders if folder == run or folder in run.parents)
    return run.relative_to(outer).as_posix() if run != outer else run.name


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except ValueError:  # The text holds a character that no path has.
        return False


def _has_training(folder: Path) -> bool:
    return (folder / CHECKPOINT).exists() or (folder / TRAINING).is_dir()


def _changed(values: Mapping[str, Any], default: Any, shown: Sequence[str]) -> dict[str, str]:
    """The texts of the values that are not those of the dataclass instance ``default``, apart from those ``shown``."""
    usual = {f.name: getattr(default, f.name) for f in fields(default) if f.name not in shown}
    changed = {name: values[name] for name in usual if name in values}
    return {name: _text(value) for name, value in changed.items() if _text(value) != _text(usual[name])}


def _text(value: Any) -> str:
    """A value of a configuration as one writes it on the command line."""
    if isinstance(value, (list, tuple)):
        ranged = len(value) == 2 and all(isinstance(part, int) for part in value)
        return ("-" if ranged else ",").join(map(_text, value)) or "none"
    if isinstance(value, dict) and {"modality", "rate"} <= value.keys():
        return str(Missing(**value)) if _is_missing(value) else str(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _is_missing(value: Mapping[str, Any]) -> bool:
    rate, known = value["rate"], {f.name for f in fields(Missing)}
    return isinstance(rate, (int, float)) and 0 <= rate <= 1 and value.keys() <= known


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
