"""Drawing the episodes of a run again, when an interval over clips or classes is asked for.

Episode i is a function of the split's clips and classes and of the protocol. An evaluation therefore keeps the outcome
of every query as a bit and nothing of what was drawn: workers send ten bytes an episode, and who needs the clips of the
episodes draws them again. A run's folder holds the same, so that neither the cache nor a feature is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..cache.bank import FeatureBank
from ..episodes.protocol import Protocol, bounds
from ..episodes.sampler import Sampler
from ..errors import FsmmError
from .statistics import Draws

VERSION = 1
"""The version of the arrays that ``Source.arrays`` makes."""
MOST = 100_000
"""An interval over clips or classes needs no more episodes than this, which take 40 MB when they are drawn again."""
_BLOCK = 512
_CHECKED = 16


class DrawnOtherwise(FsmmError):
    """This version of the program draws other episodes than a stored run had."""


def imbalance(protocol: Protocol) -> str | None:
    """Why episodes do not all draw as many clips of as many classes, any clip as often as any; None where they do."""
    if protocol.replay is not None:
        return "episodes were read from a file"
    (way_low, way_high), (shot_low, shot_high) = bounds(protocol.n_way), bounds(protocol.k_shot)
    if way_low != way_high or shot_low != shot_high:
        return "episodes differ in size"
    if protocol.uneven_queries or protocol.small_classes == "short":
        return "episodes differ in the number of queries of a class"
    return "groups decide which clips an episode may hold" if protocol.rules_groups else None


@dataclass(frozen=True)
class Source:
    """What balanced episodes are drawn from: the clips of a split, without features, and the protocol."""

    clips: FeatureBank
    """The labels, class names and catalog rows of the clips; the bank has no stream."""
    protocol: Protocol
    """The protocol, without clips that are not labelled: they are drawn apart from the others."""

    @classmethod
    def of(cls, bank: FeatureBank, protocol: Protocol) -> Source:
        """The source of the episodes of ``protocol`` over ``bank``, whose features it does not keep alive."""
        clips = replace(bank, streams={}, tables={}, words=None, label=bank.label.cpu())
        return cls(clips, replace(protocol, unlabelled=0))

    @classmethod
    def of_run(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Source:
        """The source of the episodes of a stored run with this configuration and these arrays.

        Raises FsmmError where the stored clips are not those that the run's fingerprint was taken of, and
        DrawnOtherwise where this version of the program draws other episodes from them.
        """
        protocol = Protocol.from_dict(config["protocol"])
        names = arrays["class_names"].tolist()
        clips = FeatureBank(
            dataset=config["dataset"],
            split=protocol.split,
            label_set=str(protocol.label_set),
            class_split=protocol.class_split,
            streams={},
            tables={},
            label=torch.from_numpy(arrays["clip_class"].astype(np.int64)),
            class_names=names,
            class_id=torch.arange(len(names)),
            clip_row=arrays["clip_row"],
        )
        if clips.fingerprint() != config.get("fingerprint"):
            raise FsmmError(
                f"The clips stored with a run of {config['method']} are not those that it was run on; its folder was "
                "changed. Run `fsmm episode-eval --out` again."
            )
        source = cls.of(clips, protocol)
        if source.check() != str(arrays["draws_check"]):
            raise DrawnOtherwise(
                f"The episodes of a run of {config['method']} cannot be drawn again by this version of fsmm; run "
                "`fsmm episode-eval --out` again."
            )
        return source

    @property
    def queries(self) -> int:
        """The number of queries of an episode."""
        ways, _ = Sampler(self.clips, self.protocol).shapes(np.zeros(1, np.int64))
        return int(ways[0]) * self.protocol.n_query

    def draws(self, first: int, episodes: int) -> Draws:
        """The draws of the episodes first .. first+episodes-1."""
        sampler = Sampler(self.clips, self.protocol)
        parts = list(sampler.batches(first, episodes, _BLOCK))
        classes, support, query, way = (
            np.concatenate([getattr(part, name).numpy().astype(np.int32) for part in parts])
            for name in ("classes", "support", "query", "query_label")
        )
        clip_class = self.clips.label.numpy().astype(np.int64)
        return Draws(clip_class=clip_class, classes=classes, support=support, query=query, way=way)

    def check(self) -> str:
        """A digest of what the first episodes draw, which tells whether another program draws the same."""
        draws = self.draws(0, _CHECKED)
        digest = hashlib.sha256()
        for array in (draws.classes, draws.support, draws.query):
            digest.update(np.ascontiguousarray(array, np.int32).data)
        return digest.hexdigest()[:16]

    def arrays(self, right_bits: np.ndarray, *, transductive: bool) -> dict[str, np.ndarray]:
        """The arrays of episodes.npz from which ``of_run`` and ``outcomes`` give a run's episodes again.

        right_bits: uint8 [E, ceil(Q / 8)], the outcomes of the queries as bits.
        """
        return {
            "draws_version": np.array(VERSION),
            "draws_check": np.array(self.check()),
            "clip_class": self.clips.label.numpy().astype(np.int32),
            "clip_row": self.clips.clip_row.astype(np.int64),
            "right_bits": right_bits,
            "transductive": np.array(transductive),
        }


def can_redraw(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a run's arrays hold what draws its episodes again, in a version that this program knows."""
    return arrays.keys() >= _NEEDED and int(arrays["draws_version"]) == VERSION


_NEEDED = {"class_names", "clip_class", "clip_row", "draws_check", "draws_version"}


def outcomes(right_bits: np.ndarray, queries: int) -> np.ndarray:
    """Whether each query was classified rightly, bool [E, Q], from bits [E, ceil(Q / 8)]."""
    return np.unpackbits(right_bits, axis=1, count=queries).astype(bool)
