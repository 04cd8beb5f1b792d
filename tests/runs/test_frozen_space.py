"""The frozen space beside zero-shot runs, and generalised runs with each rule, from a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.runs.run import Run, episode_eval
from fsmm.runs.spec import SeenUnseen

WHOLE = Protocol(n_way=0, k_shot=0)
GENERALISED = Protocol(n_way=0, k_shot=0, generalised=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six base, val and novel classes; the words of frame/net's text tower are its class means, up to noise."""
    root = synthetic_cache(
        tmp_path_factory.mktemp("frozen"), streams={"frame/net": (2, 8), "audio/net": (1, 8)}
    )
    rng = np.random.default_rng(0)
    rng.random((18 * 24, 2))  # what synthetic_cache draws before the class means of its first stream
    means = rng.normal(size=(19, 8))
    with StreamWriter(
        root / "toy", Provenance("net-text", "word", 8, axis="class", dtype="float32")
    ) as writer:
        for c in range(18):
            writer.add(f"event/class {c}", means[None, c].astype(np.float32))
    return root


def test_a_zero_shot_run_prints_the_frozen_space(cache: Path, tmp_path: Path) -> None:
    run = episode_eval(
        "ridge-words",
        "toy",
        cache,
        protocol=GENERALISED,
        out=tmp_path / "a",
        words="word/toy",
        modalities=("audio",),
    )
    found = {figures["stream"]: figures for figures in run.metrics["frozen_space"]}
    assert set(found) == {"frame/net", "audio/net"}
    alone = episode_eval(
        "frozen-space",
        "toy",
        cache,
        protocol=GENERALISED,
        out=tmp_path / "b",
        words="word/net-text",
        streams=("frame/net",),
    ).metrics
    for name in ("seen", "unseen", "harmonic"):
        assert found["frame/net"][name] == alone[name]
    assert alone["frozen_space"] == []
    assert alone["unseen_alone"] > 0.5  # chance is 1/6


def test_no_frozen_space_without_a_text_tower_or_with_supports(cache: Path, tmp_path: Path) -> None:
    run = episode_eval("protonet", "toy", cache, episodes=5, out=tmp_path / "a", modalities=("frame",))
    assert run.metrics["frozen_space"] == []


def few_shot(cache: Path, out: Path, rule: SeenUnseen) -> Run:
    """A generalised test with five supports a class."""
    return episode_eval(
        "protonet",
        "toy",
        cache,
        protocol=Protocol(n_way=0, k_shot=5, generalised=True),
        episodes=3,
        modalities=("frame",),
        out=out,
        seen_unseen=rule,
    )


@pytest.mark.parametrize("rule", ["none", "val", "auto", "learned"])
def test_generalised_few_shot_by_every_rule(cache: Path, tmp_path: Path, rule: SeenUnseen) -> None:
    run = few_shot(cache, tmp_path, rule)
    found = run.metrics
    assert found["episodes"] == len(run.accuracy) == 3
    assert found["harmonic"] > 0.3  # chance among twelve classes is 1/12
    assert {"none": "bias", "val": "bias", "learned": "learned"}.get(rule, "") in found["seen_unseen"]["kind"]


def test_a_generalised_few_shot_test_gives_the_same_again(cache: Path, tmp_path: Path) -> None:
    first, second = (few_shot(cache, tmp_path / name, "auto") for name in ("a", "b"))
    assert np.array_equal(first.accuracy, second.accuracy)


def test_generalised_tests_with_rules_that_have_no_meaning_are_refused(cache: Path, tmp_path: Path) -> None:
    wrong = Protocol(n_way=0, k_shot=(1, 5), generalised=True)
    with pytest.raises(UsageError, match="one number of supports"):
        episode_eval("protonet", "toy", cache, protocol=wrong, out=tmp_path / "a", modalities=("frame",))


def test_words_by_position_change_the_words_and_say_so(cache: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.csv"
    rows = [f"class {c},{'zz' if c == 12 else f'class {c}'}" for c in range(18)]
    names.write_text("original,manual\n" + "\n".join(rows), encoding="utf-8")
    given: dict[str, Any] = {"protocol": WHOLE, "words": "word/net-text", "settings": {"train.steps": "1"}}
    by_name = episode_eval("cjme", "toy", cache, out=tmp_path / "a", **given)
    given["settings"] = {"train.steps": "1", "words_by": "position", "word_names": str(names)}
    by_position = episode_eval("cjme", "toy", cache, out=tmp_path / "b", **given)
    assert not any("another class" in note for note in by_name.metrics["notes"])
    assert any("6 novel classes get another class's words" in note for note in by_position.metrics["notes"])
