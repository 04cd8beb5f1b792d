"""Replayed episodes: the file decides clips and steps, figures are those of a slow loop, runs pair over one file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache

import fsmm
from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.episodes.episode_file import EpisodeFile
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.segment_sampler import draw_with_steps
from fsmm.errors import UsageError
from fsmm.runs.run import Run, episode_eval
from fsmm.studies.compare import compare

STEPS = 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(
        tmp_path_factory.mktemp("cache"), streams={"video/net": (12, 8), "audio/net": (5, 6)}, noise=2.0
    )


@pytest.fixture(scope="module")
def file(cache: Path) -> EpisodeFile:
    """120 5-way 2-shot episodes of two queries, with three of twelve steps of each clip."""
    catalog = Catalog.read(cache / "toy")
    labels = catalog.labels()
    novel = set(labels.class_split("novel").tolist())
    lengths: dict[str, dict[str, int]] = {}
    for clip, label in zip(catalog.clip_id, labels.label.tolist()):
        if label in novel:
            lengths.setdefault(labels.class_names[label], {})[clip] = 12
    return draw_with_steps(lengths, episodes=120, ways=5, shots=2, queries=2, steps=STEPS, seed=1)


def written(file: EpisodeFile, path: Path) -> Path:
    file.write(path)
    return path


def replayed(cache: Path, path: Path, out: Path, method: str = "protonet", **given: Any) -> Run:
    return episode_eval(
        method, "toy", cache, episodes_file=path, out=out, **{"streams": ["video"], "device": "cpu", **given}
    )


def by_hand(cache: Path, file: EpisodeFile) -> list[float]:
    """The accuracy of each episode by class means of the taken steps, of length one, in float64."""
    bank = FeatureBank.load(cache, ["video"], "novel", words=None)
    ids = Catalog.read(cache / "toy").clip_id
    row = {ids[r]: i for i, r in enumerate(bank.clip_row)}
    x = bank.tables["video"].gather(torch.arange(len(bank))).x.double().numpy()
    assert file.support_steps is not None
    assert file.query_steps is not None

    def clip(place: int, steps: np.ndarray) -> np.ndarray:
        mean = x[row[file.clips[place]]][steps].mean(0)
        return mean / np.linalg.norm(mean)

    accuracy = []
    for e in range(len(file)):
        means = [
            np.mean([clip(c, s) for c, s in zip(file.support[e, n], file.support_steps[e, n])], 0)
            for n in range(5)
        ]
        right = 0
        for c, s, label in zip(file.query[e], file.query_steps[e], file.query_label[e]):
            distance = [np.linalg.norm(clip(c, s) - mean) for mean in means]
            right += int(np.argmin(distance)) == label
        accuracy.append(right / file.query.shape[1])
    return accuracy


def test_the_steps_of_the_file_are_taken(cache: Path, file: EpisodeFile, tmp_path: Path) -> None:
    path = written(file, tmp_path / "e.npz")
    run = replayed(cache, path, tmp_path / "run")
    assert run.accuracy == pytest.approx(by_hand(cache, file))
    assert run.metrics["protocol"]["replay"] == EpisodeFile.read(path).digest
    assert (run.metrics["protocol"]["n_way"], run.metrics["protocol"]["k_shot"]) == (5, 2)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["protocol"]["replay"] == run.metrics["protocol"]["replay"]
    assert Path(config["episodes_file"]) == path
    first = replayed(cache, path, tmp_path / "few", episodes=30)
    assert np.array_equal(first.accuracy, run.accuracy[:30])


def test_whole_clips_equal_all_steps(cache: Path, file: EpisodeFile, tmp_path: Path) -> None:
    """A file without steps gives the figures of one that names all steps, whichever way scores them."""
    whole = replace(file, support_steps=None, query_steps=None)
    every = replace(
        file,
        support_steps=np.broadcast_to(np.arange(12), (*file.support.shape, 12)).copy(),
        query_steps=np.broadcast_to(np.arange(12), (*file.query.shape, 12)).copy(),
    )
    one, other = (
        replayed(cache, written(f, tmp_path / f"{n}.npz"), tmp_path / n)
        for n, f in (("whole", whole), ("all", every))
    )
    assert np.array_equal(one.accuracy, other.accuracy)


@pytest.mark.parametrize("method", ["otam", "relation", "nearest"])
def test_methods_of_other_kinds_replay(cache: Path, file: EpisodeFile, tmp_path: Path, method: str) -> None:
    """One that reads time, one that trains, one without; the head sees sequences of the file's length in both."""
    settings = {"train.steps": "2"} if method == "relation" else {}
    path = written(file, tmp_path / "e.npz")
    run = replayed(cache, path, tmp_path / "run", method, episodes=20, settings=settings)
    assert len(run.accuracy) == 20
    assert run.mean > 0.2


def test_centred_sequences_are_centred_by_the_base_mean(
    cache: Path, file: EpisodeFile, tmp_path: Path
) -> None:
    """All steps by a file, centred, give what whole clips give."""
    whole = replace(file, support_steps=None, query_steps=None)
    every = replace(
        file,
        support_steps=np.broadcast_to(np.arange(12), (*file.support.shape, 12)).copy(),
        query_steps=np.broadcast_to(np.arange(12), (*file.query.shape, 12)).copy(),
    )
    one, other = (
        replayed(cache, written(f, tmp_path / f"{n}.npz"), tmp_path / n, normalise="centre-l2")
        for n, f in (("whole", whole), ("all", every))
    )
    assert np.array_equal(one.accuracy, other.accuracy)


def test_runs_pair_over_one_file_and_not_over_two(cache: Path, file: EpisodeFile, tmp_path: Path) -> None:
    path = written(file, tmp_path / "e.npz")
    replayed(cache, path, tmp_path / "a")
    replayed(cache, path, tmp_path / "b", "nearest")
    found = compare([tmp_path / "a", tmp_path / "b"])
    assert found.episodes == 120
    assert found.pairs[0].draws is not None
    assert any("read from a file" in note for note in found.notes)
    other = written(
        replace(file, query=file.query[::-1].copy(), query_label=file.query_label), tmp_path / "o.npz"
    )
    assert EpisodeFile.read(other).digest != EpisodeFile.read(path).digest
    part = replace(file, support=file.support[:60], query=file.query[:60], query_label=file.query_label[:60])
    assert file.support_steps is not None
    assert file.query_steps is not None
    steps = {"support_steps": file.support_steps[:60], "query_steps": file.query_steps[:60]}
    replayed(cache, written(replace(part, **steps), tmp_path / "p.npz"), tmp_path / "c", "nearest")
    with pytest.raises(UsageError, match="replay"):
        compare([tmp_path / "a", tmp_path / "c"])


def test_wrong_requests_are_one_sentence(cache: Path, file: EpisodeFile, tmp_path: Path) -> None:
    path = written(file, tmp_path / "e.npz")
    with pytest.raises(UsageError, match="--dirichlet"):
        replayed(cache, path, tmp_path / "run", protocol=Protocol(dirichlet=1.0))
    with pytest.raises(UsageError, match="--query-classes"):
        replayed(cache, path, tmp_path / "run", protocol=Protocol(query_classes=2))
    with pytest.raises(UsageError, match="choose one by --streams"):
        replayed(cache, path, tmp_path / "run", streams=None)
    with pytest.raises(UsageError, match="is not among the"):
        replayed(cache, path, tmp_path / "run", protocol=Protocol(split="val"))
    assert file.query_steps is not None
    late = written(replace(file, query_steps=file.query_steps + 9), tmp_path / "late.npz")
    with pytest.raises(UsageError, match="has 12 steps"):
        replayed(cache, late, tmp_path / "run")
    mixed = written(replace(file, query_label=file.query_label[:, ::-1].copy()), tmp_path / "mixed.npz")
    with pytest.raises(UsageError, match="several classes"):
        replayed(cache, mixed, tmp_path / "run")


def test_protocols_without_a_file_are_stored_as_ever() -> None:
    assert "replay" not in Protocol().to_dict()
    assert Protocol.from_dict(Protocol(replay="ab").to_dict()) == Protocol(replay="ab")
    assert fsmm.Protocol is Protocol
