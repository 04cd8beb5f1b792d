"""An order certificate: which classes of a data set need the order of a clip's steps, by the same head and episodes.

A head that reads time is measured four times on the same episodes: with steps in order, with each clip's steps
shuffled, with queries played backwards against supports in order, and with the middle step of each clip alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..cache.table import Stream
from ..episodes.batch import Episodes
from ..episodes.gather import materialise
from ..episodes.protocol import Protocol
from ..episodes.sampler import EpisodeIndex, Sampler
from ..errors import UsageError
from ..heads.head import Head
from .spec import Progress

CHANGES = ("in order", "shuffled", "reversed", "single step")
AT_ONCE = 10


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """What the order of steps does for one class, or for all."""

    name: str
    """The class; "all classes" for the mean over classes."""
    accuracy: dict[str, float]
    """The accuracy of its queries under each change, the mean over clips (for all classes, over classes)."""
    loss: dict[str, float]
    """The accuracy in order minus that under each other change."""
    interval: dict[str, float | None]
    """The 95 % half width of each loss over the clips of the class (for all classes, over classes), paired; None where
    there is one unit."""
    needs_order: bool
    """Whether the loss by shuffling is surely above zero."""


@dataclass(frozen=True, kw_only=True)
class OrderCertificate:
    """The certificate of a data set, for one head."""

    episodes: int
    """The number of episodes, which are those of the run."""
    rows: list[ClassRow]
    """The classes, the one that loses most by shuffling first, and all classes last."""

    def to_dict(self) -> dict[str, Any]:
        """The certificate in plain JSON values."""
        return asdict(self)


def refuse_without_order(bank: FeatureBank, protocol: Protocol) -> None:
    """Raise UsageError for clips of one step, and for episodes of which there is no certificate.

    These are episodes without supports or with unlabelled clips, labels of which a clip has several, and whole splits
    in which base classes compete or clips are looked up.
    """
    if max(table.steps for table in bank.tables.values()) < 2:
        raise UsageError(
            "No stream has several steps a clip, so there is no order; choose others by --streams."
        )
    whole = protocol.generalised or protocol.retrieval
    if bank.multi or protocol.k_shot == 0 or protocol.unlabelled or whole:
        raise UsageError(
            "An order certificate needs episodes with one label a clip, with supports, and without unlabelled clips."
        )


def order_certificate(
    head: Head[Any],
    bank: FeatureBank,
    protocol: Protocol,
    episodes: int,
    *,
    progress: Progress | None = None,
) -> OrderCertificate:
    """The order certificate of the classes of ``bank``, for a head that reads time, on so many episodes."""
    right, asked = clip_outcomes(head.eval(), bank, protocol, episodes=episodes, progress=progress)
    rows = rows_of(right, asked, bank.label.cpu().numpy(), bank.class_names)
    return OrderCertificate(episodes=episodes, rows=rows)


@torch.no_grad()
def clip_outcomes(
    head: Head[Any], bank: FeatureBank, protocol: Protocol, *, episodes: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """How often each clip was classified rightly under each change, int [changes, n], and how often asked, int [n]."""
    sampler, key = Sampler(bank, protocol), step_keys(bank, protocol.seed)
    right, asked = np.zeros((len(CHANGES), len(bank)), np.int64), np.zeros(len(bank), np.int64)
    for done, index in enumerate(sampler.batches(0, episodes, AT_ONCE)):
        task = materialise(bank, index, protocol)
        counted = task.query_label.cpu().numpy() >= 0
        clip = index.query.numpy()[counted]
        asked += np.bincount(clip, minlength=len(bank))
        for number, change in enumerate(CHANGES):
            hit = head(changed(task, change, index, key)).argmax(-1) == task.query_label
            right[number] += np.bincount(clip[hit.cpu().numpy()[counted]], minlength=len(bank))
        if progress is not None:
            progress("evaluate", min((done + 1) * AT_ONCE, episodes), episodes, {})
    return right, asked


def step_keys(bank: FeatureBank, seed: int) -> dict[str, Tensor]:
    """Random numbers [n, T] by which each clip's steps are sorted to shuffle them, the same in every episode."""
    chance = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(len(bank), table.steps, generator=chance).to(bank.device)
        for name, table in bank.tables.items()
    }


def changed(task: Episodes, change: str, index: EpisodeIndex, key: Mapping[str, Tensor]) -> Episodes:
    """Episodes after a change of :data:`CHANGES`; key: see ``step_keys``."""
    if change == "in order":
        return task
    if change == "reversed":
        return replace(task, query={m: backwards(clips) for m, clips in task.query.items()})
    sides: dict[str, dict[str, Stream]] = {}
    for side, rows in (("support", index.support), ("query", index.query)):
        clips: Mapping[str, Stream] = getattr(task, side)
        sides[side] = {
            m: middle(s) if change == "single step" else sorted_by(s, key[m][rows.to(key[m].device)])
            for m, s in clips.items()
        }
    return replace(task, support=sides["support"], query=sides["query"])


def backwards(clips: Stream) -> Stream:
    """Clips [..., T, D] played backwards, each from its own last step."""
    step = torch.arange(clips.x.shape[-2], device=clips.x.device).expand(clips.x.shape[:-1])
    return sorted_by(clips, -step.float())


def sorted_by(clips: Stream, key: Tensor) -> Stream:
    """Clips [..., T, D] with their own steps in the order of key [..., T]; what lies beyond a clip stays behind."""
    order = key.masked_fill(~clips.mask(), torch.inf).argsort(dim=-1, stable=True)
    x = torch.gather(clips.x, -2, order[..., None].expand_as(clips.x))
    return Stream(x, clips.present, clips.length)


def middle(clips: Stream) -> Stream:
    """The middle step of clips [..., T, D] alone, [..., 1, D]."""
    place = (clips.length.clamp(min=1) - 1) // 2
    x = torch.gather(clips.x, -2, place[..., None, None].expand(*place.shape, 1, clips.x.shape[-1]))
    return Stream(x, clips.present, clips.length.clamp(max=1))


def rows_of(right: np.ndarray, asked: np.ndarray, label: np.ndarray, names: list[str]) -> list[ClassRow]:
    """A row for each class that was asked, by its loss through shuffling, and one for all.

    right: [changes, n]; asked, label: [n].
    """
    held = [np.flatnonzero((label == c) & (asked > 0)) for c in range(len(names))]
    rates = [(names[c], right[:, clips] / asked[clips]) for c, clips in enumerate(held) if len(clips)]
    rows = [class_row(name, rate) for name, rate in rates]
    rows.sort(key=lambda row: -row.loss["shuffled"])
    return [*rows, class_row("all classes", np.stack([rate.mean(1) for _, rate in rates], 1))]


def class_row(name: str, rate: np.ndarray) -> ClassRow:
    """The row of units (clips or classes) whose rates of right answers under each change are rate [changes, units]."""
    lost = rate[:1] - rate
    width = [half_width(values) for values in lost]
    pairs = list(zip(CHANGES, lost.mean(1).tolist(), width))[1:]
    shuffled, sure = pairs[0][1], pairs[0][2]
    return ClassRow(
        name=name,
        accuracy=dict(zip(CHANGES, rate.mean(1).tolist())),
        loss={change: value for change, value, _ in pairs},
        interval={change: value for change, _, value in pairs},
        needs_order=sure is not None and shuffled > sure,
    )


def half_width(values: np.ndarray) -> float | None:
    """The 95 % half width of the mean of values [units] by Student's t; None for fewer than two."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
