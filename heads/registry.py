"""The visible table of methods: one line each, nothing heavy imported to list them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError, unknown

if TYPE_CHECKING:
    from .base import Head

FUSIONS = ("ec", "ea", "lf")


@dataclass(frozen=True)
class Method:
    """target: "module:Class" below fsmm.heads. regime: how it learns (none | episodic | batch).

    modalities: "one" (several are joined by fusion: EC, EA or LF), "two", or "any" (takes several by itself).
    words: whether it uses class words ("no", "optional", "needed").
    """

    target: str
    paper: str
    year: int
    regime: str
    transductive: bool = False
    modalities: str = "one"
    words: str = "no"

    def load(self) -> type[Head]:
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)


METHODS: dict[str, Method] = {
    "protonet": Method("protonet:ProtoNet", "Snell et al., Prototypical Networks, NeurIPS", 2017, "none"),
    "nearest": Method("nearest:NearestNeighbour", "Cover and Hart, Nearest Neighbor, IEEE TIT", 1967, "none"),
    "linear-probe": Method("linear_probe:LinearProbe", "Cox, Logistic regression, JRSS B", 1958, "none"),
    "eckpn": Method("eckpn:ECKPN", "Chen et al., ECKPN, CVPR", 2021, "episodic", True, "one", "optional"),
}


def find(name: str) -> tuple[Method, str | None]:
    """The method called ``name`` and its fusion; ``protonet-lf`` means ProtoNet with late fusion.

    Raises UsageError for an unknown name.
    """
    if name in METHODS:
        return METHODS[name], None
    stem, _, fusion = name.rpartition("-")
    if fusion in FUSIONS and stem in METHODS:
        if METHODS[stem].modalities != "one":
            raise UsageError(f"Method {stem!r} takes several modalities by itself; leave out the fusion.")
        return METHODS[stem], fusion
    raise unknown("method", name, METHODS)


def base_name(name: str) -> str:
    """``protonet`` of ``protonet-lf``."""
    return name if name in METHODS else name.rpartition("-")[0]


def rows() -> list[dict[str, object]]:
    """What ``fsmm methods`` prints."""
    return [
        {
            "name": name,
            "paper": method.paper,
            "year": method.year,
            "regime": method.regime,
            "transductive": method.transductive,
            "modalities": method.modalities,
            "words": method.words,
        }
        for name, method in METHODS.items()
    ]
