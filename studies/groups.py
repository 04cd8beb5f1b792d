"""Comparing any runs: those on the same episodes are compared in groups, and the others are named with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import FsmmError, UsageError
from ..runs.listing import described, short_names
from ..runs.store import load_run
from .compare import Comparison, compare, differences


@dataclass(kw_only=True)
class LeftOut:
    """A run that is compared with no other."""

    name: str
    """The name of the run."""
    reason: str
    """A sentence that says why."""


@dataclass(kw_only=True)
class Groups:
    """The comparisons of all runs that can be compared with another."""

    comparisons: list[Comparison]
    """The comparison of each group of runs on the same episodes, the largest group first."""
    left_out: list[LeftOut]
    """The runs that are in no group."""

    def to_dict(self) -> dict[str, Any]:
        """The first comparison as plain JSON values, with the other ones under ``others`` and the runs left out."""
        first, *others = (comparison.to_dict() for comparison in self.comparisons)
        return {**first, "others": others, "left_out": [asdict(run) for run in self.left_out]}


def compare_groups(folders: Sequence[Path], *, draws: bool = False) -> Groups:
    """Compare the runs of two or more folders in groups on the same episodes; each run of a group is also described.

    draws: compare over episode draws as well.

    Raises UsageError, naming the differences, where no two runs are on the same episodes, and for fewer than two runs;
    FsmmError where runs cannot be read and so no two can be compared.
    """
    if len(folders) < 2:
        raise UsageError("Comparing needs at least two runs; name their folders.")
    configs, left_out = _readable(folders)
    groups = _grouped(configs)
    paired = [group for group in groups if len(group) > 1]
    if not paired:
        _refuse(configs, left_out)
    names = short_names([*configs])
    left_out += [_alone(group[0], paired, configs, names) for group in groups if len(group) == 1]
    comparisons = [compare(group, draws=draws) for group in paired]
    for comparison in comparisons:
        for run in comparison.runs:
            run.update({**described(Path(run["folder"]), run["name"]).to_dict(), **_of_seeds(run), **run})
    return Groups(comparisons=comparisons, left_out=left_out)


def _of_seeds(run: Mapping[str, Any]) -> dict[str, None]:
    """Nothing in place of the intervals of a head's first seed alone, where it has several."""
    return dict.fromkeys(("ci95", "ci95_clips", "ci95_classes")) if run["seeds"] > 1 else {}


def _readable(folders: Sequence[Path]) -> tuple[dict[Path, dict[str, Any]], list[LeftOut]]:
    """The configurations of the runs that can be read and have several episodes, by folder, and the other runs."""
    configs: dict[Path, dict[str, Any]] = {}
    left_out = []
    for folder, name in short_names(folders).items():
        try:
            config, _, arrays = load_run(folder)
        except FsmmError as error:
            left_out.append(LeftOut(name=name, reason=str(error)))
            continue
        if len(arrays["accuracy"]) > 1:
            configs[folder] = config
        else:
            reason = f"The run {str(folder)!r} has no two episodes by which it could be paired."
            left_out.append(LeftOut(name=name, reason=reason))
    return configs, left_out


def _grouped(configs: Mapping[Path, dict[str, Any]]) -> list[list[Path]]:
    """The folders in groups whose runs are on the same episodes, the largest group first."""
    groups: list[list[Path]] = []
    for folder, config in configs.items():
        same = (
            group for group in groups if not any(differences(configs[member], config) for member in group)
        )
        group = next(same, None)
        if group is None:
            groups.append([folder])
        else:
            group.append(folder)
    return sorted(groups, key=len, reverse=True)


def _alone(
    folder: Path,
    paired: Sequence[Sequence[Path]],
    configs: Mapping[Path, dict[str, Any]],
    names: Mapping[Path, str],
) -> LeftOut:
    """The run of a folder that is on other episodes than any group; the reason is its difference from the nearest."""
    apart = {group[0]: differences(configs[folder], configs[group[0]]) for group in paired}
    nearest = min(apart, key=lambda other: len(apart[other]))
    name, other = names[folder], names[nearest]
    what = "; ".join(apart[nearest])
    return LeftOut(name=name, reason=f"Run {name} is on other episodes than {other}: {what}.")


def _refuse(configs: Mapping[Path, dict[str, Any]], left_out: Sequence[LeftOut]) -> None:
    """Raise the error of runs of which no two can be compared."""
    if len(configs) < 2:
        raise FsmmError(left_out[0].reason)
    names = [*short_names([*configs]).values()]
    config, other, *_ = configs.values()
    more = f", and no other two of the {len(names)} runs can be" if len(names) > 2 else ""
    what = "; ".join(differences(config, other))
    raise UsageError(f"Runs {names[0]} and {names[1]} cannot be paired: {what}{more}.")
