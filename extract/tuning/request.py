"""A tuning's request as one value; the command line is made from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ...errors import UsageError, unknown
from ..datasets.base import DatasetOptions
from ..request import TIMEOUT

Objective = Literal["simclr", "simclrv2", "mae", "supervised", "joint"]
Clips = Literal["auto", "unlabelled", "base", "both"]
Adapt = Literal["blocks", "lora"]
Precision = Literal["float32", "bfloat16"]
LABELLED = ("supervised", "joint")
"""The objectives that read the labels of base classes."""


@dataclass(frozen=True, kw_only=True)
class TuneRecipe:
    """What is tuned, and how."""

    adapt: Adapt = "blocks"
    """What is tuned: the weights of the last blocks, or low-rank adapters of their matrices, which are merged after."""
    blocks: int | None = None
    """The last blocks that are tuned (else 2; with lora, all)."""
    rank: int = 8
    """The rank of the adapters."""
    steps: int = 300
    """The steps of the optimiser."""
    batch: int = 32
    """The clips of a step; joint takes those of an episode."""
    frames: int = 2
    """The frames, or windows of a video network, that a step reads of each clip and view."""
    encoder_rate: float | None = None
    """The learning rate of the encoder (else 1e-4; with lora, 1e-3)."""
    head_rate: float = 1e-3
    """The learning rate of what is learned beside it: projection, decoder, classifier or head."""
    weight_decay: float = 0.01
    """The weight decay of AdamW."""
    temperature: float = 0.1
    """What cosines are divided by (simclr, simclrv2)."""
    layers: int | None = None
    """The layers of the projection (else 2 for simclr, 3 for simclrv2)."""
    kept_layer: int = 1
    """The layer of the projection up to which simclrv2 keeps it as a part of the encoder."""
    mask_share: float | None = None
    """The share of patches or steps that mae hides (else 0.75 of patches, 0.5 of steps)."""
    crop: float = 0.6
    """The smallest share of the side that a random crop keeps; 1 for whole frames."""
    colour: float = 0.4
    """The strength of random brightness and contrast; a fifth of the views are grey, unless it is 0."""
    flip: bool = True
    """Whether half of the views are mirrored; switch it off where left and right tell classes apart."""
    n_way: int = 5
    """The classes of an episode (joint)."""
    k_shot: int = 1
    """The supports of a class in an episode (joint)."""
    n_query: int = 3
    """The queries of a class in an episode (joint)."""
    precision: Precision = "float32"
    """The type that the network computes in; bfloat16 is for GPUs."""

    @property
    def tower_rate(self) -> float:
        """The learning rate of the encoder, also where it is not given."""
        if self.encoder_rate is not None:
            return self.encoder_rate
        return 1e-3 if self.adapt == "lora" else 1e-4

    def check(self) -> None:
        """Raise UsageError for a value that no tuning can have."""
        _check_choice("adapt", self.adapt, get_args(Adapt))
        _check_choice("precision", self.precision, get_args(Precision))
        whole = {
            "blocks": self.blocks, "rank": self.rank, "batch": self.batch, "frames": self.frames, "k-shot": self.k_shot,
            "n-query": self.n_query, "layers": self.layers, "kept-layer": self.kept_layer,
        }  # fmt: skip
        for name, value in whole.items():
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1; it is {value}.")
        if self.steps < 0:
            raise UsageError(f"--steps must be at least 0; it is {self.steps}.")
        if self.n_way < 2:
            raise UsageError(f"--n-way must be at least 2; it is {self.n_way}.")
        for name, number in {"encoder-rate": self.tower_rate, "head-rate": self.head_rate}.items():
            if not 0 < number <= 1:
                raise UsageError(f"--{name} must be above 0 and at most 1; it is {number:g}.")
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"--temperature must be above 0; it is {self.temperature:g}.")
        for name, number in {"weight-decay": self.weight_decay, "colour": self.colour}.items():
            if not 0 <= number < math.inf:
                raise UsageError(f"--{name} must be at least 0; it is {number:g}.")
        if not 0 < self.crop <= 1:
            raise UsageError(f"--crop is a share of the side, above 0 and at most 1; it is {self.crop:g}.")
        if self.mask_share is not None and not 0 < self.mask_share < 1:
            raise UsageError(f"--mask-share is a share between 0 and 1; it is {self.mask_share:g}.")


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """An encoder, the clips that it is tuned on, and what for."""

    encoder: str
    """The encoder: a name of `fsmm encoders`, a model such as timm:NAME@FILE, or tuned:FOLDER."""
    dataset: str
    """A data set of `fsmm datasets`; only clips without a label, or of base classes, are read."""
    objective: Objective
    """What is asked of the features: simclr, simclrv2 and mae read no label; supervised and joint read base classes."""
    data: Path | None = None
    """The data set's folder or file."""
    out: Path | None = None
    """The folder of the tuned encoder (else tuned/ENCODER-OBJECTIVE)."""
    use: Clips = "auto"
    """The clips that are read: unlabelled, base, both, or auto (unlabelled; base where labels are read)."""
    weights: Path | None = None
    """Your own file of the encoder's weights."""
    segments: int = 8
    """The equal parts that a clip is cut into; every part gives its frames."""
    options: DatasetOptions = field(default_factory=DatasetOptions)
    recipe: TuneRecipe = field(default_factory=TuneRecipe)
    method: str = "common-space"
    """The head that joint learns together with the encoder."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """A setting of that head, as key=value; repeatable."""
    seed: int = 0
    """The seed of the tuning."""
    device: str = "auto"
    """The device that tunes: auto, cpu or cuda."""
    workers: int | None = None
    """The number of decoding processes (else one a core)."""
    timeout: float = TIMEOUT
    """The seconds that a clip may take to decode."""

    @property
    def labelled(self) -> bool:
        """Whether the objective reads labels."""
        return self.objective in LABELLED

    def check(self) -> None:
        """Raise UsageError for a request that no tuning can meet."""
        _check_choice("objective", self.objective, get_args(Objective))
        _check_choice("use", self.use, get_args(Clips))
        self.recipe.check()
        if self.segments < 1:
            raise UsageError(f"--segments must be at least 1; it is {self.segments}.")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers must be at least 1; it is {self.workers}.")
        if not self.timeout > 0:
            raise UsageError(f"--timeout must be above 0 seconds; it is {self.timeout:g}.")
        if self.labelled and self.use in ("unlabelled", "both"):
            raise UsageError(
                f"Objective {self.objective!r} reads labels; leave out --use, or take simclr, simclrv2 or mae."
            )
        if self.settings and self.objective != "joint":
            raise UsageError(
                f"Objective {self.objective!r} has no head that --set could change; only joint has one."
            )
        if self.objective == "simclrv2" and self.recipe.kept_layer >= (self.recipe.layers or 3):
            raise UsageError(
                f"--kept-layer {self.recipe.kept_layer} is not before the last of {self.recipe.layers or 3} --layers."
            )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise unknown(f"value of --{name}:", str(value), choices)
