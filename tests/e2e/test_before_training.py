"""What a test needs is checked before training: the command fails at once, in one sentence, with nothing trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_support import called
from tests_support import synthetic_cache

from fsmm.cache.catalog import Catalog, LabelSet

NOVEL_CLIPS = 7


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six base, val and novel classes of 24 clips, of which one novel class has lost all but a few clips."""
    root = synthetic_cache(tmp_path_factory.mktemp("cache"), unlabelled=3)
    folder = root / "toy"
    catalog = Catalog.read(folder)
    event = catalog.labels("event")
    label = np.array(event.label)
    label[np.flatnonzero(label == 17)[NOVEL_CLIPS:]] = -1
    few = (label == 17) & (np.arange(len(label)) % 3 == 0)
    tags = np.stack([label < 4, label < 8, few, (label > 11) & (label < 16)], 1).astype(np.uint8)
    sets = {
        "event": LabelSet(event.class_names, label, splits=event.splits),
        "tags": LabelSet(["a", "b", "few", "c"], tags, splits={"default": np.array([1, 1, 3, 3])}),
    }
    Catalog("toy", catalog.clip_id, sets, "event").write(folder)
    return root


CASES = {
    "clips a class": (["--method", "relation", "--k-shot", "5", "--n-query", "4"], "'class 17' has 7 clips"),
    "classes": (["--method", "relation", "--n-way", "7", "--n-query", "2"], "7-way"),
    "short classes": (
        ["--method", "relation", "--n-way", "6", "--k-shot", "7", "--small-classes", "short"],
        "6-way",
    ),
    "unlabelled clips": (
        ["--method", "relation", "--n-query", "2", "--unlabelled", "50"],
        "asks for 50 unlabelled clips",
    ),
    "supports": (["--method", "relation", "--k-shot", "0"], "needs supports"),
    "words": (
        ["--method", "common-space", "--n-way", "0", "--k-shot", "0", "--words", "none"],
        "needs class words",
    ),
    "words in episodes": (
        ["--method", "common-space", "--k-shot", "0", "--n-query", "2", "--words", "none"],
        "needs class words",
    ),
    "generalised": (
        ["--method", "common-space", "--k-shot", "1", "--n-query", "2", "--generalised"],
        "whole splits",
    ),
    "modalities that do not meet": (
        ["--method", "relation", "--n-query", "2", "--support-modalities", "frame", "--query-modalities", "audio",
         "--when-missing", "drop"],
        "common-space",
    ),
    "a sweep over whole splits": (
        ["--method", "common-space", "--n-way", "0", "--k-shot", "0", "--missing-sweep", "audio@query"],
        "takes clips as they are",
    ),
    "clips a label": (
        ["--method", "relation", "--label-set", "tags", "--n-way", "2", "--n-query", "4"],
        "Label 'few' is on",
    ),
    "reliability of several labels": (
        ["--method", "relation", "--label-set", "tags", "--n-way", "2", "--n-query", "1", "--reliability"],
        "one label a clip",
    ),
    "reliability": (
        ["--method", "relation", "--n-query", "2", "--modalities", "frame", "--reliability"],
        "two or more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_fails_before_any_training(cache: Path, tmp_path: Path, case: str) -> None:
    words, sentence = CASES[case]
    done = called("episode-eval", "--cache", cache, "--out", tmp_path / "run", *words)
    assert done.returncode not in (0, 130)
    assert sentence in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "training").exists(), "not even the untrained state was written"
    assert not (tmp_path / "run" / "metrics.json").exists()
