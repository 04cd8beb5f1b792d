"""CLIP-FSAR beyond its official numbers: what words do, the three ways to decide, words of another width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from metric_support import ONE, inputs, random_episodes
from tests_support import bank_of

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.language.clipfsar import CLIPFSAR, CLIPFSARSettings
from fsmm.heads.parts.distances import cosine
from fsmm.heads.parts.soft_alignment import alignment

STEPS, DIM = 5, 16


def head(words: int | None = DIM, **settings: Any) -> CLIPFSAR:
    torch.manual_seed(0)
    return CLIPFSAR(inputs(DIM, STEPS, words), CLIPFSARSettings(**{"classes": 8, **settings})).double().eval()


def task(words: int | None = DIM, shots: int = 2, **options: Any) -> Episodes:
    return random_episodes(steps=STEPS, dim=DIM, words=words, shots=shots, **options)


@pytest.mark.parametrize("mode", ["text", "combined"])
def test_other_modes_read_the_clips_as_they_are(mode: str) -> None:
    clips = bank_of(torch.randn(60, 4, 6), torch.arange(5).repeat_interleave(12))
    clips = replace(clips, words=torch.randn(5, 7))
    assert not list(build_head("clipfsar", inputs_of(clips), {"mode": mode}).shortcuts())


def test_the_untrained_head_is_ordered_alignment() -> None:
    given = task(shots=1)
    net = head()
    for b, q, c in ((0, 0, 0), (1, 3, 2)):
        x, z = given.query[ONE], given.support[ONE][:, :, 0]
        x, z = x.x[b, q, : x.length[b, q]] * DIM**0.5, z.x[b, c, : z.length[b, c]] * DIM**0.5
        gap = 1 - cosine(x, z, 0.01)
        assert torch.allclose(net(given)[b, q, c], -(alignment(gap, 0.5) + alignment(gap.T, 0.5)))


def test_words_change_prototypes_and_queries_stay_without() -> None:
    net, given = head(start=False), task()
    assert given.words is not None
    other = replace(given, words=given.words.roll(1, 1))
    assert not torch.allclose(net(given), net(other))
    support = net.encode(given.support[ONE])
    plain, worded = (net.prototypes(support, w) for w in (None, given.words))
    assert plain.x.shape == worded.x.shape
    assert not torch.allclose(plain.x, worded.x)


@pytest.mark.parametrize("merge", ["before", "after"])
def test_where_shots_are_averaged_is_the_same_for_one_shot(merge: str) -> None:
    given = task(shots=1)
    assert torch.allclose(head(start=False, merge=merge)(given), head(start=False)(given))
    several = task(shots=3)
    assert (merge == "after") == torch.allclose(
        head(start=False, merge=merge)(several), head(start=False)(several)
    )


def test_text_mode_needs_no_supports_and_matches_the_nearest_word() -> None:
    net, given = head(mode="text"), task(shots=1)
    empty = replace(given, support={ONE: nothing_like(given.support[ONE])})
    assert torch.allclose(net(given), net(empty))
    words = given.words
    assert words is not None
    expected = cosine(given.query[ONE].pooled(), words)
    assert torch.allclose(net(given), expected)


def nothing_like(s: Stream) -> Stream:
    return Stream(torch.zeros_like(s.x), torch.zeros_like(s.present), torch.zeros_like(s.length))


def test_the_combined_mode_lies_between_its_ends() -> None:
    given = task()
    text = head(mode="text")(given).softmax(-1)
    visual = (1 + head()(given) / 8).softmax(-1)
    for share in (0.0, 0.3, 1.0):
        found = head(mode="combined", coefficient=share)(given).exp()
        assert torch.allclose(found, text**share * visual ** (1 - share))


def test_words_of_another_width_are_mapped() -> None:
    given = task(words=6)
    net = head(words=6, start=False)
    assert net(given).shape == (3, given.queries, 4)
    net.train()
    net.loss(given).total.backward()
    assert net.speak is not None
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in net.speak.parameters())


def test_words_are_optional() -> None:
    given = task()
    silent = replace(given, words=None)
    assert torch.allclose(head(words=None, start=False)(silent), head(use_words=False, start=False)(given))
    assert not torch.allclose(head(words=None, start=False)(silent), head(start=False)(given))


@pytest.mark.parametrize(
    "settings", [{"mode": "audio"}, {"merge": "never"}, {"mode": "text", "use_words": False}]
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        head(**settings)


def test_a_task_without_words_is_refused_where_words_were_promised() -> None:
    with pytest.raises(UsageError, match="words"):
        head()(task(words=None))
