"""Laws that every method of the table keeps, whatever it computes; weights are perturbed so that every path matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from tests_support import moved, random_bank
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.build import build_head
from fsmm.heads.head import Head, Inputs
from fsmm.heads.registry import METHODS

WAYS, BASE, CLIPS, WORD = 4, 8, 6, 8
SHAPES = {"frame": (4, 16), "audio": (3, 8)}
ONE = [name for name, method in METHODS.items() if method.modalities == "one"]
LEARNING = [name for name, method in METHODS.items() if method.regime == "episodic"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def streams_of(name: str, fused: bool = False) -> list[str]:
    return ["frame"] if METHODS[name].modalities == "one" and not fused else list(SHAPES)


def build(name: str, fusion: str | None = None, dtype: torch.dtype = torch.float64) -> Head:
    """The head with its default settings, fitted on random base clips and every weight moved a little."""
    torch.manual_seed(0)
    shapes = {m: SHAPES[m] for m in streams_of(name, fusion is not None)}
    words = None if METHODS[name].words == "no" else WORD
    if not METHODS[name].reads_time:
        shapes = {m: (1, dim) for m, (_, dim) in shapes.items()}
    inputs = Inputs(streams=shapes, word_dim=words, base_classes=BASE, way=WAYS)
    head = build_head(name, inputs, fusion=fusion).to(dtype)
    base = random_bank(
        shapes, classes=BASE, clips=CLIPS, word_dim=words, short=False, split="base", dtype=dtype, seed=7
    )
    head.fit_base(base)
    return moved(head, 0.03).eval()


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def episodes(
    name: str,
    streams: Sequence[str],
    batch: int = 2,
    shots: int = 2,
    per_class: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    words: bool = True,
) -> Episodes:
    """Gaussian classes, features of length one a step, queries in random order, unequal lengths."""
    chance = torch.Generator().manual_seed(seed)
    label = torch.stack([torch.randperm(WAYS * per_class, generator=chance) % WAYS for _ in range(batch)])
    support, query = {}, {}
    for m in streams:
        steps, dim = SHAPES[m] if METHODS[name].reads_time else (1, SHAPES[m][1])
        centre = torch.randn(batch, WAYS, dim, generator=chance)
        picked = torch.gather(centre, 1, label[..., None].expand(-1, -1, dim))
        support[m] = stream(centre[:, :, None].expand(-1, -1, shots, -1), steps, chance, dtype)
        query[m] = stream(picked, steps, chance, dtype)
    vectors = torch.randn(batch, WAYS, WORD, generator=chance).to(dtype) if words else None
    ids = torch.stack([torch.randperm(BASE, generator=chance)[:WAYS] for _ in range(batch)])
    return Episodes(support=support, query=query, query_label=label, class_id=ids, words=vectors)


def stream(centre: Tensor, steps: int, chance: torch.Generator, dtype: torch.dtype) -> Stream:
    x = centre[..., None, :].expand(*centre.shape[:-1], steps, -1)
    x = unit(x + 0.7 * torch.randn(x.shape, generator=chance)).to(dtype)
    length = torch.randint(1, steps + 1, centre.shape[:-1], generator=chance)
    return masked(x, torch.ones(centre.shape[:-1], dtype=torch.bool), length)


def masked(x: Tensor, present: Tensor, length: Tensor) -> Stream:
    length = length * present
    valid = torch.arange(x.shape[-2]) < length[..., None]
    return Stream(x * valid[..., None].to(x.dtype), present, length)


def without(s: Stream, gone: Tensor) -> Stream:
    return masked(s.x, s.present & ~gone, s.length)


def take(s: Stream, index: Tensor) -> Stream:
    """Along the second axis (classes of a support, or queries)."""
    return Stream(s.x[:, index], s.present[:, index], s.length[:, index])


def queries(task: Episodes, index: Tensor) -> Episodes:
    return replace(
        task, query={m: take(s, index) for m, s in task.query.items()}, query_label=task.query_label[:, index]
    )


def given(name: str, **options: int) -> tuple[Head, Episodes]:
    head = build(name)
    return head, episodes(name, streams_of(name), words=METHODS[name].words != "no", **options)


def near(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding, relative to the spread of b."""
    scale = max(float(b.abs().max()), 1e-6)
    return bool((a - b).abs().max() <= 1e-6 * scale)


@pytest.mark.parametrize("name", METHODS)
def test_logits_have_the_promised_shape_and_are_repeatable(name: str) -> None:
    head, task = given(name)
    logits = head(task)
    assert logits.shape == (task.batch, task.queries, WAYS)
    assert logits.dtype == torch.float64
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, head(task))
    assert float(logits.std(-1).max()) > 0  # it says something


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_equals_its_episodes_one_by_one(name: str) -> None:
    head, task = given(name, batch=3)
    alone = torch.cat([head(task.slice(i, i + 1)) for i in range(task.batch)])
    assert near(head(task), alone)


@pytest.mark.parametrize("name", METHODS)
def test_permuting_queries_permutes_rows(name: str) -> None:
    head, task = given(name)
    order = torch.randperm(task.queries, generator=torch.Generator().manual_seed(3))
    assert near(head(queries(task, order)), head(task)[:, order])


@pytest.mark.parametrize("name", METHODS)
def test_permuting_classes_permutes_columns(name: str) -> None:
    head, task = given(name)
    if METHODS[name].position_tied:
        pytest.skip("its weights belong to class positions, as published")
    order = torch.tensor([2, 0, 3, 1])
    inverse = torch.argsort(order)
    moved = replace(
        task,
        support={m: take(s, order) for m, s in task.support.items()},
        query_label=inverse[task.query_label],
        class_id=task.class_id[:, order],
        words=None if task.words is None else task.words[:, order],
    )
    assert near(head(moved), head(task)[..., order])


@pytest.mark.parametrize("name", METHODS)
def test_query_labels_are_never_seen(name: str) -> None:
    head, task = given(name)
    other = replace(task, query_label=(task.query_label + 1) % WAYS)
    assert torch.equal(head(task), head(other))


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if not m.transductive])
def test_inductive_heads_score_each_query_alone(name: str) -> None:
    head, task = given(name)
    alone = torch.cat([head(queries(task, torch.tensor([i]))) for i in range(task.queries)], 1)
    assert near(head(task), alone)


@pytest.mark.parametrize("name", METHODS)
def test_absent_queries_change_nothing_for_the_others(name: str) -> None:
    head, task = given(name)
    index = torch.cat([torch.arange(task.queries), torch.tensor([0, 1])])
    more = queries(task, index)
    gone = torch.arange(len(index)).expand(task.batch, -1) >= task.queries
    label = more.query_label.masked_fill(gone, -1)
    more = replace(more, query={m: without(s, gone) for m, s in more.query.items()}, query_label=label)
    logits = head(more)
    assert near(logits[:, : task.queries], head(task))
    assert torch.isfinite(logits).all()
    if METHODS[name].words == "no":
        assert float((logits[:, task.queries :].std(-1)).max()) < 1e-6  # nothing is known, nothing is said


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.zero_shot])
def test_supports_count_where_they_are_said_to_be_read(name: str) -> None:
    head, task = given(name)
    other = replace(task, support={m: take(s, torch.tensor([2, 0, 1, 3])) for m, s in task.support.items()})
    assert near(head(other), head(task)) != METHODS[name].reads_supports


@pytest.mark.parametrize("name", METHODS)
def test_unlabelled_clips_count_where_they_are_said_to_be_read(name: str) -> None:
    head, task = given(name)
    more = replace(task, unlabelled=task.query)
    assert near(head(more), head(task)) != METHODS[name].reads_unlabelled


@pytest.mark.parametrize("name", METHODS)
def test_absent_supports_and_classes_are_survived(name: str) -> None:
    head, task = given(name)
    for hole in ("one support", "a class", "everything"):
        gone = torch.zeros(task.batch, WAYS, 2, dtype=torch.bool)
        if hole == "one support":
            gone[:, 1, 0] = True
        elif hole == "a class":
            gone[:, 1] = True
        else:
            gone[:] = True
        logits = head(replace(task, support={m: without(s, gone) for m, s in task.support.items()}))
        assert torch.isfinite(logits).all(), hole
        if hole == "a class" and METHODS[name].words == "no":
            others = logits[..., [0, 2, 3]]
            assert bool(
                (logits[..., 1] <= others.amax(-1) + 1e-9).all()
            )  # what was never seen is never the best


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.modalities != "one"])
def test_one_absent_modality_is_survived(name: str) -> None:
    head, task = given(name)
    for m in streams_of(name):
        gone = torch.zeros(task.batch, task.queries, dtype=torch.bool)
        gone[:, ::2] = True
        logits = head(replace(task, query={**task.query, m: without(task.query[m], gone)}))
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", METHODS)
def test_one_shot_and_one_query(name: str) -> None:
    head, task = given(name, shots=1)
    assert torch.isfinite(head(task)).all()
    single = head(queries(task, torch.tensor([1])))
    assert single.shape == (task.batch, 1, WAYS)
    assert torch.isfinite(single).all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_features_of_lower_precision(name: str, dtype: torch.dtype) -> None:
    head = build(name, dtype=torch.float32)
    task = episodes(name, streams_of(name), dtype=dtype, words=METHODS[name].words != "no")
    logits = head(task)
    assert torch.isfinite(logits).all()
    full = head(task.to("cpu", torch.float32))
    scale = float(full.abs().max()) + 1e-6
    # One rounding to bfloat16 is off by up to 1/256; the bound leaves some 25 of them, since iterations add them up.
    assert float((logits.float() - full).abs().max()) < 0.1 * scale + 0.1


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("fusion", ["ec", "ea", "lf"])
def test_fusion_wrappers(name: str, fusion: str) -> None:
    head = build(name, fusion)
    task = episodes(name, list(SHAPES), batch=2, words=METHODS[name].words != "no")
    logits = head(task)
    assert logits.shape == (task.batch, task.queries, WAYS)
    assert torch.isfinite(logits).all()
    alone = torch.cat([head(task.slice(i, i + 1)) for i in range(task.batch)])
    assert near(logits, alone)
    gone = torch.zeros(task.batch, task.queries, dtype=torch.bool)
    gone[:, 0] = True
    half = replace(task, query={**task.query, "audio": without(task.query["audio"], gone)})
    assert torch.isfinite(head(half)).all()


@pytest.mark.parametrize("name", [n for n in ONE if METHODS[n].zero_shot])
@pytest.mark.parametrize("fusion", ["ec", "lf"])
def test_fusion_without_supports_says_what_its_heads_say(name: str, fusion: str) -> None:
    head, task = build(name, fusion), episodes(name, list(SHAPES))
    bare = {
        m: Stream(s.x[:, :, :0], s.present[:, :, :0], s.length[:, :, :0]) for m, s in task.support.items()
    }
    task = replace(task, support=bare)
    logits = head(task)
    assert torch.isfinite(logits).all()
    assert float(logits.std(-1).max()) > 0
    if fusion == "lf":
        each = torch.stack([torch.softmax(head.heads[m](task.only([m])), -1) for m in SHAPES])
        assert near(logits.exp(), each.mean(0))


@pytest.mark.parametrize("name", LEARNING)
def test_the_objective_reaches_the_weights(name: str) -> None:
    head, task = given(name)
    head.train()
    losses = head.loss(task)
    assert torch.isfinite(losses.total)
    losses.total.backward()
    slopes = [p.grad for p in head.parameters() if p.requires_grad and p.grad is not None]
    assert slopes
    assert all(bool(torch.isfinite(g).all()) for g in slopes)
    assert any(float(g.abs().max()) > 0 for g in slopes)


@pytest.mark.parametrize("name", LEARNING)
def test_the_objective_survives_absent_clips(name: str) -> None:
    head, task = given(name)
    head.train()
    gone = torch.zeros(task.batch, WAYS, 2, dtype=torch.bool)
    gone[0, 1] = gone[1, 2, 0] = True
    lost = torch.zeros(task.batch, task.queries, dtype=torch.bool)
    lost[:, 0] = True
    holed = replace(
        task,
        support={m: without(s, gone) for m, s in task.support.items()},
        query={m: without(s, lost) for m, s in task.query.items()},
        query_label=task.query_label.masked_fill(lost, -1),
    )
    losses = head.loss(holed)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(bool(torch.isfinite(p.grad).all()) for p in head.parameters() if p.grad is not None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METHODS)
def test_the_gpu_agrees(name: str) -> None:
    head, task = given(name)
    here = head(task)
    there = head.cuda()(task.to("cuda"))
    assert there.is_cuda
    assert near(there.cpu(), here)


def test_perturbation_is_not_idle() -> None:
    """The laws above would hold for a constant; these heads are none."""
    make: Callable[[str], Tensor] = lambda name: given(name)[0](given(name)[1])  # noqa: E731
    assert not near(make("protonet"), make("protonet")[:, torch.tensor([1, 0, *range(2, WAYS * 3)])])


@pytest.mark.parametrize(
    ("name", "fusion"),
    [
        *((name, None) for name, method in METHODS.items() if method.modalities != "one"),
        *(("protonet", fusion) for fusion in ("ec", "ea", "lf")),
    ],
)
def test_the_names_of_modalities_change_nothing(name: str, fusion: str | None) -> None:
    """Data may bring modalities of any name, a dot or the name of a module's method among them."""
    other = {"frame": "view.1/net-1.5", "audio": "values"}
    head = build(name, fusion)
    inputs = replace(head.inputs, streams={other[m]: shape for m, shape in head.inputs.streams.items()})
    renamed = build_head(name, inputs, fusion=fusion).double()
    renamed.load_state_dict(dict(zip(renamed.state_dict(), head.state_dict().values(), strict=True)))
    task = episodes(name, list(head.inputs.streams))
    same_task = replace(
        task,
        support={other[m]: stream for m, stream in task.support.items()},
        query={other[m]: stream for m, stream in task.query.items()},
    )
    assert torch.equal(head(task), renamed.eval()(same_task))
