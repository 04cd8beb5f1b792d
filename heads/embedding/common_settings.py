"""The settings of the common space: how clips are placed, what training asks for, and how queries are decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..parts.synthesis import Synthetic
from ..settings import Count, CountOrNone, NonNegative, Positive, Rate, Settings


@dataclass(frozen=True)
class CommonSpaceSettings(Settings):
    """The common space's settings."""

    dim: Count = 128
    """The width of the space."""
    projection: Literal["pooled", "transformer"] = "pooled"
    """A map of the mean of a clip's steps, or a transformer over the steps whose outputs are averaged."""
    hidden: CountOrNone = 0
    """The width of the hidden layer of each map of means; 0 for linear maps."""
    trunk: Literal["towers", "shared"] = "towers"
    """Whether modalities share all but their first layer."""
    layers: Count = 2
    """The blocks of the transformer."""
    attention_heads: Count = 4
    """The attention heads of the transformer."""
    positions: Literal["learned", "sinusoidal"] = "learned"
    """The codes of the steps' positions that the transformer adds."""
    objective: Literal[
        "softmax",
        "triplet",
        "triplet_random",
        "triplet_semi_hard",
        "triplet_hardest",
        "n_pairs",
        "infonce",
        "supcon",
        "simclr",
        "words",
    ] = "softmax"
    """What training asks of clips, of weight one; softmax, triplet, infonce and words compare them with the anchors of
    base classes, the other ones with each other, and simclr reads no label."""
    add_softmax: NonNegative = 0.0
    """The weight of cross-entropy over base classes beside the objective."""
    add_triplet_hardest: NonNegative = 0.0
    """The weight of batch-hard triplets beside the objective."""
    add_n_pairs: NonNegative = 0.0
    """The weight of the N-pairs loss beside the objective."""
    add_supcon: NonNegative = 0.0
    """The weight of the supervised contrastive loss beside the objective."""
    add_simclr: NonNegative = 0.0
    """The weight of SimCLR's loss beside the objective."""
    add_words: NonNegative = 0.0
    """The weight of the distance to the own class's anchor beside the objective."""
    add_masked: NonNegative = 0.0
    """The weight of masked autoencoding of steps beside the objective; it needs the transformer."""
    mask_share: Rate = 0.5
    """The share of the steps that masked autoencoding hides."""
    schedule: Literal["joint", "in_turn"] = "joint"
    """Space and decision are learned jointly; or in turn: the objectives for ``space_steps`` steps, then a softmax over
    base classes for their anchors, or the map of class words, alone, while clips stay where they lie."""
    space_steps: Count = 300
    """The steps before the decision's turn, which a training that patience ends earlier never comes to."""
    margin: NonNegative = 0.2
    """The margin of the triplet losses."""
    alone: NonNegative = 1.0
    """The weight of each modality's own points in the objective, beside those of whole clips (intra-modal terms)."""
    between: NonNegative = 0.5
    """The weight of CLIP's pairing of the modalities of a clip (inter-modal term)."""
    deeper: CountOrNone = 0
    """The layers of SimCLRv2's deeper head behind the space, at whose end training compares points."""
    used_layer: CountOrNone = 0
    """The layer of the deeper head that decisions read; 0 is the space in front of it."""
    temperature: Positive = 0.1
    """What cosines are divided by, in every loss and logit."""
    decision: Literal["auto", "prototype", "nearest", "words", "softmax"] = "auto"
    """Queries are decided by class means, by nearest supports, by words, by a softmax head fitted on the supports, or
    (auto) by class means where there are supports and by words where there are none."""
    probe_c: Positive = 10.0
    """The inverse strength of the penalty of the softmax head that is fitted on the supports."""
    synthetic: Synthetic = "none"
    """Supports that are made up beside the real ones: mixup of supports of a class, noise with the covariance of base
    classes, the deviations of the neighbouring base class's clips from their mean, or a small conditional generator."""
    synthetic_count: Count = 10
    """The number of supports that are made up for each class."""
    dropout: Rate = 0.1
    """The dropout of the maps' inputs."""
    learned_anchors: bool = False
    """The anchors of base classes are learned vectors even where words exist, which are then unused."""
