"""AMFAR: the published formulas by slow loops, its switches, and that certainty weights help where a modality fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from multimodal_support import SHAPES, accuracy, gone, two, two_modal
from torch import Tensor

from fsmm.errors import UsageError
from fsmm.heads.head import Head, Inputs
from fsmm.heads.metric.protonet import ProtoNet, ProtoNetSettings
from fsmm.heads.multimodal.amfar import AMFAR, AMFARSettings, Views, strictly_highest
from fsmm.heads.registry import METHODS


def maker(name: str) -> Callable[[Inputs], Head[Any]]:
    cls = METHODS[name].load()
    return lambda inputs: cls(inputs, cls.Settings())


def head(**settings: Any) -> AMFAR:
    inputs = replace(two(), branches={name: maker(name) for name in METHODS["amfar"].branches})
    return AMFAR(inputs, AMFARSettings(**settings)).double().eval()


def random_views(modalities: int = 2, seed: int = 0) -> Views:
    chance = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(modalities, 2, 6, 4, generator=chance, dtype=torch.float64)
    present = torch.rand(modalities, 2, 6, generator=chance) < 0.8
    return Views([f"m{i}" for i in range(modalities)], logits, present)


def slow_distillation(seen: Views, ac: bool = True, rc: bool = True) -> float:
    """L_{f->r} + L_{r->f} (and all pairs of more modalities), query by query, from the definitions."""
    count, batch, queries, _ = seen.logits.shape
    p = seen.logits.softmax(-1)
    total = 0.0
    for m in range(count):
        for o in range(count):
            above, below = 0.0, 0.0
            for b in range(batch):
                for i in range(queries):
                    if m == o or not (seen.present[m, b, i] and seen.present[o, b, i]):
                        continue
                    c = [
                        float(p[k, b, i].max()) if seen.present[k, b, i] else -math.inf for k in range(count)
                    ]
                    h = [
                        float((p[k, b, i] * p[k, b, i].log()).sum()) if seen.present[k, b, i] else -math.inf
                        for k in range(count)
                    ]
                    others = [k for k in range(count) if k != m]
                    if ac and not all(c[m] > c[k] for k in others):
                        continue
                    if rc and not all(h[m] > h[k] for k in others):
                        continue
                    gap = float((p[m, b, i] * (p[m, b, i].log() - p[o, b, i].log())).sum())
                    above, below = above + c[m] * gap, below + c[m]
            total += above / below if below else 0.0
    return total


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(("ac", "rc"), [(True, True), (True, False), (False, True), (False, False)])
def test_distillation_is_the_published_sum(modalities: int, ac: bool, rc: bool) -> None:
    seen = random_views(modalities)
    found = float(head(ac=ac, rc=rc).distillation(seen))
    assert found == pytest.approx(slow_distillation(seen, ac, rc), rel=1e-9)
    assert found > 0


def test_only_the_taught_learn() -> None:
    """Teachers and weights carry no gradient: a query's teacher logits get none, its pupil's do."""
    seen = random_views()
    logits = seen.logits.clone().requires_grad_()
    net = head()
    seen = seen._replace(logits=logits, present=torch.ones_like(seen.present))
    net.distillation(seen).backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum(-1) > 0
    teaches = net.taught_queries(seen)
    assert teaches.any()
    assert torch.equal(moved, teaches.flip(0))


def test_a_group_without_queries_contributes_nothing() -> None:
    seen = random_views()
    alone = seen._replace(present=torch.stack([torch.ones(2, 6), torch.zeros(2, 6)]).bool())
    assert float(head().distillation(alone)) == 0.0


def test_the_fixed_teacher_teaches_every_query_and_only_it() -> None:
    seen = random_views()._replace(names=list(SHAPES), present=torch.ones(2, 2, 6, dtype=torch.bool))
    chosen = head(teacher="audio").taught_queries(seen)
    assert chosen[1].all()
    assert not chosen[0].any()


def test_strictly_highest_is_strict() -> None:
    value = torch.tensor([[1.0, 2.0, 3.0, 1.0], [1.0, 3.0, 2.0, 5.0]])[:, None]
    present = torch.ones(2, 1, 4, dtype=torch.bool)
    present[1, 0, 3] = False
    found = strictly_highest(value, present)[:, 0]
    assert found.tolist() == [[False, False, True, False], [False, True, False, False]]


def test_inference_is_the_published_formula() -> None:
    task, net = two_modal(), head()
    seen = net.views(task)
    c = seen.logits.softmax(-1).amax(-1)
    for b in range(task.batch):
        for i in range(task.queries):
            w = [float(c[m, b, i] / c[:, b, i].sum()) for m in range(2)]
            expected = w[0] * seen.logits[0, b, i] + w[1] * seen.logits[1, b, i]
            assert torch.allclose(net(task)[b, i], expected)


def test_without_ami_the_modalities_weigh_the_same() -> None:
    task, net = two_modal(), head(ami=False)
    assert torch.allclose(net(task), net.views(task).logits.mean(0))


@pytest.mark.parametrize("ami", [True, False])
def test_a_modality_that_a_query_lacks_has_no_vote(ami: bool) -> None:
    task, net = two_modal(), head(ami=ami)
    lost = torch.zeros(task.batch, task.queries, dtype=torch.bool)
    lost[:, ::2] = True
    holed = replace(task, query={**task.query, "audio": gone(task.query["audio"], lost)})
    alone = net(task.only(["frame"]))
    assert torch.allclose(net(holed)[:, ::2], alone[:, ::2])
    assert torch.allclose(net(holed)[:, 1::2], net(task)[:, 1::2])


def test_the_untrained_branch_is_protonet() -> None:
    """The residual projection starts at zero; without levelling a branch is then ProtoNet times its scale."""
    task, net = two_modal(), head(scale=3.0, level=False)
    for m, shape in SHAPES.items():
        plain = ProtoNet(Inputs(streams={m: shape}), ProtoNetSettings()).double()(task.only([m]))
        assert torch.allclose(net.branches(task)[m], 3.0 * plain)


@pytest.mark.parametrize("distance", ["proto", "otam", "trx"])
def test_any_video_distance(distance: str) -> None:
    torch.manual_seed(0)
    net, task = head(distance=distance), two_modal(spread=0.5)
    # Chance is 1/4, and its standard error over 36 queries is .07: the bound lies three of these above it.
    assert accuracy(net(task), task) > 0.5
    net.train()
    losses = net.loss(task)
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_the_loss_is_the_sum_of_its_parts() -> None:
    task, net = two_modal(), head(weight=0.7)
    losses = net.loss(task)
    parts = losses.parts
    assert set(parts) == {"frame.ce", "audio.ce", "distil"}
    assert float(losses.total) == pytest.approx(
        float(parts["frame.ce"] + parts["audio.ce"] + 0.7 * parts["distil"])
    )
    assert set(head(amd=False).loss(task).parts) == {"frame.ce", "audio.ce"}


def test_absent_queries_do_not_count_in_a_branch_loss() -> None:
    task, net = two_modal(), head(amd=False)
    lost = torch.zeros(task.batch, task.queries, dtype=torch.bool)
    lost[:, 3:] = True
    holed = replace(task, query={**task.query, "audio": gone(task.query["audio"], lost)})
    first = replace(
        task, query={m: s[:, :3] for m, s in task.query.items()}, query_label=task.query_label[:, :3]
    )
    assert float(net.loss(holed).parts["audio.ce"]) == pytest.approx(float(net.loss(first).parts["audio.ce"]))


def noisy(task_seed: int, batch: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Per-task accuracy with and without AMI where half of the queries' audio is noise; and without noise, with AMI."""
    task = two_modal(batch, shots=1, per_class=4, spread=1.5, seed=task_seed)
    chance = torch.Generator().manual_seed(task_seed + 1)
    sound = task.query["audio"]
    bad = torch.rand(sound.present.shape, generator=chance) < 0.5
    noise = torch.nn.functional.normalize(
        torch.randn(sound.x.shape, generator=chance, dtype=torch.float64), dim=-1
    )
    noise = noise * sound.mask()[..., None]
    x = torch.where(bad[..., None, None], noise, sound.x)
    broken = replace(task, query={**task.query, "audio": type(sound)(x, sound.present, sound.length)})
    right = [
        (net(given).argmax(-1) == task.query_label).double().mean(1)
        for net, given in (
            (head(scale=8.0), broken),
            (head(scale=8.0, ami=False), broken),
            (head(scale=8.0), task),
        )
    ]
    return right[0], right[1], right[2]


def test_certainty_weights_help_where_a_modality_is_unreliable() -> None:
    """Paired over tasks: weighting by certainty beats equal weights when half of one modality is noise."""
    weighted, equal, whole = noisy(0, 800)
    gain = weighted - equal
    assert float(gain.mean()) > 3 * float(gain.std()) / math.sqrt(len(gain))
    assert float(whole.mean()) > float(weighted.mean())


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"distance": "dtw"}, "distance"), ({"teacher": "flow"}, "teacher")],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        head(**settings)


def test_a_task_without_a_shared_modality_is_refused() -> None:
    task = two_modal()
    crossed = replace(task, support={"frame": task.support["frame"]}, query={"audio": task.query["audio"]})
    with pytest.raises(UsageError, match="both support and query"):
        head()(crossed)
