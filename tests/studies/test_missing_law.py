"""The promise on missing modalities: the default is at least as good as every filler alone, whatever clips lack.

At a small size, with the intervals over clips that a run prints; `fsmm sweep missing` measures it on real data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fsmm
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.episodes.protocol import Missing, Protocol, Side
from fsmm.studies.compare import compare

RULES = ("drop", "match", "mean", "neighbours", "linear", "zero")
TASK = {"n_way": 4, "k_shot": 3, "n_query": 6}
SLACK = 0.01
"""What may be lacking beyond an interval: of 18 comparisons of equals, one may be outside by chance."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 classes of 20 clips, whose audio is a noisy linear image of their frame, in a place away from zero."""
    root, chance = tmp_path_factory.mktemp("cache"), np.random.default_rng(0)
    label, codes = np.repeat(np.arange(24), 20), np.repeat([1, 2, 3], 8)
    ids = [f"clip{i}" for i in range(len(label))]
    labels = {"event": LabelSet([f"class {c}" for c in range(24)], label, splits={"default": codes})}
    Catalog("toy", ids, labels, "event").write(root / "toy")
    frame = chance.normal(size=(24, 12))[label] + 1.2 * chance.normal(size=(len(label), 12))
    audio = 1 + frame @ chance.normal(size=(12, 10)) / 3 + chance.normal(size=(len(label), 10))
    for modality, x in (("frame", frame), ("audio", audio)):
        provenance = Provenance("net", modality, x.shape[1], dtype="float32")
        with StreamWriter(root / "toy", provenance, max_clips=1000) as writer:
            for clip, vector in zip(ids, x):
                writer.add(clip, vector[None].astype(np.float32), {"duration": 1.0})
    return root


@pytest.mark.parametrize(
    ("method", "lost", "rate", "side"),
    [
        ("protonet-ec", "audio", 1.0, "query"),
        ("protonet-ec", "frame", 0.5, "support"),
        ("protonet-lf", "audio", 0.5, "both"),
    ],
)
def test_the_default_is_at_least_as_good_as_each_filler(
    cache: Path, tmp_path: Path, method: str, lost: str, rate: float, side: Side
) -> None:
    task = Protocol(**TASK, missing=(Missing(lost, rate, side),))
    for rule in ("auto", *RULES):
        fsmm.episode_eval(
            method, "toy", cache, protocol=task, episodes=150, out=tmp_path / rule, when_missing=rule
        )
    for rule in RULES:
        (pair,) = compare([tmp_path / "auto", tmp_path / rule]).pairs
        assert pair.clips is not None
        assert pair.difference + (pair.clips.ci95 or 0.0) >= -SLACK, rule
