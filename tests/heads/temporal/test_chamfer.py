"""Matchings of clips: against loops over pairs of cut clips, by tuples written out, and the errors of bad settings."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from temporal_support import DIM, cut, episode, head, order_kept
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.errors import UsageError
from fsmm.heads.parts.clip_matching import best_ordered

EVERY = [
    "chamfer++",
    "chamfer",
    "chamfer-query",
    "chamfer-support",
    "mean",
    "max",
    "diagonal",
    "otam",
    "visil",
]


def tuples(clip: Tensor, size: int) -> Tensor:
    """All ordered tuples of the unit steps of a clip [T, D], side by side and of length one."""
    clip = torch.nn.functional.normalize(clip, dim=-1)
    clip = torch.cat([clip, clip[-1:].expand(max(size - len(clip), 0), -1)])
    rows = [torch.cat([clip[i] for i in steps]) for steps in combinations(range(len(clip)), size)]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def matched(s: Tensor, matching: str) -> Tensor:
    forth, back = s.amax(1).mean(), s.amax(0).mean()
    return {
        "chamfer-query": forth, "chamfer-support": back, "mean": s.mean(), "max": s.max(),
    }.get(matching, (forth + back) / 2)  # fmt: skip


@pytest.mark.parametrize(
    "matching", ["chamfer++", "chamfer", "chamfer-query", "chamfer-support", "mean", "max"]
)
@pytest.mark.parametrize("supports", ["joint", "separate"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_equals_a_loop_over_cut_clips(matching: str, supports: str, size: int) -> None:
    task = episode(batch=1, queries=3)
    given = {"matching": matching, "supports": supports, "size": str(size), "scale": "1"}
    logits = head("chamfer", given)(task)
    support, query = task.support["frame"], task.query["frame"]
    for i in range(3):
        q = tuples(query.x[0, i, : query.length[0, i]], size)
        for c in range(3):
            sides = [tuples(support.x[0, c, k, : support.length[0, c, k]], size) for k in range(2)]
            groups = [torch.cat(sides)] if supports == "joint" else sides
            expected = torch.stack([matched(q @ s.T, matching) for s in groups]).mean()
            assert logits[0, i, c].item() == pytest.approx(expected.item(), abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_best_ordered_tuples_are_those_of_all_pairs_written_out(size: int) -> None:
    similarity = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each = [
        torch.stack([sum(similarity[i, j] for i, j in zip(a, b)) for b in combinations(range(6), size)]).amax(
            0
        )
        for a in combinations(range(5), size)
    ]
    assert torch.allclose(best_ordered(similarity, size), torch.stack(each))


@pytest.mark.parametrize("side", ["support", "query"])
@pytest.mark.parametrize("matching", EVERY)
def test_steps_beyond_a_clip_do_not_count(matching: str, side: str) -> None:
    made, task = head("chamfer", {"matching": matching}), episode()
    assert torch.allclose(made(cut(task, side)), made(task))


@pytest.mark.parametrize("matching", EVERY)
def test_bfloat16_keeps_the_ranking(matching: str) -> None:
    assert order_kept(head("chamfer", {"matching": matching}), episode(batch=20)) > 0.95


@pytest.mark.parametrize("matching", ["linear", "visil", "chamfer++"])
def test_what_is_learned_is_reached_by_the_objective(matching: str) -> None:
    made, task = head("chamfer", {"matching": matching, "project": "6"}), episode()
    made.loss(task).total.backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in made.parameters())


def test_an_untrained_visil_is_the_best_of_each_block() -> None:
    made = head("chamfer", {"matching": "visil"})
    torch.manual_seed(0)
    fresh = type(made)(made.inputs, made.settings).double()
    x = torch.rand(1, 8, 9, dtype=torch.float64)
    every = torch.ones(1, 8, dtype=torch.bool), torch.ones(1, 9, dtype=torch.bool)
    refined, rows, columns = fresh.visil(x, *every)
    assert torch.allclose(refined, torch.nn.functional.max_pool2d(x, 4))
    assert rows.shape == columns.shape == (1, 2)


def test_visil_reads_a_short_clip_as_if_the_matrix_had_been_cut() -> None:
    made = head("chamfer", {"matching": "visil"})
    x = torch.rand(1, 9, 8, dtype=torch.float64)
    rows, columns = torch.arange(9)[None] < 6, torch.arange(8)[None] < 5
    refined, _, _ = made.visil(x, rows, columns)
    alone, _, _ = made.visil(x[:, :6, :5], rows[:, :6], columns[:, :5])
    assert torch.allclose(refined[:, :1, :1], alone)


@pytest.mark.parametrize("matching", ["diagonal", "otam"])
def test_an_order_is_told_from_its_reverse(matching: str) -> None:
    """A clip against itself and against its reverse; blind matchings cannot tell the two apart."""
    task = episode(batch=1, ways=2, shots=1, queries=1, short=False)
    support, query = task.support["frame"], task.query["frame"]
    x = support.x.clone()
    x[0, 0, 0], x[0, 1, 0] = query.x[0, 0], query.x[0, 0].flip(0)
    task.support["frame"] = Stream(x, support.present, support.length)
    seen, blind = (
        head("chamfer", {"matching": matching})(task)[0, 0],
        head("chamfer", {"matching": "chamfer"})(task)[0, 0],
    )
    assert seen[0] > seen[1]
    assert blind[0].item() == pytest.approx(blind[1].item())
    assert query.x.shape[-1] == DIM


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"matching": "nearest"}, "matching"),
        ({"matching": "otam", "supports": "joint"}, "joint"),
        ({"matching": "visil", "size": "2"}, "visil"),
    ],
)
def test_bad_settings_are_one_sentence(given: dict[str, str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        head("chamfer", given)
