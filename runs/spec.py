"""The specification of a run: one frozen value that is stored with every result and names its default folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..episodes.protocol import GROUP_RULES, LARGEST_SEED, Missing, Protocol
from ..errors import UsageError
from ..heads.registry import Method, find
from ..machine.digests import file_sha256
from .digest import digest

# A Progress is called with ("train" or "evaluate", units done, units in all, figures such as the loss).
Progress = Callable[[str, int, int, Mapping[str, float]], None]

Fusion = Literal["ec", "ea", "lf"]
Normalisation = Literal["l2", "centre-l2", "per-step", "none", "auto"]
TableType = Literal["float32", "bfloat16"]
SeenUnseen = Literal["auto", "bias", "energy", "entropy", "learned", "val", "none"]
WhenMissing = Literal["auto", "drop", "match", "match-linear", "mean", "neighbours", "linear", "zero"]
# The modalities that training clips lose, or auto for the rate that val classes choose.
TrainMissing = tuple[Missing, ...] | Literal["auto"]
_LATER: Mapping[str, object] = {
    "train_dataset": None,
    "query_classes": None,
    "noisy": (),
    "retrieval": False,
    "align": None,
}
"""Options that older releases did not have, with the values under which a run is what it was without them."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One head under one protocol with one seed of training."""

    method: str
    """A method of `fsmm methods`; protonet-lf is ProtoNet with late fusion."""
    protocol: Protocol = field(default_factory=Protocol)
    """The protocol of the episodes."""
    fusion: Fusion | None = None
    """How a method of one modality takes several: ec, ea (early fusion) or lf (late fusion)."""
    streams: tuple[str, ...] | None = None
    """The streams that are loaded, such as frame/NAME,audio (else every modality's only stream)."""
    modalities: tuple[str, ...] | None = None
    """The modalities that the head is built for, such as frame,audio (else all that are loaded)."""
    train_modalities: tuple[str, ...] | None = None
    """The modalities that training clips carry (else all of the head's)."""
    train_missing: TrainMissing = "auto"
    """A modality that training clips lack at a rate, such as audio=0.5 (repeatable), none, or auto (val chooses)."""
    when_missing: WhenMissing = "auto"
    """What becomes of what clips lack: drop, match, match-linear, mean, neighbours, linear, zero, or auto."""
    train_dataset: str | None = None
    """The data set whose base classes train the head, with the same streams (else the one that is tested)."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """A key=value of the head; train.KEY is its recipe's and fusion.KEY the wrapper's; repeatable."""
    align: str | None = None
    """The times on which all streams' steps are brought: N of them, a stream's, or coarsest (else each has its own)."""
    words: str | None = "auto"
    """The word stream that names the classes, auto for the only one, or none."""
    normalise: Normalisation = "l2"
    """How features are scaled: l2, centre-l2 (base mean off first), per-step, none, or auto (base and val choose)."""
    dtype: TableType = "float32"
    """The type of the feature tables in memory: float32 or bfloat16."""
    train_seed: int = 0
    """The seed of the weights and of the training episodes."""
    seen_unseen: SeenUnseen = "auto"
    """How generalised tests tell seen from unseen: auto, bias, energy, entropy, learned (base), val, or none."""

    def __post_init__(self) -> None:
        if not 0 <= self.train_seed < LARGEST_SEED:
            raise UsageError(
                f"The training seed is {self.train_seed}; it must not be negative, and must be below {LARGEST_SEED}."
            )

    @cached_property
    def resolved(self) -> Method:
        """The row of the table of methods. Raises UsageError where no method has that name."""
        return find(self.method)[0]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**asdict(self), "protocol": self.protocol.to_dict()}

    def content(self) -> dict[str, Any]:
        """The fields that say what the run is, from which digests are made.

        An option that older releases did not have counts only where it is set, so that their runs and heads are found.
        """
        values = _set_or_old(self.to_dict())
        return {**values, "protocol": _set_or_old(values["protocol"])}

    def digest(self) -> str:
        """Ten hexadecimal digits that name this specification.

        Rules about groups, about seen and unseen classes and about what clips lack count only where there are any, so
        that folders of runs from before them keep their names.
        """
        values = self._without_auto()
        if not self.protocol.generalised:
            values.pop("seen_unseen")
        if not self.protocol.rules_groups:
            for name in GROUP_RULES:
                values["protocol"].pop(name)
        return digest(values)

    @property
    def files(self) -> dict[str, str]:
        """The SHA-256 of each file that the head's settings name, by the setting; "" for one that cannot be read."""
        named = {name: self.settings.get(name, "") for name in self.resolved.load().Settings.files}
        found = {}
        for name, path in named.items():
            if path:
                try:
                    found[name] = file_sha256(Path(path))
                except OSError:
                    found[name] = ""
        return found

    @property
    def losses(self) -> tuple[Missing, ...]:
        """The modalities that training clips lose by what the run says itself."""
        return () if self.train_missing == "auto" else self.train_missing

    @property
    def reads_time(self) -> bool:
        """Whether the head reads the steps of a clip, by its method or by its settings."""
        key, _, value = self.resolved.reads_time_if.partition("=")
        return self.resolved.reads_time or (bool(key) and self.settings.get(key) == value)

    @property
    def chooses_dropout(self) -> bool:
        """Whether val classes choose the rate at which training clips lose modalities.

        They do where the test takes modalities from clips; no other training pays for several.
        """
        several = self.train_modalities is None or len(self.train_modalities) > 1
        return self.train_missing == "auto" and self.protocol.withholds and several

    def _without_auto(self) -> dict[str, Any]:
        """The fields in plain JSON values, of which those about missing modalities say nothing where they are auto."""
        values = self.content()
        if self.train_missing == "auto":
            values["train_missing"] = ()
        if self.when_missing == "auto":
            values.pop("when_missing")
        return values

    def training_identity(self) -> dict[str, Any]:
        """The fields on which a trained head depends: all but the test split and its sampling."""
        values = self._without_auto()
        values.pop("seen_unseen")
        if self.chooses_dropout:
            values["train_missing"] = "auto"
        for name in (
            "split",
            "retrieval",
            "n_query",
            "dirichlet",
            "query_classes",
            "small_classes",
            "clip_split",
            "seed",
            "noisy",
        ):
            values["protocol"].pop(name, None)
        return values


def _set_or_old(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set, and those that every release had."""
    return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}
