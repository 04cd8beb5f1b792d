"""Retrieval: ranks and precisions against loops, and what is counted as found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import bank_of, synthetic_cache
from torch import Tensor
from torch.nn import functional as F

import fsmm
from fsmm.cache.table import Stream
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Head, Inputs
from fsmm.heads.settings import Settings
from fsmm.runs.measure import measure
from fsmm.runs.retrieval import Retrieval, retrieve

RETRIEVAL = Protocol(retrieval=True)


class Plain(Head[Settings]):
    """The space is that of the features: clips lie at the sum of their modalities."""

    def place(self, streams: Mapping[str, Stream]) -> tuple[Tensor, Tensor]:
        present = torch.stack([s.present for s in streams.values()]).any(0)
        return F.normalize(torch.stack([s.pooled() for s in streams.values()]).sum(0), dim=-1), present

    def place_words(self, words: Tensor) -> Tensor:
        return F.normalize(words, dim=-1)


def looked_up() -> tuple[Retrieval, dict[str, Tensor]]:
    chance = torch.Generator().manual_seed(0)
    label = torch.arange(24) % 3
    x = {m: F.normalize(torch.randn(24, 5, generator=chance), dim=-1) for m in ("frame", "audio")}
    words = torch.randn(3, 5, generator=chance)
    present = {"audio": (torch.arange(24) != 7).long()}
    x["audio"] = x["audio"] * present["audio"][:, None]
    bank = bank_of(x, label, present, words=words)
    head = Plain(Inputs(streams={"frame": (1, 5), "audio": (1, 5)}), Settings())
    found = measure(head, bank, RETRIEVAL, 1)
    assert isinstance(found, Retrieval)
    return found, {**x, "words": words, "label": label}


def average_precision(scores: list[float], relevant: list[bool]) -> float:
    ranked = [r for _, r in sorted(zip(scores, relevant), key=lambda pair: -pair[0])]
    hits = [sum(ranked[: i + 1]) / (i + 1) for i, r in enumerate(ranked) if r]
    return sum(hits) / len(hits)


def test_words_look_for_the_clips_of_their_class() -> None:
    found, data = looked_up()
    whole = F.normalize(data["frame"] + data["audio"], dim=-1)
    scores = F.normalize(data["words"], dim=-1) @ whole.T
    said = found.directions["words -> clips"]
    for c in range(3):
        relevant = (data["label"] == c).tolist()
        assert said.precision[c] == pytest.approx(average_precision(scores[c].tolist(), relevant))
        best = min(int((scores[c] > scores[c, i]).sum()) + 1 for i in range(24) if relevant[i])
        assert said.first[c] == best


def test_a_clip_looks_for_itself_in_another_modality_and_for_its_class() -> None:
    found, data = looked_up()
    both = [i for i in range(24) if i != 7]
    scores = data["audio"] @ data["frame"].T
    said = found.directions["audio -> frame"]
    assert len(said.first) == 23
    for place, i in enumerate(both):
        row = scores[i, both]
        assert said.first[place] == int((row > scores[i, i]).sum()) + 1
        same = [bool(data["label"][j] == data["label"][i]) for j in both]
        assert said.precision[place] == pytest.approx(average_precision(row.tolist(), same))
    shares = said.summary()
    assert shares["R@1"] == pytest.approx(np.mean(said.first == 1))
    assert shares["R@10"] == pytest.approx(np.mean(said.first <= 10))


def test_the_figure_is_the_mean_over_the_directions_and_is_stored() -> None:
    found, _ = looked_up()
    assert list(found.directions) == ["words -> clips", "frame -> audio", "audio -> frame"]
    means = [d.precision.mean() for d in found.directions.values()]
    assert found.summary()["accuracy"] == pytest.approx(np.mean(means))
    assert found.arrays()["accuracy"][0] == pytest.approx(np.mean(means))


def test_what_has_no_common_space_and_what_has_nothing_to_look_up_by_is_refused() -> None:
    bank = bank_of(torch.randn(6, 4), torch.arange(6) % 2)
    with pytest.raises(UsageError, match="common-space"):
        retrieve(build_head("protonet", inputs_of(bank)), bank)
    with pytest.raises(UsageError, match="two modalities"):
        retrieve(build_head("common-space", inputs_of(bank, base_classes=2)), bank)
    with pytest.raises(UsageError, match="leave out --missing"):
        measure(build_head("protonet", inputs_of(bank)), bank, Protocol(retrieval=True, generalised=True), 1)


def test_the_common_space_is_trained_by_few_shot_validation_and_looked_up(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path / "cache", noise=1.0)
    found = fsmm.episode_eval(
        "common-space",
        "toy",
        cache,
        protocol=Protocol(n_query=4, retrieval=True),
        settings={"train.steps": "20", "train.evaluate_episodes": "20", "dim": "16", "train.clips": "100"},
        out=tmp_path / "run",
    )
    assert set(found.metrics["retrieval"]) == {"words -> clips", "frame -> audio", "audio -> frame"}
    assert found.metrics["protocol_text"] == "clips of the split looked up"
