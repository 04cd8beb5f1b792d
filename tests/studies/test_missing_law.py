"""The promise on missing modalities: the default is at least as good as every filler alone, whatever clips lack.

At a small size, with the intervals over clips that a run prints; `fsmm sweep missing` measures it at full size.
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
from fsmm.runs import filling_choice
from fsmm.studies.compare import compare

RULES = ("drop", "match", "match-linear", "mean", "neighbours", "linear", "zero")
AVE28 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ave28" / "ave28_train3339.npz"
TASK = {"n_way": 4, "k_shot": 3, "n_query": 6}
SLACK = 0.01
"""What may be lacking beyond an interval: of 30 comparisons of equals, one or two may be outside by chance."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the tests write their data sets."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def toy(cache: Path) -> Path:
    """24 classes of 20 clips, whose audio is a noisy linear image of their frame, in a place away from zero."""
    chance = np.random.default_rng(0)
    label, codes = np.repeat(np.arange(24), 20), np.repeat([1, 2, 3], 8)
    frame = chance.normal(size=(24, 12))[label] + 1.2 * chance.normal(size=(len(label), 12))
    audio = 1 + frame @ chance.normal(size=(12, 10)) / 3 + chance.normal(size=(len(label), 10))
    return written(cache / "toy", label=label, codes=codes, frame=frame, audio=audio)


@pytest.fixture(scope="module")
def ave28(cache: Path) -> Path:
    """AVE-28: 40 clips of each class, their steps averaged; 12 base, 4 val and 12 novel classes, drawn by seed 0."""
    if not AVE28.is_file():
        pytest.skip("needs ../shared/data/ave28, not part of a clone")
    with np.load(AVE28, allow_pickle=False) as raw:
        label = raw["label"].astype(np.int64)
        kept = np.sort(np.concatenate([np.flatnonzero(label == c)[:40] for c in range(28)]))
        frame, audio = (raw[name][kept].astype(np.float32).mean(1) for name in ("video", "audio"))
    codes = np.random.default_rng(0).permutation(np.repeat([1, 2, 3], [12, 4, 12]))
    return written(cache / "ave28", label=label[kept], codes=codes, frame=frame, audio=audio)


def written(folder: Path, *, label: np.ndarray, codes: np.ndarray, **features: np.ndarray) -> Path:
    """The folder of a data set with these features [n, D] by modality; codes: the split of each class."""
    ids = [f"clip{i}" for i in range(len(label))]
    labels = {"event": LabelSet([f"class {c}" for c in range(len(codes))], label, splits={"default": codes})}
    Catalog(folder.name, ids, labels, "event").write(folder)
    for modality, x in features.items():
        provenance = Provenance("net", modality, x.shape[1], dtype="float32")
        with StreamWriter(folder, provenance, max_clips=10_000) as writer:
            for clip, vector in zip(ids, x):
                writer.add(clip, vector[None].astype(np.float32), {"duration": 1.0})
    return folder


@pytest.mark.parametrize(
    ("dataset", "method", "lost", "rate", "side"),
    [
        ("toy", "protonet-ec", "audio", 1.0, "query"),
        ("toy", "protonet-ec", "frame", 0.5, "support"),
        ("toy", "protonet-lf", "audio", 0.5, "both"),
        ("ave28", "protonet-ec", "frame", 0.7, "both"),
        ("ave28", "protonet-ec", "audio", 1.0, "support"),
    ],
)
def test_the_default_is_at_least_as_good_as_each_filler(
    dataset: str,
    method: str,
    lost: str,
    rate: float,
    side: Side,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(filling_choice, "EPISODES", 80)
    folder: Path = request.getfixturevalue(dataset)
    task = Protocol(**TASK, missing=(Missing(lost, rate, side),))
    for rule in ("auto", *RULES):
        fsmm.episode_eval(
            method,
            dataset,
            folder.parent,
            protocol=task,
            episodes=100,
            out=tmp_path / rule,
            when_missing=rule,
        )
    for rule in RULES:
        (pair,) = compare([tmp_path / "auto", tmp_path / rule]).pairs
        assert pair.clips is not None
        assert pair.difference + (pair.clips.ci95 or 0.0) >= -SLACK, rule
