"""SimpleShot: the base mean comes from the base classes; nearest mean as scikit-learn's NearestCentroid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from metric_support import features, inputs, random_episodes
from sklearn.neighbors import NearestCentroid
from torch.nn import functional as F

from fsmm.cache.bank import FeatureBank
from fsmm.errors import UsageError
from fsmm.heads.metric.simpleshot import SimpleShot, SimpleShotSettings


@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
def test_as_nearest_centroid(transform: str) -> None:
    episodes = random_episodes(spread=1.5)
    head = SimpleShot(inputs(), SimpleShotSettings(transform)).double()
    head.mean.copy_(torch.linspace(-1, 1, 12))
    support, query = features(episodes)
    chosen = head(episodes).argmax(-1)
    for b in range(3):
        s, q = support[b].flatten(0, 1), query[b]
        if transform == "cl2n":
            s, q = s - head.mean, q - head.mean
        if transform != "un":
            s, q = F.normalize(s, dim=-1), F.normalize(q, dim=-1)
        peer = NearestCentroid().fit(s.numpy(), torch.arange(4).repeat_interleave(2).numpy())
        assert chosen[b].tolist() == peer.predict(q.numpy()).tolist()


def test_the_mean_is_that_of_the_base_classes(make_cache: Callable[..., Path]) -> None:
    base = FeatureBank.load(make_cache(), ["frame"], "base").pooled()
    head = SimpleShot(inputs(base.tables["frame"].dim), SimpleShotSettings())
    head.fit_base(base)
    rows = torch.arange(len(base))
    torch.testing.assert_close(head.mean, base.tables["frame"].gather(rows).x[:, 0].float().mean(0))


def test_an_unknown_transform_is_refused() -> None:
    with pytest.raises(UsageError, match="cl2n"):
        SimpleShot(inputs(), SimpleShotSettings("cln"))
