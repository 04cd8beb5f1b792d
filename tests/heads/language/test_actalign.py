"""ActAlign's paths against an exhaustive search, and its reading of ordered words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from word_support import DIM, WORD, shared_head, spoken_bank, word_episodes

from fsmm.cache.table import Stream
from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.language.actalign import best_paths, moving_average


def every_path(t: int, m: int) -> Iterator[list[tuple[int, int]]]:
    """All paths from (0, 0) to (t, m)."""
    if t == m == 0:
        yield [(0, 0)]
    for before in ((t - 1, m - 1), (t - 1, m), (t, m - 1)):
        if min(before) >= 0:
            yield from ([*path, (t, m)] for path in every_path(*before))


def test_the_best_path_of_all() -> None:
    affinity = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    total, length = best_paths(affinity)
    for pair in range(5):
        sums = [(sum(float(affinity[c][pair]) for c in path), len(path)) for path in every_path(3, 2)]
        best, cells = max(sums)
        assert float(total[-1, -1, pair]) == pytest.approx(best)
        assert int(length[-1, -1, pair]) == cells


def test_one_description_is_a_mean_affinity() -> None:
    affinity = torch.rand(6, 1, 3)
    total, length = best_paths(affinity)
    assert torch.allclose(total[-1, 0] / length[-1, 0], affinity[:, 0].mean(0))


def test_order_of_sub_actions_is_read() -> None:
    """Frames that follow one class's sub-actions belong to it, and backwards to the class told backwards."""
    parts = torch.eye(DIM)[:3].double()
    words = torch.stack([parts.flatten(), parts.flip(0).flatten()])[None]
    frames = torch.stack([parts.repeat_interleave(2, 0), parts.flip(0).repeat_interleave(2, 0)])[None]
    present = torch.ones(1, 2).bool()
    task = replace(
        word_episodes(batch=1, queries=2),
        query={"frame": Stream(frames, present, present.long() * 6)},
        words=words,
        class_id=torch.tensor([[0, 1]]),
    )
    inputs = Inputs(streams={"frame": (6, DIM)}, word_dim=3 * DIM)
    head = build_head("actalign", inputs, {"bias": "-50"}).double()
    assert head(task).argmax(-1).tolist() == [[0, 1]]


def test_missing_sub_actions_and_steps_are_left_out() -> None:
    chance = torch.Generator().manual_seed(1)
    frames = torch.randn(1, 1, 5, DIM, generator=chance).double()
    words = torch.randn(1, 2, 3, DIM, generator=chance).double()
    words[0, 1, 2:] = 0
    head = shared_head("actalign", scale=2, bias=0)
    present = torch.ones(1, 1).bool()
    found = head.scores(Stream(frames, present, present.long() * 3), words)
    short = Stream(frames[:, :, :3], present, present.long() * 3)
    assert torch.allclose(found, head.scores(short, words))
    assert torch.allclose(found[..., 1], head.scores(short, words[:, 1:, :2])[..., 0])


def test_an_even_average_is_a_step_shorter() -> None:
    x = torch.arange(1.0, 6.0).view(1, 1, 5, 1)
    assert moving_average(x, 3).flatten().tolist() == pytest.approx([1, 2, 3, 4, 3])
    assert moving_average(x, 4).shape[2] == 4


def test_the_bias_centres_affinities_of_base_clips() -> None:
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=WORD)
    head = build_head("actalign", inputs).double()
    head.fit_base(spoken_bank())
    assert float(head.bias) != 0
    assert set(head.chosen()) == {"word_ridge", "scale", "bias"}
    assert bool(torch.isfinite(head(word_episodes(width=WORD))).all())


def test_words_that_say_nothing_leave_the_bias_as_it_is() -> None:
    bank = spoken_bank()
    bank.words = torch.zeros(len(bank.class_names), DIM).double()
    head = build_head("actalign", Inputs(streams={"frame": (1, DIM)}, word_dim=DIM)).double()
    head.fit_base(bank)
    assert float(head.bias) == 0
    assert bool(torch.isfinite(head(word_episodes())).all())


def test_words_of_twice_the_width_may_be_one_vector_from_elsewhere() -> None:
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=2 * DIM)
    (note,) = build_head("actalign", inputs).notes()
    assert "2 sub-actions" in note
    assert "space=mapped" in note
    assert not build_head("actalign", inputs, {"space": "shared"}).notes()
    mapped = build_head("actalign", inputs, {"space": "mapped"}).double()
    assert not mapped.notes()
    assert "word_ridge" in mapped.chosen()
    assert mapped(word_episodes(width=2 * DIM)).shape == (2, 5, 4)
    with pytest.raises(UsageError, match="multiple"):
        build_head("actalign", Inputs(streams={"frame": (1, DIM)}, word_dim=WORD), {"space": "shared"})
