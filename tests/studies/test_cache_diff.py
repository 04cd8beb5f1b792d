"""Two caches of the same clips: the same is no difference, a scale and a shift are found, accuracies are paired."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.cli import app
from fsmm.episodes.protocol import Protocol
from fsmm.errors import CacheError, UsageError
from fsmm.studies.cache_diff import cache_diff, fitted

TASK = Protocol(n_way=3, k_shot=1, n_query=3, split="all")


def cache(
    root: Path, *, scale: float = 1.0, shift: float = 0.0, noise: float = 0.0, clips: int = 40, dim: int = 6
) -> Path:
    """A cache of clips of four classes around four means, changed as said."""
    draws = np.random.default_rng(3)
    label = np.arange(clips) % 4
    x = draws.normal(size=(4, dim))[label] + 0.6 * draws.normal(size=(clips, dim))
    x = scale * x + shift + noise * np.random.default_rng(4).normal(size=x.shape)
    ids = [f"c{i:02d}" for i in range(clips)]
    Catalog("toy", ids, {"kind": LabelSet(list("abcd"), label)}, "kind").write(root / "toy")
    with StreamWriter(root / "toy", Provenance("net", "frame", dim, dtype="float32")) as writer:
        for key, row in zip(ids, x):
            writer.add(key, np.stack([row, row]).astype(np.float32))
    return root


def test_equal_caches_do_not_differ(tmp_path: Path) -> None:
    one, other = cache(tmp_path / "a"), cache(tmp_path / "b")
    (found,) = cache_diff(one, other, episodes=40, protocol=TASK)
    assert found.cosine == pytest.approx(1)
    assert (found.scale, found.left) == pytest.approx((1, 0), abs=1e-9)
    assert found.accuracy is not None
    assert found.accuracy["difference"] == 0


def test_scale_and_shift_are_those_that_were_put_in(tmp_path: Path) -> None:
    one, other = cache(tmp_path / "a"), cache(tmp_path / "b", scale=2.5, shift=0.75)
    (found,) = cache_diff(one, other, episodes=0, protocol=TASK)
    assert found.scale == pytest.approx(2.5, rel=1e-5)
    assert found.left == pytest.approx(0, abs=1e-6)
    assert found.cosine < 1
    assert found.accuracy is None


def test_the_fit_is_that_of_least_squares() -> None:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(30, 4))
    y = 0.5 * x + draws.normal(size=(30, 4))
    scale, shift, _ = fitted(x, y)

    def loss(s: float, b: np.ndarray) -> float:
        return float(((y - s * x - b) ** 2).sum())

    assert all(loss(scale, shift) <= loss(scale + d, shift) for d in (-0.01, 0.01))
    assert all(
        loss(scale, shift) <= loss(scale, shift + d * np.eye(4)[k]) for d in (-0.01, 0.01) for k in range(4)
    )


def test_noise_costs_accuracy_with_an_interval(tmp_path: Path) -> None:
    one, other = cache(tmp_path / "a"), cache(tmp_path / "b", noise=3.0)
    (found,) = cache_diff(one, other, episodes=400, protocol=TASK)
    assert found.left > 0.5
    assert found.accuracy is not None
    assert found.accuracy["difference"] > 0.2  # first minus second
    assert found.accuracy["clips"]["ci95"] > 0


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one = cache(tmp_path / "a")
    with pytest.raises(UsageError, match="named twice"):
        cache_diff(one, one, protocol=TASK)
    with pytest.raises(CacheError, match="6 numbers a step in one cache and 5"):
        cache_diff(one, cache(tmp_path / "b", dim=5), protocol=TASK)
    fewer = cache(tmp_path / "c", clips=36)
    (found,) = cache_diff(one, fewer, protocol=TASK)
    assert found.one_sided == 4
    assert "list other clips" in found.note


def test_the_command_prints_a_row_for_each_stream(tmp_path: Path) -> None:
    caches = [str(cache(tmp_path / "a")), str(cache(tmp_path / "b", scale=2.0))]
    made = CliRunner().invoke(app, ["cache", "diff", *caches, "--episodes", "0", "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.output)[0]["scale"] == pytest.approx(2, rel=1e-5)
    shown = CliRunner().invoke(app, ["cache", "diff", *caches, "--episodes", "0"]).output
    assert "frame/net" in shown
