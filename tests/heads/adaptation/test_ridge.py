"""Ridge regression agrees with scikit-learn's, leaves absent supports out, and refuses a penalty of zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Peer
from tests_support import bank_of
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import UsageError
from fsmm.heads.adaptation.ridge import Ridge, RidgeSettings
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Inputs
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.scoring.gram import FromGram
from fsmm.heads.scoring.plan import best_shortcut, direct


def stream(x: Tensor) -> Stream:
    there = torch.ones(x.shape[:-1], dtype=torch.bool)
    return Stream(x[..., None, :], there, there.long())


def episodes(ways: int, shots: int, dim: int, queries: int = 7) -> Episodes:
    torch.manual_seed(0)
    return Episodes(
        {"frame": stream(torch.randn(3, ways, shots, dim, dtype=torch.float64))},
        {"frame": stream(torch.randn(3, queries, dim, dtype=torch.float64))},
        torch.zeros(3, queries, dtype=torch.long),
        torch.arange(ways).expand(3, -1),
    )


def ridge(dim: int, **given: float) -> Ridge:
    return Ridge(Inputs(streams={"frame": (1, dim)}), RidgeSettings(**given))


@pytest.mark.parametrize(("ways", "shots", "dim"), [(5, 1, 20), (3, 8, 10), (2, 1, 4)])
def test_scores_are_those_of_scikit_learn(ways: int, shots: int, dim: int) -> None:
    task = episodes(ways, shots, dim)
    mine = ridge(dim, penalty=0.7, scale=3.0)(task)
    target = np.eye(ways).repeat(shots, 0)
    for x, q, scores in zip(task.support["frame"].x.flatten(1, 3), task.query["frame"].x[:, :, 0], mine):
        peer = Peer(alpha=0.7, fit_intercept=False).fit(x, target)
        np.testing.assert_allclose(scores.numpy() / 3.0, peer.predict(q).reshape(len(q), -1), atol=1e-9)


def test_absent_supports_are_left_out_and_empty_classes_neutral() -> None:
    task, head = episodes(4, 3, 10), ridge(10)
    support = task.support["frame"]
    there = support.present.clone()
    there[:, :, 2] = False
    there[:, 1] = False
    logits = head(
        replace(task, support={"frame": Stream(support.x * there[..., None, None], there, there.long())})
    )
    kept = [0, 2, 3]
    fewer = replace(task, support={"frame": support[:, kept, :2]}, class_id=task.class_id[:, kept])
    torch.testing.assert_close(logits[..., kept], head(fewer))
    torch.testing.assert_close(logits[..., 1], logits[..., kept].mean(-1))


def test_low_precision_is_raised_and_penalties_checked() -> None:
    assert torch.isfinite(ridge(10)(episodes(5, 1, 10).to("cpu", torch.bfloat16))).all()
    with pytest.raises(UsageError, match="=0 is not allowed; it must be above 0"):
        ridge(10, penalty=0.0)


def test_inner_products_of_all_clips_give_the_same_logits() -> None:
    torch.manual_seed(0)
    bank = bank_of(torch.randn(72, 10), torch.arange(6).repeat_interleave(12))
    task = Protocol(n_way=4, k_shot=3, n_query=5)
    head = build_head("ridge", inputs_of(bank))
    index = next(Sampler(bank, task).batches(0, 20, 20))
    test = EpisodeTest(bank=bank, protocol=task, episodes=10_000)
    way = best_shortcut(head, test)
    assert isinstance(way, FromGram)
    torch.testing.assert_close(way.prepare(test)(index), direct(head, test)(index), rtol=1e-3, atol=1e-3)
