"""The request of ``fsmm fit`` as one value; the command line is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..spec import Fusion

AUTO = "auto"
"""The name by which the method is chosen by the examples themselves."""
Scaling = Literal["l2", "centre-l2", "per-step", "none"]


@dataclass(frozen=True, kw_only=True)
class FitSpec:
    """How a classifier is made of examples."""

    method: str = AUTO
    """The method, or auto for the one that decides examples best which are left out."""
    fusion: Fusion | None = None
    """How a method of one modality takes several: ec, ea or lf."""
    modalities: tuple[str, ...] | None = None
    """The modalities that the head reads (else all of the examples)."""
    normalise: Scaling = "l2"
    """How features are scaled for a named method: l2, centre-l2 (by the base set's mean), per-step or none."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The key=value of a named method; train.KEY is its recipe's."""
    words: str | None = None
    """The encoder of class names for a method that reads them (else the text tower of the examples' encoder)."""
    seed: int = 0
    """The seed of a training on the base set."""


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """Examples, the place of the model that is made of them, and how it is made."""

    support: Path
    """The examples: a folder with one subfolder a class, or a CSV file with the columns path and label."""
    out: Path
    """The folder of the model."""
    add: bool = False
    """Give the model at --out these further examples of its classes, and leave its head as it is."""
    replace: bool = False
    """Replace the model at --out, if there is one."""
    spec: FitSpec = field(default_factory=FitSpec)
    streams: tuple[str, ...] | None = None
    """The modalities, or modality/encoder, that clips are encoded by (else frame,flow,audio)."""
    base: Path | None = None
    """Clips of other classes to learn from, as CACHE/DATASET with the same streams."""
    calibration: Path | None = None
    """Labelled clips that are no examples, in the form of --support: they calibrate the sets of --reject."""
    cache: Path | None = None
    """The cache of features (else FSMM_CACHE, else the user's)."""
    device: str = "auto"
    """The device that encodes: auto, cpu or cuda."""
    workers: int | None = None
    """The number of decoding processes (else one a core)."""
