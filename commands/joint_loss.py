"""The arithmetic of methods for tuning encoders, which `extract/tuning` takes as callables since it imports no head."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cache.table import Stream
from ..episodes.batch import Episodes
from ..errors import UsageError
from ..extract.tuning.objectives import JointInputs, Losses
from ..heads.build import build_head
from ..heads.head import ClipTrainedHead, Inputs
from ..heads.parts.objectives import Points, masked_error, simclr
from ..heads.registry import find

_MODALITY = "frame"
_NEEDED = {"decision": ("auto", "prototype", "nearest"), "synthetic": ("none",)}


def losses_of(method: str, settings: Mapping[str, str]) -> Losses:
    """The arithmetic that objectives use. method, settings: the head that joint learns.

    Raises UsageError, where joint asks for the head, for one that cannot be learned together with an encoder.
    """
    return Losses(
        contrast=contrast,
        masked_error=masked_error,
        joint=partial(JointLoss, method=method, settings=settings),
    )


def contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss between two views' unit vectors [M, D]."""
    none = torch.zeros(len(one), dtype=torch.int64, device=one.device)
    return simclr(
        Points(point=one, second=other, label=none, anchors=one, temperature=temperature, margin=0.0)
    )


class JointLoss(nn.Module):
    """The loss of a head of the common-space family on one base episode, with gradients for the encoder's features.

    It is the head's own loss of the episode's clips plus the cross-entropy of its queries' logits by its supports.
    """

    def __init__(self, given: JointInputs, *, method: str, settings: Mapping[str, str]) -> None:
        super().__init__()
        row, fusion = find(method)
        if row.regime != "batch" or row.modalities == "two" or row.words == "needed" or fusion:
            raise UsageError(
                f"Method {method!r} cannot be learned together with an encoder of frames: joint takes methods that are "
                "trained on batches of clips, of any modality and without class words, such as common-space."
            )
        for key, values in _NEEDED.items():
            if settings.get(key, values[0]) not in values:
                raise UsageError(
                    f"joint needs logits with gradients and real supports; leave out --set {key}={settings[key]}."
                )
        key, _, value = row.reads_time_if.partition("=")
        self.reads_time = row.reads_time or (bool(key) and settings.get(key) == value)
        self.way, self.shot = given.way, given.shot
        steps = given.steps if self.reads_time else 1
        inputs = Inputs(
            streams={_MODALITY: (steps, given.dim)},
            base_classes=given.classes,
            way=given.way,
            shot=given.shot,
        )
        self.head: Any = build_head(method, inputs, settings)
        assert isinstance(self.head, ClipTrainedHead), "the row's regime says so"

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """The loss of features [M, F, D] and base classes [M], class by class, the supports of each class first."""
        clips = self._stream(features)
        total: Tensor = self.head.batch_loss({_MODALITY: clips}, label, None).total
        episode = self._episode(clips, label)
        return total + self.head.loss(episode).total

    def _stream(self, features: Tensor) -> Stream:
        """The clips [M, T, D] as a cache would give them: averaged unless steps are read, and of length one."""
        x = features if self.reads_time else features.mean(1, keepdim=True)
        present = torch.ones(len(x), dtype=torch.bool, device=x.device)
        return Stream(F.normalize(x, dim=-1), present, present.long() * x.shape[1])

    def _episode(self, clips: Stream, label: Tensor) -> Episodes:
        """The clips as one episode of base classes."""
        each = len(label) // self.way
        rows = torch.arange(len(label), device=label.device).view(self.way, each)
        supports, queries = rows[:, : self.shot], rows[:, self.shot :]
        ways = torch.arange(self.way, device=label.device)
        return Episodes(
            support={_MODALITY: clips[supports[None]]},
            query={_MODALITY: clips[queries.reshape(1, -1)]},
            query_label=ways.repeat_interleave(each - self.shot)[None],
            class_id=label[rows[:, 0]][None],
        )
