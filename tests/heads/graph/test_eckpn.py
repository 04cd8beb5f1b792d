"""ECKPN: the instance graph against a slow loop, symmetries, words, absent clips, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from tests_support import moved
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.heads.graph.eckpn import ECKPN, balanced_edge_loss
from fsmm.heads.graph.eckpn_class import WordMap, edge_votes
from fsmm.heads.graph.eckpn_graph import first_adjacency, renormalised
from fsmm.heads.graph.eckpn_settings import ECKPNSettings
from fsmm.heads.head import Inputs
from fsmm.runs.run import episode_eval

DIM, WORDS = 6, 5
SMALL = ECKPNSettings(width=4, heads=2, sharpness=9.0, blend=0.5, query_mass="all", word_weight=0.2)


def stream(x: Tensor) -> Stream:
    """One step of every clip, all present."""
    present = torch.ones(x.shape[:-1], dtype=torch.bool)
    return Stream(x[..., None, :], present, present.long())


def episodes(batch: int = 2, ways: int = 3, shots: int = 2, queries: int = 4, seed: int = 0) -> Episodes:
    torch.manual_seed(seed)
    centre = torch.randn(batch, ways, DIM, dtype=torch.float64)
    label = torch.randint(0, ways, (batch, queries))
    query = torch.gather(centre, 1, label[..., None].expand(-1, -1, DIM))
    return Episodes(
        support={"frame": stream(centre[:, :, None] + 0.7 * torch.randn(batch, ways, shots, DIM))},
        query={"frame": stream(query + 0.7 * torch.randn(batch, queries, DIM))},
        query_label=label,
        class_id=torch.arange(ways).expand(batch, -1),
        words=torch.randn(batch, ways, WORDS, dtype=torch.float64),
    )


def head_for(settings: ECKPNSettings, seed: int = 1, ways: int = 3) -> ECKPN:
    """A head all of whose weights are random, so that no update hides behind a zero."""
    torch.manual_seed(seed)
    head = ECKPN(Inputs(streams={"frame": (1, DIM)}, word_dim=WORDS, way=ways), settings).double().eval()
    moved(head, 0.3, fixed=("sharpness", "scale"))
    if head.word_map is not None:
        head.word_map.fit(torch.randn(7, WORDS), torch.randn(7, DIM), 1.0)
    return head


def slow_stack(prefix: str, state: dict[str, Tensor], group: int, difference: Tensor) -> Tensor:
    """One pair through c -> 2c -> c -> 1, layer by layer, from the weights alone."""
    value = difference.square()
    for linear, norm in ((0, 1), (3, 4), (6, None)):
        value = (
            value @ state[f"{prefix}.stack.{linear}.weight"][group]
            + state[f"{prefix}.stack.{linear}.bias"][group]
        )
        if norm is None:
            return value[0]
        value = (value - value.mean()) / (value.var(unbiased=False) + 1e-5).sqrt()
        value = (
            value * state[f"{prefix}.stack.{norm}.weight"][group]
            + state[f"{prefix}.stack.{norm}.bias"][group]
        )
        value = torch.where(value > 0, value, 0.01 * value)
    raise AssertionError("the loop returns at its last layer")


def slow_adjacency(edge: list[list[float]], previous: np.ndarray) -> np.ndarray:
    """Mask, row mass, identity, rows to one: entry by entry."""
    size = len(edge)
    out = np.zeros((size, size))
    for i in range(size):
        others = [j for j in range(size) if j != i]
        product = {j: edge[i][j] * previous[i, j] for j in others}
        mass, total = sum(previous[i, j] for j in others), sum(product.values())
        for j in others:
            out[i, j] = product[j] / total * mass
        out[i, i] = 1.0
        out[i] /= out[i].sum()
    return out


def slow_instance_graph(head: ECKPN, x: Tensor, ways: int, shots: int) -> Tensor:
    """Logits [Q, N] of one task's nodes x [R, D]: the instance graph written as loops over nodes and pairs."""
    state, chosen = head.state_dict(), head.settings
    size, supports = len(x), ways * shots
    pairs = [(x[i] - x[j]).square().sum() for i in range(size) for j in range(size) if i != j]
    v = x / torch.stack(pairs).mean().sqrt()
    adjacency = np.full((size, size), 1 / size)
    for i in range(supports):
        for j in range(supports):
            adjacency[i, j] = float(i // shots == j // shots)
    part = chosen.width // chosen.heads
    for layer in range(chosen.layers):
        name = f"layers.{layer}"
        u = v @ state["look.weight"]
        messages = [v, torch.zeros_like(v), torch.zeros_like(u)]
        fresh = adjacency
        for relation in range(1 + chosen.heads):
            low = (relation - 1) * part
            own = slice(None) if relation == 0 else slice(low, low + part)
            stack, group = (f"{name}.whole", 0) if relation == 0 else (f"{name}.parts", relation - 1)
            edge = [[0.0] * size for _ in range(size)]
            for i in range(size):
                for j in range(size):
                    learned = slow_stack(stack, state, group, (u[i] - u[j])[own] * chosen.width**0.5)
                    far = (
                        (v[i] - v[j]).square().sum()
                        if relation == 0
                        else chosen.heads * (u[i] - u[j])[own].square().sum()
                    )
                    sharp = state[f"{name}.sharpness"][relation].exp()
                    edge[i][j] = float(
                        torch.sigmoid(state[f"{name}.threshold"][relation] - sharp * far + learned)
                    )
            normal = slow_adjacency(edge, adjacency)
            if relation == 0:
                fresh = normal
                messages[1] = torch.from_numpy(normal) @ v
            else:
                messages[2][:, own] = torch.from_numpy(normal) @ u[:, own]
        with torch.no_grad():
            change = head.get_submodule(f"{name}.update")(torch.cat(messages, -1))
        v = v + chosen.blend * (messages[1] - v) + change
        adjacency = fresh
    centre = v[:supports].view(ways, shots, -1).mean(1)
    return -state["scale"].exp() * torch.cdist(v[supports:], centre).square()


@pytest.mark.parametrize("shots", [1, 2])
def test_without_squeeze_and_calibration_it_is_its_instance_graph(shots: int) -> None:
    head = head_for(replace(SMALL, squeeze=False, calibration=False))
    task = episodes(batch=1, shots=shots)
    x = torch.cat([task.support["frame"].x.flatten(1, 2), task.query["frame"].x], 1)[0, :, 0]
    torch.testing.assert_close(head(task)[0], slow_instance_graph(head, x, 3, shots), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        replace(SMALL, start="none"),
        replace(SMALL, start="none", projection="learned", norm="batch"),
        replace(SMALL, squeeze=False),
        replace(SMALL, calibration=False, masks=False),
        replace(SMALL, heads=0, words=False, layers=1),
    ],
)
def test_permuting_classes_permutes_columns(settings: ECKPNSettings) -> None:
    head, task, order = head_for(settings), episodes(), torch.tensor([2, 0, 1])
    assert task.words is not None
    moved = replace(task, support={"frame": task.support["frame"][:, order]}, words=task.words[:, order])
    torch.testing.assert_close(head(moved), head(task)[..., order], rtol=1e-7, atol=1e-9)


def test_permuting_queries_permutes_rows_though_queries_do_interact() -> None:
    head, task, order = head_for(SMALL), episodes(), torch.tensor([3, 1, 0, 2])
    moved = replace(task, query={"frame": task.query["frame"][:, order]})
    torch.testing.assert_close(head(moved), head(task)[:, order], rtol=1e-7, atol=1e-9)
    fewer = replace(task, query={"frame": task.query["frame"][:, :2]}, query_label=task.query_label[:, :2])
    assert (head(fewer) - head(task)[:, :2]).abs().max() > 1e-6


def test_words_off_is_words_of_zero_weight() -> None:
    task = episodes()
    on, zero, off = (
        head_for(replace(SMALL, **given)) for given in ({}, {"word_weight": 0.0}, {"words": False})
    )
    shared = {k: v for k, v in zero.state_dict().items() if not k.startswith("word_map")}
    off.load_state_dict(shared)
    torch.testing.assert_close(zero(task), off(task), rtol=0, atol=0)
    torch.testing.assert_close(off(replace(task, words=None)), off(task), rtol=0, atol=0)
    assert (on(task) - zero(task)).abs().max() > 1e-6


def test_each_module_and_setting_changes_the_logits() -> None:
    task, whole = episodes(), head_for(SMALL)
    for given in ({"squeeze": False}, {"masks": False}, {"blend": 0.2}):
        other = head_for(replace(SMALL, **given))
        weights = {k: v for k, v in whole.state_dict().items() if k != "_extra_state"}  # without the rule
        other.load_state_dict(weights, strict=False)
        assert (other(task) - whole(task)).abs().max() > 1e-6, given
    plain = head_for(replace(SMALL, calibration=False))
    plain.load_state_dict(
        {k: v for k, v in whole.state_dict().items() if not k.startswith(("calibration", "word_map"))}
    )
    assert (plain(task) - whole(task)).abs().max() > 1e-6


def test_absent_queries_and_supports_have_no_influence() -> None:
    """A task with absent clips equals the task without them, whatever their label."""
    head, task = head_for(SMALL), episodes(batch=1)
    query, support = task.query["frame"], task.support["frame"]
    padded = Stream(
        torch.cat([query.x, torch.zeros(1, 3, 1, DIM)], 1),
        torch.cat([query.present, torch.zeros(1, 3, dtype=torch.bool)], 1),
        torch.cat([query.length, torch.zeros(1, 3, dtype=torch.long)], 1),
    )
    label = torch.cat([task.query_label, torch.full((1, 3), -1)], 1)
    more = head(replace(task, query={"frame": padded}, query_label=label))
    torch.testing.assert_close(more[:, :4], head(task))
    assert not more[:, 4:].any()
    gone = support.present.clone()
    gone[:, :, 1] = False
    hidden = Stream(support.x * gone[..., None, None], gone, gone.long())
    torch.testing.assert_close(
        head(replace(task, support={"frame": hidden})),
        head(replace(task, support={"frame": support[:, :, :1]})),
    )


def test_a_class_without_supports_gets_the_mean_of_the_others() -> None:
    head, task = head_for(SMALL), episodes()
    support = task.support["frame"]
    there = support.present.clone()
    there[:, 1] = False
    logits = head(
        replace(task, support={"frame": Stream(support.x * there[..., None, None], there, there.long())})
    )
    torch.testing.assert_close(logits[..., 1], logits[..., [0, 2]].mean(-1))


def test_the_scale_of_features_does_not_matter() -> None:
    head, task = head_for(replace(SMALL, words=False)), episodes()
    bigger = replace(
        task,
        support={"frame": replace(task.support["frame"], x=task.support["frame"].x * 50)},
        query={"frame": replace(task.query["frame"], x=task.query["frame"].x * 50)},
    )
    torch.testing.assert_close(head(bigger), head(task))


def test_query_labels_are_not_seen_and_the_batch_is_its_tasks() -> None:
    head, task = head_for(SMALL), episodes(batch=3)
    other = replace(task, query_label=(task.query_label + 1) % 3)
    torch.testing.assert_close(head(other), head(task), rtol=0, atol=0)
    alone = torch.cat([head(task.slice(i, i + 1)) for i in range(3)])
    torch.testing.assert_close(alone, head(task))


def test_positional_form_is_tied_to_its_ways() -> None:
    head, task = head_for(replace(SMALL, form="positional", start="none", projection="learned")), episodes()
    assert head(task).shape == (2, 4, 3)
    moved = replace(task, support={"frame": task.support["frame"][:, [1, 2, 0]]})
    assert (head(moved) - head(task)[..., [1, 2, 0]]).abs().max() > 1e-3
    with pytest.raises(UsageError, match="form=symmetric"):
        head(episodes(ways=4))


@pytest.mark.parametrize("form", ["symmetric", "positional"])
def test_losses_are_their_weighted_parts_and_reach_every_weight(form: str) -> None:
    settings = replace(SMALL, form=form, adjacency_weight=0.3, assignment_weight=0.2)
    head = head_for(settings).train()
    losses = head.loss(episodes())
    parts = losses.parts
    expected = 0.3 * parts["adjacency"] + 0.2 * parts["assignment"] + parts["classification"]
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    still = {name for name, w in head.named_parameters() if w.grad is None or not w.grad.any()}
    # The positional classifier takes the place of the scaled distance.
    assert still == ({"scale"} if form == "positional" else set())


def test_labels_of_multi_hot_queries_agree_with_single_ones() -> None:
    head, task = head_for(SMALL), episodes()
    hot = torch.nn.functional.one_hot(task.query_label, 3).to(torch.uint8)
    first, second = (
        head.loss(task).parts["adjacency"],
        head.loss(replace(task, query_label=hot)).parts["adjacency"],
    )
    torch.testing.assert_close(first, second)


def test_balanced_edge_loss_by_hand() -> None:
    score = torch.tensor([0.0, 2.0, -1.0, 3.0])
    same = torch.tensor([True, False, False, True])
    pair = torch.tensor([True, True, True, False])
    expected = np.log(2) + (np.log1p(np.exp(2)) + np.log1p(np.exp(-1))) / 2
    assert balanced_edge_loss(score, same, pair).item() == pytest.approx(expected, rel=1e-6)


def test_first_adjacency_and_rows_of_the_next() -> None:
    present = torch.tensor([[True, True, True, False, True, True]])
    first = first_adjacency(torch.tensor([0, 0, 1, 1]), present, torch.float64)[0]
    assert first[0].tolist() == pytest.approx([1, 1, 0, 0, 0.2, 0.2])
    assert first[4].tolist() == pytest.approx([0.2, 0.2, 0.2, 0, 1, 0.2])
    following = renormalised(torch.randn(1, 2, 6, 6, dtype=torch.float64), first[None], present)
    torch.testing.assert_close(following.sum(-1), torch.ones(1, 2, 6, dtype=torch.float64))
    assert not following[..., :3, 3].any()
    assert not following[..., 0, 2].any()


def test_edge_votes_are_mean_edges() -> None:
    torch.manual_seed(0)
    score = torch.randn(1, 7, 7, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    present = torch.tensor([[True, False, True, True, True, True, True]])
    votes = edge_votes(score, labels, present, 2).exp()
    edge = torch.sigmoid(score)[:, 4:, :4]
    torch.testing.assert_close(votes, torch.stack([edge[..., 0], edge[..., 2:].mean(-1)], -1))


def test_word_regression_is_ridge_regression() -> None:
    torch.manual_seed(0)
    words, centre, new = (torch.randn(n, d).double() for n, d in ((9, WORDS), (9, DIM), (4, WORDS)))
    module = WordMap(WORDS, DIM, 3, zero_init=True).double()
    module.fit(words, centre, 0.5)
    away = words - words.mean(0)
    penalty = 0.5 * float(away.square().sum(1).mean())
    expected = Ridge(alpha=penalty).fit(words, centre).predict(new)
    scale = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    torch.testing.assert_close(module(new[None], scale)[0], torch.from_numpy(3.0 * expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_features_give_finite_logits(dtype: torch.dtype) -> None:
    head = head_for(SMALL).float()
    assert torch.isfinite(head(episodes().to("cpu", dtype))).all()
    assert torch.isfinite(head.to(dtype)(episodes().to("cpu", dtype))).all()


def test_unknown_choices_are_refused() -> None:
    for given, said in (
        ({"form": "linear"}, "Known: positional, symmetric"),
        ({"width": 6, "heads": 4}, "divisible"),
    ):
        with pytest.raises(UsageError, match=said):
            ECKPN(Inputs(streams={"frame": (1, DIM)}), replace(SMALL, **given))


def test_published_stacks_learn_from_nothing(make_cache: Callable[..., object]) -> None:
    """With start=none the loss falls and accuracy on unseen classes rises."""
    cache = make_cache(streams={"frame/net": (1, 12)}, classes=36)
    task = Protocol(n_way=3, k_shot=1, n_query=5)
    given = {"start": "none", "projection": "learned", "width": "8", "heads": "2", "layers": "1"}
    recipe = {
        "steps": "100",
        "rate": "0.003",
        "evaluate_every": "100",
        "evaluate_episodes": "200",
        "query": "5",
    }
    run = episode_eval(
        "eckpn",
        cache=str(cache),
        protocol=task,
        episodes=20,
        words=None,
        normalise="none",
        settings={**given, **{f"train.{key}": value for key, value in recipe.items()}},
    )
    assert run.training is not None
    first, last = run.training.curve
    assert last["val"] > first["val"] + 0.04


def test_untrained_it_beats_protonet_where_queries_help(make_cache: Callable[..., object]) -> None:
    """One shot among fifteen queries a class: the plain similarity graph draws on the queries."""
    cache = str(make_cache(streams={"frame/net": (1, 12)}, classes=36))
    task = Protocol(n_way=5, k_shot=1, n_query=15)
    steps = {"train.steps": "0", "train.evaluate_episodes": "1"}
    mine = episode_eval("eckpn", cache=cache, protocol=task, episodes=60, normalise="none", settings=steps)
    theirs = episode_eval("protonet", cache=cache, protocol=task, episodes=60, normalise="none")
    assert mine.mean > theirs.mean + 0.02
