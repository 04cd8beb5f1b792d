"""Tests over several modalities are prepared clip by clip where that changes nothing, and only there."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from tests_support import bank_of, moved_head

from fsmm.cache.bank import FeatureBank
from fsmm.cache.schema import StreamName
from fsmm.cache.table import TensorTable
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.head import Head

PROTOCOL = Protocol(n_way=3, k_shot=2, n_query=4)
CASES = [
    ("amfar", {}),
    ("amfar", {"ami": "false", "level": "false", "width": "0"}),
    ("amfar", {"distance": "otam"}),
    ("amfar", {"distance": "trx"}),
    ("amefunet", {}),
    ("amefunet", {"head": "cosine", "norm": "frame", "main": "audio"}),
    ("protonet-lf", {}),
    ("protonet-lf", {"fusion.rule": "product", "fusion.temperature": "3"}),
    ("protonet-ea", {}),
    ("protonet-ec", {}),
    ("otam-lf", {}),
    ("feat-lf", {}),
]


def bank(absent: bool = False) -> FeatureBank:
    """60 clips of five classes: frames of five steps, sound of three, some shorter."""
    label = torch.arange(5).repeat_interleave(12)
    tables = {}
    for m, steps, dim in (("frame", 5, 8), ("audio", 3, 6)):
        length = torch.randint(1, steps + 1, (60,))
        x = torch.nn.functional.normalize(torch.randn(60, steps, dim) + 0.3, dim=-1)
        x = x * (torch.arange(steps) < length[:, None])[..., None]
        tables[m] = TensorTable(x, length, length > 0)
    if absent:
        tables["audio"] = TensorTable(tables["audio"].x, tables["audio"].length, torch.arange(60) > 3)
    whole = bank_of(tables["frame"].x, label)
    return replace(whole, tables=tables, streams={m: StreamName(m, "x") for m in tables})


def posteriors(
    head: Head, clips: FeatureBank, task: Protocol, episodes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Directly from the features, and as a test of so many episodes would have them."""
    index = next(Sampler(clips, task).batches(0, 20, 20))
    direct, found = head.score(clips, index, task), head.scorer(clips, task, episodes)(index)
    return torch.softmax(direct, -1), torch.softmax(found, -1)


@pytest.mark.parametrize(("method", "settings"), CASES)
@pytest.mark.parametrize("shots", [1, 2])
def test_a_prepared_test_gives_the_posteriors_of_the_features(
    method: str, settings: dict[str, str], shots: int
) -> None:
    torch.manual_seed(0)
    clips = bank()
    direct, found = posteriors(
        moved_head(method, settings, clips), clips, replace(PROTOCOL, k_shot=shots), 10_000
    )
    torch.testing.assert_close(found, direct, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("method", "settings"), CASES)
def test_it_does_not_score_episodes_from_features(method: str, settings: dict[str, str]) -> None:
    torch.manual_seed(0)
    clips = bank()
    head = moved_head(method, settings, clips)
    index = next(Sampler(clips, PROTOCOL).batches(0, 3, 3))
    with patch.object(type(head), "forward", side_effect=AssertionError("features were read")):
        assert head.scorer(clips, PROTOCOL, 10_000)(index).shape == (3, 12, 3)


@pytest.mark.parametrize(("method", "settings"), CASES)
@pytest.mark.parametrize(
    "change",
    [
        {"missing": (Missing("audio", 0.5),)},
        {"query_modalities": ("frame",), "support_modalities": ("frame",)},
    ],
)
def test_what_a_task_withholds_is_not_seen(
    method: str, settings: dict[str, str], change: dict[str, object]
) -> None:
    torch.manual_seed(0)
    clips = bank()
    direct, found = posteriors(
        moved_head(method, settings, clips), clips, replace(PROTOCOL, **change), 10_000
    )
    assert torch.equal(found, direct)


@pytest.mark.parametrize(("method", "settings"), CASES)
def test_absent_clips_are_left_to_the_episodes(method: str, settings: dict[str, str]) -> None:
    torch.manual_seed(0)
    clips = bank(absent=True)
    direct, found = posteriors(moved_head(method, settings, clips), clips, PROTOCOL, 10_000)
    assert torch.equal(found, direct)
