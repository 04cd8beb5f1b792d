"""Heads that find each clip's frames once a test score it as the direct path does, and read no clip again."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from tests_support import bank_of

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of

STEPS = 5
CASES = [
    ("trx", {"width": "7"}),
    ("strm", {"width": "7"}),
    *(("hyrsm", {"form": form}) for form in ("videos", "prototypes", "auto")),
    ("hyrsmpp", {}),
    ("molo", {"classes": "8"}),
    ("clipfsar", {"classes": "8"}),
    ("clipfsar", {"classes": "8", "merge": "after"}),
    ("clipfsar", {"classes": "8", "use_words": "false"}),
]


def bank() -> FeatureBank:
    """60 clips of five classes with words, of one to five steps."""
    torch.manual_seed(0)
    length = torch.randint(1, STEPS + 1, (60,))
    x = torch.randn(60, STEPS, 6) * (torch.arange(STEPS) < length[:, None])[..., None]
    clips = bank_of(x, torch.arange(5).repeat_interleave(12), length=length)
    return replace(clips, words=torch.randn(5, 7))


@pytest.mark.parametrize(("method", "settings"), CASES)
@pytest.mark.parametrize("shots", [1, 3])
def test_frames_found_once_for_all_episodes_give_the_direct_logits(
    method: str, settings: dict[str, str], shots: int
) -> None:
    clips, protocol = bank(), Protocol(n_way=3, k_shot=shots, n_query=4)
    head = build_head(method, inputs_of(clips), settings).double().eval()
    for weight in head.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    index = next(Sampler(clips, protocol).batches(0, 8, 8))
    direct = head.score(clips, index, protocol).float()
    with patch.object(head, "forward", side_effect=AssertionError("the clips were read again")):
        found = head.scorer(clips, protocol, 20)(index)
    assert torch.allclose(found, direct, rtol=1e-6)
