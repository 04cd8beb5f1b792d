"""A job is the request for a run, as one value, with the place where the run reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..heads.decided import On
from .extent import Extent
from .spec import RunSpec

MOST_EPISODES = 100_000_000
"""The episodes of a run at most, of which the outcomes take some gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place where a run reads its features, computes, and writes its folder."""

    cache: Path | None = None
    """The cache folder (else FSMM_CACHE, else the user's)."""
    dataset: str | None = None
    """The data set's name in the cache; it may be left out where it is alone."""
    device: str = "auto"
    """The device that computes: auto, cpu or cuda."""
    out: Path | None = None
    """The folder of the run (else beside the data set, named by the run's digest)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The request for one run: its specification, its place, and the extent of its evaluation."""

    spec: RunSpec
    """The specification of the run."""
    place: Place = field(default_factory=Place)
    """The place where the run reads, computes and writes."""
    episodes: Extent = 10_000
    """The number of episodes; auto draws until they add little to the interval over clips, auto:0.5 until ± 0.5."""
    episodes_file: Path | None = None
    """A file of episodes that are replayed, such as `fsmm episodes import` makes (else episodes are drawn)."""
    retrain: bool = False
    """Whether the head is trained again even where a checkpoint fits."""
    reliability: bool = False
    """Whether each modality's certainty and the complementarity of modalities are added."""
    order_certificate: bool = False
    """Whether accuracies with steps shuffled, reversed and a single one are added, class by class."""
    tuned_settings: Mapping[str, str] = field(default_factory=dict, metadata={"hidden": True})
    """The settings among those of the run that a tuning chose, as its config.json says; repeatable."""
    tuned_on: On = field(default="val", metadata={"hidden": True})
    """What the tuning chose them on."""
    tuned_by: str = field(default="", metadata={"hidden": True})
    """The data set, the class splits and the classes by which the tuning chose them."""

    def __post_init__(self) -> None:
        if isinstance(self.episodes, int) and not 1 <= self.episodes <= MOST_EPISODES:
            raise UsageError(
                f"--episodes is {self.episodes}; it must be at least 1, and {MOST_EPISODES:,} at most."
            )
        if self.episodes_file is not None and not isinstance(self.episodes, int):
            raise UsageError(
                "A file of episodes has so many episodes; give --episodes a number, or leave it out."
            )
        if self.episodes_file is not None and self.reliability:
            raise UsageError(
                "--reliability draws episodes of its own; leave it out where they come from a file."
            )
        if self.order_certificate:
            self._check_order()

    def _check_order(self) -> None:
        """Raise UsageError where an order certificate is asked for that no head with these options can have."""
        if self.episodes_file is not None:
            raise UsageError("--order-certificate draws episodes; leave it out where they come from a file.")
        if not self.spec.reads_time:
            raise UsageError(
                f"Method {self.spec.method!r} does not read the order of steps; take one that does, such as otam, for "
                "an order certificate."
            )

    def to_dict(self) -> dict[str, Any]:
        """The request in plain JSON values, flat except for the protocol; the run's own folder is left out.

        ``fsmm episode-eval --config`` takes a file with these values.
        """
        place = {"dataset": self.place.dataset, "device": self.place.device}
        if self.place.cache is not None:
            place["cache"] = str(self.place.cache.expanduser().absolute())
        if self.episodes_file is not None:
            place["episodes_file"] = str(self.episodes_file.expanduser().absolute())
        tuned: dict[str, Any] = {}
        if self.tuned_settings:
            tuned = {
                "tuned_settings": dict(self.tuned_settings),
                "tuned_on": self.tuned_on,
                "tuned_by": self.tuned_by,
            }
        return {
            **self.spec.to_dict(),
            **place,
            **tuned,
            "episodes": self.episodes if isinstance(self.episodes, int) else str(self.episodes),
            "reliability": self.reliability,
            **({"order_certificate": True} if self.order_certificate else {}),
        }
