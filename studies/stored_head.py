"""What a stored run says of its head: method, fusion and modalities, and whether anything of it was learned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..episodes.protocol import Protocol
from ..errors import FsmmError
from ..heads.registry import Method, base_name, find

FREE = ("nearest", "protonet", "ridge", "ridge-words")
"""The methods that need no training, by which trained heads are judged: alone, concatenated, or fused late."""
_OF_HEAD = (
    "method",
    "fusion",
    "train_modalities",
    "train_missing",
    "train_dataset",
    "settings",
    "align",
    "words",
    "normalise",
    "dtype",
)


@dataclass(frozen=True, kw_only=True)
class StoredHead:
    """The head of a run, by what the run's folder holds."""

    config: Mapping[str, Any]
    """The content of config.json."""
    metrics: Mapping[str, Any]
    """The content of metrics.json."""
    arrays: Mapping[str, np.ndarray]
    """The arrays of episodes.npz."""

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol of the run's episodes."""
        return Protocol.from_dict(dict(self.config["protocol"]))

    @cached_property
    def row(self) -> Method | None:
        """The method's row of the registry; None for a method that this installation does not know."""
        try:
            return find(self.config["method"])[0]
        except FsmmError:
            return None

    @cached_property
    def base(self) -> str:
        """The method without its fusion."""
        return self.config["method"] if self.row is None else base_name(self.config["method"])

    @property
    def fusion(self) -> str:
        """How a method of one modality takes several: ec, ea or lf, or nothing."""
        own = (
            self.config["method"].removeprefix(f"{self.base}-") if self.config["method"] != self.base else ""
        )
        return str(self.config.get("fusion") or own)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the head was built for, sorted."""
        return tuple(sorted(self.metrics.get("streams") or self.config.get("modalities") or ()))

    @property
    def transductive(self) -> bool:
        """Whether the method decides the queries of a task together."""
        return bool(self.arrays.get("transductive", self.row is not None and self.row.transductive))

    @property
    def trained(self) -> bool:
        """Whether anything of the head was learned from base classes step by step."""
        learns = self.row is not None and self.row.regime != "none"
        return learns or self.fusion == "ea" or bool(self.number("parameters"))

    @property
    def free(self) -> bool:
        """Whether the run is one of those that need no training, by which the others are judged."""
        plain = self.base in FREE and self.fusion in ("", "ec", "lf")
        return plain and not self.trained and not self.transductive

    def may_judge(self, other: StoredHead) -> bool:
        """Whether this head reads no modality that the other one does not have."""
        return set(self.modalities) <= set(other.modalities)

    @cached_property
    def task(self) -> str:
        """A text that two runs share where they were asked the same episodes with the same things withheld."""
        values = self.protocol.to_dict()
        values["missing"] = sorted(str(missing) for missing in self.protocol.missing if missing.rate > 0)
        fingerprint = self.metrics.get("fingerprint", self.config.get("fingerprint"))
        return json.dumps([self.config["dataset"], fingerprint, values], sort_keys=True, default=str)

    @cached_property
    def head(self) -> str:
        """A text that two runs of one task share where only the seed of their training differs."""
        told = [self.task, self.metrics.get("streams"), {key: self.config.get(key) for key in _OF_HEAD}]
        return json.dumps(told, sort_keys=True, default=str)

    def number(self, key: str) -> float | None:
        """A figure of metrics.json; None where there is none."""
        value = self.metrics.get(key)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
