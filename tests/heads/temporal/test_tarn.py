"""TARN: alignment as a loop, padding that changes nothing, few-shot and zero-shot, the published variants."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from metric_support import inputs, random_episodes
from tests_support import bank_of
from torch.nn import functional as F

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.errors import UsageError
from fsmm.heads.parts.starts import AlignedStart
from fsmm.heads.temporal.tarn import TARN, TARNSettings


def _head(steps: int = 5, words: int | None = None, **given: object) -> TARN:
    torch.manual_seed(0)
    settings = TARNSettings(**{"hidden": 4, "relation": 3, "start": False, **given})
    return TARN(inputs(steps=steps, words=words), settings).double().eval()


@pytest.mark.parametrize("compare", ["euccos", "mult", "subt"])
def test_a_pair_as_a_loop(compare: str) -> None:
    head, episodes = _head(compare=compare), random_episodes(steps=5)
    support, query = episodes.support["frame"], episodes.query["frame"]
    pairs = head.relations(episodes).score
    for b, i, c, k in ((0, 0, 0, 0), (1, 4, 2, 1), (2, 9, 3, 0)):
        s = _embedded(head, support.x[b, c, k, : support.length[b, c, k]])
        q = _embedded(head, query.x[b, i, : query.length[b, i]])
        aligned = torch.softmax(q @ (head.align(s) + head.align_bias).t(), 1) @ s
        if compare == "euccos":
            compared = torch.stack([F.cosine_similarity(q, aligned, dim=1), (q - aligned).norm(dim=1)], 1)
        else:
            compared = q * aligned if compare == "mult" else q - aligned
        state = head.compare(compared[None])[0][0, -1]
        torch.testing.assert_close(pairs[b, i, c, k], head.out(state)[0])


def _embedded(head: TARN, x: torch.Tensor) -> torch.Tensor:
    ahead, back = head.embed.ahead(x[None])[0][0], head.embed.back(x.flip(0)[None])[0][0].flip(0)
    return torch.cat([ahead, back], 1)


def test_more_padding_changes_nothing_unless_asked_for() -> None:
    episodes = random_episodes(steps=5)

    def longer(streams: dict[str, Stream]) -> dict[str, Stream]:
        return {m: Stream(F.pad(s.x, (0, 0, 0, 2)), s.present, s.length) for m, s in streams.items()}

    padded = replace(episodes, support=longer(episodes.support), query=longer(episodes.query))
    torch.testing.assert_close(_head()(padded), _head()(episodes))
    released = _head(padded=True)
    assert not torch.allclose(released(padded), released(episodes))


def test_the_score_of_a_class_is_the_mean_over_its_supports() -> None:
    head, episodes = _head(), random_episodes(steps=5)
    pairs = head.relations(episodes).score
    torch.testing.assert_close(head(episodes).sigmoid(), pairs.sigmoid().mean(-1))


def test_the_start_aligns_segments_as_a_loop() -> None:
    episodes = random_episodes(steps=5)
    support, query = episodes.support["frame"], episodes.query["frame"]
    ours = AlignedStart().double().similarity(query, support)
    for b, i, c, k in ((0, 0, 0, 0), (1, 4, 2, 1), (2, 9, 3, 0)):
        s = F.normalize(support.x[b, c, k, : support.length[b, c, k]], dim=1)
        q = F.normalize(query.x[b, i, : query.length[b, i]], dim=1)
        near = q @ s.t()
        there = (torch.softmax(10 * near, 1) * near).sum(1).mean()
        back = (torch.softmax(10 * near, 0) * near).sum(0).mean()
        torch.testing.assert_close(ours[b, i, c, k], (there + back) / 2)


def test_the_untrained_head_is_its_start() -> None:
    episodes = random_episodes(steps=5, shots=1)
    head = TARN(inputs(steps=5), TARNSettings(hidden=4, relation=3)).double().eval()
    near = AlignedStart().double().similarity(episodes.query["frame"], episodes.support["frame"])
    torch.testing.assert_close(head(episodes), 10 * near[..., 0] - 5)


def _zero_shot(episodes: Episodes) -> Episodes:
    return replace(episodes, support={m: s[:, :, :0] for m, s in episodes.support.items()})


def test_zero_shot_by_words() -> None:
    head = _head(words=7)
    episodes = _zero_shot(random_episodes(steps=5, words=7))
    logits = head(episodes)
    assert logits.shape == (3, 12, 4)
    order = torch.tensor([3, 1, 0, 2])
    assert episodes.words is not None
    torch.testing.assert_close(head(replace(episodes, words=episodes.words[:, order])), logits[..., order])
    assert logits.std(-1).min() > 0


def test_zero_shot_needs_words() -> None:
    with pytest.raises(UsageError, match="--words"):
        _head()(_zero_shot(random_episodes(steps=5)))


def test_the_ridge_start_finds_classes_by_their_words() -> None:
    """Words are a linear map of the classes' means: what ridge regression learns on base classes carries over."""
    chance = torch.Generator().manual_seed(0)
    mean = torch.randn(60, 10, generator=chance)
    words = mean @ torch.randn(10, 10, generator=chance)
    label = torch.arange(60).repeat_interleave(8)
    x = mean[label] + 0.5 * torch.randn(480, 10, generator=chance)
    base, novel = label < 40, label >= 40
    bank = replace(bank_of(x[base], label[base]), words=words[:40])
    head = TARN(replace(inputs(10), word_dim=10), TARNSettings(ridge=0.01)).eval()
    head.fit_base(bank)
    count = int(novel.sum())
    query = Stream(
        x[novel][None, :, None], torch.ones(1, count, dtype=torch.bool), torch.ones(1, count).long()
    )
    support = Stream(torch.zeros(1, 20, 0, 1, 10), *_none(20))
    task = Episodes(
        support={"frame": support},
        query={"frame": query},
        query_label=label[novel][None] - 40,
        class_id=torch.arange(20)[None],
        words=words[None, 40:],
    )
    right = (head(task)[0].argmax(-1) == label[novel] - 40).float().mean()
    assert right > 0.5  # chance is 1/20, with a standard error of .02 over 160 clips


def _none(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(1, classes, 0, dtype=torch.bool), torch.zeros(1, classes, 0, dtype=torch.int64)
