"""TRX against tuples written out one by one; parts, lengths, precision, gradients, where training starts."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from unittest.mock import patch

import pytest
import torch
from temporal_support import STEPS, cut, episode, head, order_kept
from tests_support import bank_of
from torch import Tensor
from torch.nn import functional as F

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.parts.positions import sinusoid
from fsmm.heads.parts.tuple_attention import TupleAttention
from fsmm.heads.scoring import once_per_clip
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.scoring.plan import scorer
from fsmm.heads.temporal.trx import TRX

SMALL = {"width": "7", "level": "false"}


def prepared(x: Tensor, made: TRX) -> Tensor:
    return x * made.gain + 0.1 * sinusoid(x.shape[0], x)


def tuples(x: Tensor, size: int) -> Tensor:
    """All ordered tuples of a clip [T, D], frames side by side."""
    return torch.stack([torch.cat([x[i] for i in chosen]) for chosen in combinations(range(len(x)), size)])


def slow_logit(made: TRX, module: TupleAttention, query: Tensor, supports: list[Tensor]) -> Tensor:
    """The published equations for one query, one class and one cardinality; clips cut to their lengths."""
    q = tuples(prepared(query, made), module.size)
    s = torch.cat([tuples(prepared(clip, made), module.size) for clip in supports])

    def key(u: Tensor) -> Tensor:
        return F.layer_norm(module.key(u), (7,), module.norm.weight, module.norm.bias)

    weight = torch.softmax(key(q) @ key(s).T / 7**0.5, -1)
    return -(module.value(q) - weight @ module.value(s)).square().sum(-1).mean()


@pytest.mark.parametrize("sizes", [(1,), (2,), (3,), (2, 3), (2, 4)])
def test_equals_tuples_written_out(sizes: tuple[int, ...]) -> None:
    made = head("trx", {**SMALL, "cardinalities": ",".join(map(str, sizes))})
    assert isinstance(made, TRX)
    task = episode(batch=2, queries=3)
    support, query = task.support["frame"], task.query["frame"]
    support.length.clamp_(min=max(sizes))
    query.length.clamp_(min=max(sizes))
    logits = made(task)
    for b in range(2):
        for i in range(3):
            for c in range(3):
                q = query.x[b, i, : query.length[b, i]]
                s = [support.x[b, c, k, : support.length[b, c, k]] for k in range(2)]
                each = [slow_logit(made, module, q, s) for module in made.tuples.each]
                expected = 10.0 / made.gain**2 * torch.stack(each).mean()
                assert logits[b, i, c].item() == pytest.approx(expected.item(), rel=1e-9)


def test_memory_bound_changes_nothing() -> None:
    # 40 queries of 12 tasks with 2 supports a class need several MiB: parts of a few queries under a bound of one
    task = episode(batch=12, queries=40)
    whole, parts = (head("trx", {**SMALL, "memory": m})(task) for m in ("1000", "1"))
    assert torch.allclose(whole, parts, rtol=1e-12)


@pytest.mark.parametrize("side", ["support", "query"])
def test_steps_beyond_a_clip_do_not_count(side: str) -> None:
    made, task = head("trx", SMALL), episode()
    assert torch.allclose(made(cut(task, side)), made(task))


def test_single_steps_are_held_until_a_tuple_exists() -> None:
    task = episode(short=False)
    one = {s: Stream(x.x[..., :1, :], x.present, torch.ones_like(x.length)) for s, x in
           (("support", task.support["frame"]), ("query", task.query["frame"]))}  # fmt: skip
    held = {s: Stream(x.x.expand(*x.x.shape[:-2], 3, -1), x.present, 3 * x.length) for s, x in one.items()}
    made = head("trx", SMALL)
    short, long = (
        made(Episodes({"frame": t["support"]}, {"frame": t["query"]}, task.query_label, task.class_id))
        for t in (one, held)
    )
    assert torch.allclose(short, long)
    assert float(short.detach().std()) > 0


def test_the_untrained_head_is_the_prototype_rule_when_attention_is_uniform() -> None:
    """Isometric values, no positions: logits differ from ProtoNet's by what is the same for all classes."""
    torch.manual_seed(0)
    settings = {"sharpness": "0", "cardinalities": "1", "width": "16", "position": "0", "level": "false"}
    made = head("trx", settings)
    assert isinstance(made, TRX)
    made.tuples.begin(0.0, orthogonal=True)
    torch.nn.init.zeros_(made.tuples.each[0].get_parameter("norm.bias"))
    task = episode(short=False)
    logits = made(task)
    mean = head("protonet")(task) * 10
    assert torch.allclose(logits - logits.mean(-1, keepdim=True), mean - mean.mean(-1, keepdim=True))


def test_level_makes_scale_of_a_clip_irrelevant() -> None:
    task = episode()
    louder = Stream(3 * task.query["frame"].x, task.query["frame"].present, task.query["frame"].length)
    other = Episodes(task.support, {"frame": louder}, task.query_label, task.class_id)
    made = head("trx", {"width": "7"})
    assert torch.allclose(made(task), made(other))
    plain = head("trx", SMALL)
    assert not torch.allclose(plain(task), plain(other))


def test_single_precision_agrees_and_bfloat16_keeps_the_ranking() -> None:
    made, task = head("trx", {"width": "64"}), episode(batch=20)
    exact = made(task)
    assert float((made.float()(task.to("cpu", torch.float32)) - exact).abs().max()) < 1e-4 * float(
        exact.abs().max()
    )
    assert order_kept(head("trx", {"width": "64"}), task) > 0.97


def test_gradients_of_the_weights() -> None:
    made, task = head("trx", {"width": "3"}), episode(batch=1, ways=2, shots=1, queries=1)
    module = made.get_submodule("tuples.each.0")
    assert isinstance(module, TupleAttention)

    def logits(key: Tensor, value: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        names = ("key.weight", "value.weight", "norm.weight", "norm.bias")
        given = {f"tuples.each.0.{n}": w for n, w in zip(names, (key, value, gain, shift))}
        return torch.func.functional_call(made, given, (task,))

    start = (module.key.weight, module.value.weight, module.norm.weight, module.norm.bias)
    given = tuple(w.detach().clone().requires_grad_() for w in start)
    assert torch.autograd.gradcheck(logits, given, fast_mode=True)


def test_mapped_frames_that_would_fill_the_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of(torch.randn(60, STEPS, 6), torch.arange(5).repeat_interleave(12))
    made = build_head("trx", inputs_of(bank)).eval()
    task = Protocol(n_way=3, k_shot=2, n_query=4)
    index = next(Sampler(bank, task).batches(0, 1, 1))

    def maps_again(protocol: Protocol, episodes: int = 20) -> bool:
        test = EpisodeTest(bank=bank, protocol=protocol, episodes=episodes)
        score = scorer(made, test)
        with patch.object(made, "encode", wraps=made.encode) as encode:
            score(index)
        return bool(encode.called)

    one_shot, many = replace(task, k_shot=1), 100_000
    assert not maps_again(task)
    assert not maps_again(one_shot, many)
    assert maps_again(replace(task, missing=(Missing("frame", 0.5),)))
    monkeypatch.setattr(once_per_clip, "KEPT_BYTES", 1 << 20)
    assert maps_again(task)
    test = EpisodeTest(bank=bank, protocol=one_shot, episodes=many)
    with patch.object(made, "forward", wraps=made.forward) as forward:
        scorer(made, test)
    assert forward.called  # pairs are still scored once, by episodes that map frames again


@pytest.mark.parametrize("sizes", ["0,2", ""])
def test_a_tuple_of_nothing_is_refused(sizes: str) -> None:
    with pytest.raises(UsageError, match="cardinalities"):
        head("trx", {"cardinalities": sizes})
