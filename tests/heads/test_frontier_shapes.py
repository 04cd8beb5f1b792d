"""Heads of the frontier against one task, one pair and one equation at a time, over shapes that are drawn at random.

Among the shapes are two classes, one support, one query, one step and clips of unequal length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plain_language as language
import plain_temporal as temporal
import plain_transductive as transductive
import pytest
import torch
from tests_support import bank_of, moved
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.build import build_head
from fsmm.heads.head import Head, Inputs

SHAPES = range(6)
MATCHINGS = ("chamfer++", "chamfer", "chamfer-query", "chamfer-support", "mean", "max", "diagonal", "linear", "otam",
             "visil")  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The sizes of some tasks: tasks, classes, supports, queries, the most steps, features."""

    batch: int
    ways: int
    shots: int
    queries: int
    steps: int
    dim: int
    seed: int


def shape_of(number: int, *, steps: int | None = None, even: bool = False) -> Shape:
    """A shape by its number; the first has two classes, one support, one query and one step."""
    draw = np.random.default_rng(1000 + number)
    if number == 0:
        return Shape(1, 2, 1, 1, steps or 1, 4, 0)
    batch, ways, shots, queries = (
        int(draw.integers(low, high)) for low, high in ((1, 4), (2, 6), (1, 5), (1, 5))
    )
    dim = int(draw.integers(3, 10))
    return Shape(
        batch, ways, shots, queries, steps or int(draw.integers(1, 7)), 2 * dim if even else dim, number
    )


def tasks_of(shape: Shape, *, words: int | None = None, equal: bool = False) -> Episodes:
    """Gaussian clips in double precision, each of its own length (equal: all of the same), and class words."""
    chance = torch.Generator().manual_seed(shape.seed)

    def clips(*size: int) -> Stream:
        x = torch.randn(*size, shape.steps, shape.dim, generator=chance, dtype=torch.float64)
        length = torch.randint(shape.steps if equal else 1, shape.steps + 1, size, generator=chance)
        mask = torch.arange(shape.steps) < length[..., None]
        return Stream(x * mask[..., None], torch.ones(size, dtype=torch.bool), length)

    return Episodes(
        support={"frame": clips(shape.batch, shape.ways, shape.shots)},
        query={"frame": clips(shape.batch, shape.queries)},
        query_label=torch.randint(shape.ways, (shape.batch, shape.queries), generator=chance),
        class_id=torch.arange(shape.ways).expand(shape.batch, -1),
        words=None
        if words is None
        else torch.randn(shape.batch, shape.ways, words, generator=chance, dtype=torch.float64),
    )


def made(name: str, shape: Shape, words: int | None = None, **settings: Any) -> Head[Any]:
    """The head in double precision, with every weight moved so that each of them counts."""
    torch.manual_seed(shape.seed)
    inputs = Inputs(streams={"frame": (shape.steps, shape.dim)}, word_dim=words, way=shape.ways)
    head = build_head(name, inputs, {key: str(value) for key, value in settings.items()}).double()
    return moved(head, 0.2).eval()


def cut(clips: Stream, *place: int) -> Tensor:
    """A clip with its own steps alone, [L, D]."""
    return clips.x[place][: int(clips.length[place])]


def cut_task(task: Episodes, i: int) -> tuple[list[list[Tensor]], list[Tensor]]:
    """The supports of a task, class by class, and its queries, each with its own steps alone."""
    support, query = task.support["frame"], task.query["frame"]
    ways, shots = support.present.shape[1:]
    return [[cut(support, i, c, k) for k in range(shots)] for c in range(ways)], [
        cut(query, i, j) for j in range(query.present.shape[1])
    ]


def pooled(task: Episodes, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """The features of a task's clips of one step, and its words."""
    assert task.words is not None
    return task.support["frame"].x[i, :, :, 0], task.query["frame"].x[i, :, 0], task.words[i]


def close(found: Tensor, expected: Tensor | list[Tensor] | list[list[float]]) -> None:
    """Check that logits are those expected, up to the rounding of double precision."""
    other = expected
    if isinstance(other, list):
        other = torch.stack([torch.as_tensor(row, dtype=torch.float64) for row in other])
    assert found.shape == other.shape
    assert torch.allclose(found, other.to(found), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("number", SHAPES)
@pytest.mark.parametrize("matching", MATCHINGS)
def test_matchings(matching: str, number: int) -> None:
    shape = shape_of(number)
    task, head = tasks_of(shape), made("chamfer", shape, matching=matching)
    weights = dict(head.state_dict())
    for i, logits in enumerate(head(task)):
        s, q = cut_task(task, i)
        close(
            logits, [temporal.chamfer(s, x, matching=matching, steps=shape.steps, weights=weights) for x in q]
        )


@pytest.mark.parametrize("number", SHAPES)
def test_transport_and_distance_correlation(number: int) -> None:
    shape = shape_of(number)
    task = tasks_of(shape)
    plain = {"uot": temporal.uot, "tsdcm": temporal.tsdcm}
    for name, alone in plain.items():
        for i, logits in enumerate(made(name, shape)(task)):
            s, q = cut_task(task, i)
            close(logits, [alone(s, x) for x in q])


@pytest.mark.parametrize("number", SHAPES)
def test_team(number: int) -> None:
    shape = shape_of(number, even=True)
    task, head = tasks_of(shape, equal=True), made("team", shape, tokens=3)
    weights = dict(head.state_dict())
    for i, logits in enumerate(head(task)):
        close(logits, temporal.team(*cut_task(task, i), weights))


@pytest.mark.parametrize("number", SHAPES)
@pytest.mark.parametrize("window", [1, 9])
def test_mpl(number: int, window: int) -> None:
    shape = shape_of(number, even=True)
    task, head = tasks_of(shape), made("mpl", shape, width=8, hidden=5, window=window)
    weights = dict(head.state_dict())
    for i, logits in enumerate(head(task)):
        close(logits, temporal.mpl(*cut_task(task, i), weights, steps=shape.steps, window=window))


@pytest.mark.parametrize("number", SHAPES)
def test_words_and_supports(number: int) -> None:
    shape = shape_of(number, steps=1)
    task, dim = tasks_of(shape, words=shape.dim), shape.dim
    heads = {name: made(name, shape, dim, **own) for name, own in SETTINGS.items()}
    found = {name: head(task) for name, head in heads.items()}
    for i in range(shape.batch):
        given = pooled(task, i)
        close(found["tip-adapter"][i], language.tip_adapter(*given, beta=2.0, alpha=7.0))
        close(found["tip-adapter-f"][i], language.tip_adapter(*given, beta=2.0, alpha=7.0, steps=5))
        close(found["cross-modal"][i], language.cross_modal(*given, steps=5, wise=0.3))
        for name in ("zs-lp", "taskres", "clap"):
            close(found[name][i], language.prototypes(*given, kind=name, steps=5))
        scatter = float(heads["gda"].scatter)
        close(found["gda"][i], language.gda(*given, alpha=3.0, scatter=scatter))
        close(found["lppp"][i], language.lppp(*given, start=0.02, steps=12))


SETTINGS: dict[str, dict[str, Any]] = {
    "tip-adapter": {"beta": 2.0, "alpha": 7.0},
    "tip-adapter-f": {"beta": 2.0, "alpha": 7.0, "steps": 5},
    "cross-modal": {"steps": 5, "wise": 0.3},
    **{name: {"steps": 5} for name in ("zs-lp", "taskres", "clap")},
    "gda": {"alpha": 3.0},
    "lppp": {"start": 0.02, "steps": 12},
}


@pytest.mark.parametrize("number", SHAPES)
def test_new_classes_and_the_held_out_shot(number: int) -> None:
    shape = shape_of(number, steps=1)
    task, dim = tasks_of(shape, words=shape.dim), shape.dim
    chance = torch.Generator().manual_seed(number)
    base = torch.randn(30, dim, generator=chance, dtype=torch.float64)
    bank = bank_of(base, torch.arange(30) % 3, split="base", words=torch.randn(3, dim, dtype=torch.float64))
    new = made("gda-new", shape, dim, neighbours=5, copies=2)
    new.fit_base(bank)
    blend = made("hoso", shape, dim, visual="protonet")
    alone = made("protonet", shape)

    def visual(s: Tensor, q: Tensor) -> Tensor:
        """ProtoNet's score of queries by supports, of a task by itself."""
        support, query = (
            Stream(
                x[None, ..., None, :],
                torch.ones(1, *x.shape[:-1]).bool(),
                torch.ones(1, *x.shape[:-1]).long(),
            )
            for x in (s, q)
        )
        single = Episodes(
            {"frame": support}, {"frame": query}, torch.zeros(1, len(q)).long(), torch.arange(len(s))[None]
        )
        logits: Tensor = alone(single)[0]
        return logits

    found = new(task), blend(task)
    for i in range(shape.batch):
        s, q, t = pooled(task, i)
        close(found[0][i], language.gda_new(base, q, t, neighbours=5, copies=2))
        close(found[1][i], language.hoso(s, q, t, visual=visual, one_shot=0.2))


@pytest.mark.parametrize("number", SHAPES)
def test_ordered_words(number: int) -> None:
    shape, actions = shape_of(number, steps=1 + number % 5), 1 + number % 4
    task = tasks_of(shape, words=actions * shape.dim)
    head = made("actalign", shape, actions * shape.dim, scale=3.0, bias=-0.5, temperature=1.0)
    assert task.words is not None
    words = task.words.unflatten(-1, (actions, shape.dim))
    words[:, 0, 1:] = 0  # the first class has a single sub-action
    for i, logits in enumerate(head(task)):
        _, q = cut_task(task, i)
        given = [words[i, c, : 1 if c == 0 else actions] for c in range(shape.ways)]
        close(
            logits, [torch.stack([language.actalign(x, w, scale=3.0, bias=-0.5) for w in given]) for x in q]
        )


@pytest.mark.parametrize("number", SHAPES)
def test_alpha_tim(number: int) -> None:
    shape = shape_of(number, steps=1)
    task = tasks_of(shape, words=shape.dim)
    for i, logits in enumerate(made("alpha-tim", shape, iterations=8, rate=0.05)(task)):
        s, q, _ = pooled(task, i)
        close(logits, transductive.alpha_tim(s, q, steps=8, rate=0.05))


@pytest.mark.parametrize("number", SHAPES)
@pytest.mark.parametrize("assignment", ["soft", "hard"])
@pytest.mark.parametrize("zero_shot", [False, True])
def test_em_dirichlet(number: int, assignment: str, zero_shot: bool) -> None:
    shape = shape_of(number, steps=1)
    if zero_shot:
        shape = Shape(shape.batch, shape.ways, 0, 4 * shape.queries, 1, shape.dim, shape.seed)
    task = tasks_of(shape, words=shape.dim)
    own = {
        "scores": "cosine",
        "search": "bound",
        "iterations": 4,
        "steps": 10,
        "tolerance": 0,
        "effective": 2,
    }
    head = made("em-dirichlet", shape, shape.dim, assignment=assignment, **own)
    hard = assignment == "hard"
    for i, logits in enumerate(head(task)):
        expected = transductive.em_dirichlet(*pooled(task, i), hard=hard, rounds=4, steps=10, effective=2)
        assert logits.argmax(-1).tolist() == expected.tolist()
