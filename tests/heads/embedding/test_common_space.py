"""The common space's choices: each trains, and each does what its name says."""

from __future__ import annotations

import typing
from dataclasses import replace

import numpy as np
import pytest
import torch
from multimodal_support import SHAPES, gone, two, two_modal
from sklearn.linear_model import LogisticRegression
from tests_support import bank_of, moved, random_bank
from torch.nn import functional as F

from fsmm.cache.table import Stream
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.embedding.common_settings import CommonSpaceSettings
from fsmm.heads.embedding.common_space import CommonSpace
from fsmm.heads.parts.synthesis import Synthesis
from fsmm.heads.settings import Recipe
from fsmm.runs.train import train

BASE = random_bank(SHAPES, classes=6, clips=8, word_dim=7, split="base", dtype=torch.float64)
OBJECTIVES = typing.get_args(typing.get_type_hints(CommonSpaceSettings)["objective"])


def made(words: int | None = 7, **settings: str) -> CommonSpace:
    """The head with these settings, every weight moved a little."""
    torch.manual_seed(0)
    inputs = two(words)
    head = build_head(
        "common-space", type(inputs)(**{**inputs.__dict__, "base_classes": 6}), {"dim": "8", **settings}
    )
    assert isinstance(head, CommonSpace)
    head = head.double()
    head.fit_base(BASE)
    return moved(head, 0.05).eval()


def loss_of(head: CommonSpace) -> float:
    rows = torch.arange(0, 48, 2)
    clips = {m: t.gather(rows) for m, t in BASE.tables.items()}
    losses = head.batch_loss(clips, BASE.label[rows], BASE.words)
    losses.total.backward()
    grads = [p.grad for p in head.parameters() if p.grad is not None]
    assert any(bool(g.any()) for g in grads)
    assert all(bool(g.isfinite().all()) for g in grads)
    return float(losses.total.detach())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains(objective: str) -> None:
    assert np.isfinite(loss_of(made(objective=objective)))


@pytest.mark.parametrize(
    "settings",
    [
        {"projection": "transformer", "add_masked": "1", "positions": "learned"},
        {"projection": "transformer", "trunk": "shared", "positions": "sinusoidal", "layers": "1"},
        {"trunk": "shared", "hidden": "12"},
        {"deeper": "3", "used_layer": "1", "objective": "supcon"},
        {
            "add_softmax": "1",
            "add_supcon": "0.5",
            "add_simclr": "0.2",
            "add_words": "0.1",
            "add_n_pairs": "0.1",
        },
    ],
)
def test_every_projection_trains_and_answers(settings: dict[str, str]) -> None:
    head, task = made(**settings), two_modal()
    assert np.isfinite(loss_of(head))
    assert bool(head(task).isfinite().all())


def test_a_sum_of_objectives_is_their_weighted_sum() -> None:
    one, two_, both = (
        loss_of(made(dropout="0", between="0", **s))
        for s in (
            {"objective": "softmax"},
            {"objective": "supcon"},
            {"objective": "softmax", "add_supcon": "0.5"},
        )
    )
    assert both == pytest.approx(one + 0.5 * two_)


def test_the_weight_of_modalities_alone_leaves_whole_clips_where_it_is_zero() -> None:
    head = made(dropout="0", between="0", alone="0")
    rows = torch.arange(48)
    clips = {m: t.gather(rows) for m, t in BASE.tables.items()}
    losses = head.batch_loss(clips, BASE.label, BASE.words)
    assert float(losses.total) == pytest.approx(float(losses.parts["clip"]))


def test_a_shared_trunk_is_one_module_and_towers_share_nothing() -> None:
    for settings in ({"hidden": "12"}, {"projection": "transformer"}):
        shared, apart = made(trunk="shared", **settings), made(**settings)
        names = [{id(p) for p in tower.parameters()} for tower in shared.maps.values()]
        assert names[0] & names[1]
        names = [{id(p) for p in tower.parameters()} for tower in apart.maps.values()]
        assert not names[0] & names[1]


def test_the_transformer_reads_the_order_of_steps_but_no_step_that_is_not_there() -> None:
    head, task = made(projection="transformer"), two_modal()
    stream = task.query["frame"]
    longer = Stream(F.pad(stream.x, (0, 0, 0, 3)), stream.present, stream.length)
    assert torch.allclose(head.place({"frame": stream})[0], head.place({"frame": longer})[0])
    whole = Stream(stream.x[..., :2, :], stream.present, torch.full_like(stream.length, 2))
    turned = Stream(whole.x.flip(-2), whole.present, whole.length)
    assert not torch.allclose(head.place({"frame": whole})[0], head.place({"frame": turned})[0])
    lost = gone(stream, torch.ones_like(stream.present))
    assert bool(head.place({"frame": lost, "audio": task.query["audio"]})[0].isfinite().all())


def test_decisions_read_the_layer_that_is_asked_for() -> None:
    task = two_modal()
    head = made(deeper="2", used_layer="0")
    before = head(task)
    for layer in head.deeper.layers if head.deeper is not None else ():
        moved(layer, 1.0)
    assert torch.equal(head(task), before)
    assert not torch.allclose(made(deeper="2", used_layer="2")(task), before)
    with pytest.raises(UsageError, match="behind the last"):
        made(deeper="1", used_layer="2")


def test_the_softmax_decision_is_scikit_learns_logistic_regression_on_the_supports() -> None:
    head, task = made(decision="softmax", probe_c="3"), two_modal(batch=1)
    own = head(task)[0].softmax(-1).detach().numpy()
    support, query = (head.place(side)[0][0].detach() for side in (task.support, task.query))
    label = torch.arange(4).repeat_interleave(2)
    theirs = LogisticRegression(C=3.0, tol=1e-8, max_iter=1000).fit(
        support.flatten(0, 1).numpy(), label.numpy()
    )
    assert np.allclose(own, theirs.predict_proba(query.numpy()), atol=2e-3)


def test_masked_steps_need_the_transformer() -> None:
    with pytest.raises(UsageError, match="projection=transformer"):
        made(add_masked="1")


def test_made_up_supports_keep_absence_and_deviate_as_base_clips_do() -> None:
    task = two_modal()
    lost = torch.zeros_like(task.support["audio"].present)
    lost[:, 0, 0] = True
    support = {**task.support, "audio": gone(task.support["audio"], lost)}
    widths = {m: dim for m, (_, dim) in SHAPES.items()}
    for how in ("mixup", "noise", "neighbours", "generator"):
        synthesis = Synthesis(how, 6, widths, 6).double()
        synthesis.fit(BASE)
        more = synthesis(support)
        for m, stream in more.items():
            assert stream.x.shape[2] == 2 + 6
            assert torch.equal(stream.x[:, :, :2], support[m].x)
            assert not stream.x[~stream.present].any()
            assert torch.equal(stream.present[:, :, 2::2], support[m].present[:, :, :1].expand(-1, -1, 3))
    noise = Synthesis("noise", 4000, widths, 6).double()
    noise.fit(BASE)
    frame = BASE.tables["frame"].pooled().x[:, 0]
    means = torch.stack([frame[BASE.label == c].mean(0) for c in range(6)])
    away = frame - means[BASE.label]
    made_up = noise.get_buffer("noise_frame")
    assert torch.allclose(made_up.mean(0), torch.zeros(16, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(made_up.T @ made_up / 4000, away.T @ away / len(away), atol=0.005)


def test_one_support_alone_cannot_be_mixed() -> None:
    task = two_modal(shots=1)
    synthesis = Synthesis("mixup", 3, {m: dim for m, (_, dim) in SHAPES.items()}, 6)
    more = synthesis(task.support)["frame"]
    assert torch.equal(more.x[:, :, 1:], task.support["frame"].x.expand(-1, -1, 3, -1, -1))


@pytest.mark.parametrize("synthetic", ["mixup", "noise", "neighbours", "generator"])
def test_made_up_supports_are_answered_for(synthetic: str) -> None:
    head, task = made(synthetic=synthetic, decision="softmax"), two_modal()
    assert bool(head(task).isfinite().all())
    assert not list(head.shortcuts())


def test_several_label_sets_have_a_head_each_over_one_trunk_and_contrast_refuses_them() -> None:
    multi = replace(
        BASE,
        label=F.one_hot(BASE.label, 6).to(torch.uint8),
        label_set="one+other",
        class_names=[f"{'one' if i < 3 else 'other'}: {i}" for i in range(6)],
    )
    clips = {m: t.gather(torch.arange(48)) for m, t in multi.tables.items()}
    head = made()
    head.fit_base(multi)
    losses = head.batch_loss(clips, multi.label, multi.words)
    losses.total.backward()
    assert bool(losses.total.detach().isfinite())
    with pytest.raises(UsageError, match="one label a clip"):
        made(objective="supcon").fit_base(multi)


def test_the_generator_spreads_as_far_as_base_classes_that_lie_there_do() -> None:
    """Classes spread along the first axis, the more the farther they lie out on the second."""
    chance = torch.Generator().manual_seed(0)
    label = torch.arange(8).repeat_interleave(200)
    place = torch.linspace(0, 2, 8, dtype=torch.float64)
    x = torch.zeros(1600, 4, dtype=torch.float64)
    x[:, 0] = torch.randn(1600, generator=chance, dtype=torch.float64) * place.exp()[label]
    x[:, 1] = place[label]
    synthesis = Synthesis("generator", 2000, {"frame": 4}, 8).double()
    synthesis.fit(bank_of(x, label))
    support = torch.tensor([[[0.0, 0.2, 0, 0]], [[0.0, 1.7, 0, 0]]], dtype=torch.float64)[None, :, :, None]
    present = torch.ones(1, 2, 1, dtype=torch.bool)
    more = synthesis({"frame": Stream(support, present, present.long())})["frame"].x[0, :, 1:, 0]
    spread = more[..., 0].std(1)
    assert float(spread[0]) == pytest.approx(np.exp(0.2), rel=0.15)
    assert float(spread[1]) == pytest.approx(np.exp(1.7), rel=0.15)
    assert torch.allclose(more[..., 1].mean(1), torch.tensor([0.2, 1.7], dtype=torch.float64), atol=1e-3)


def fitted_in_steps(head: CommonSpace, steps: int) -> list[float]:
    """The losses of some steps of training on all base clips, as training takes them."""
    head.train()
    optimiser, losses = torch.optim.Adam(head.parameters(), lr=0.01, weight_decay=1e-4), []
    clips = {m: t.gather(torch.arange(48)) for m, t in BASE.tables.items()}
    for _ in range(steps):
        total = head.batch_loss(clips, BASE.label, BASE.words).total
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    return losses


def weights_of(head: CommonSpace, *parts: str) -> dict[str, torch.Tensor]:
    """The weights of some parts of the head as they are now."""
    return {k: v.clone() for k, v in head.state_dict().items() if k.split(".")[0] in parts}


@pytest.mark.parametrize("words", [7, None])
def test_in_turn_learns_the_space_and_then_the_decision_on_a_space_that_stays(words: int | None) -> None:
    deeper = {"deeper": "2", "used_layer": "1"}
    head = made(words, schedule="in_turn", space_steps="10", objective="supcon", dropout="0", **deeper)
    decision = "word_map" if words else "anchors"
    before, untaught = weights_of(head, "maps", "deeper"), weights_of(head, decision)
    assert head.notes()
    first = fitted_in_steps(head, 10)
    space, between = weights_of(head, "maps", "deeper"), weights_of(head, decision)
    assert first[-1] < first[0]
    assert any(not torch.equal(before[name], space[name]) for name in before)
    assert all(torch.equal(untaught[name], between[name]) for name in between)
    assert head.notes()
    second = fitted_in_steps(head, 10)
    assert second[-1] < second[0]
    assert all(
        torch.equal(weight, space[name]) for name, weight in weights_of(head, "maps", "deeper").items()
    )
    taught = weights_of(head, decision)
    assert all(not torch.equal(weight, between[name]) for name, weight in taught.items())
    assert not head.notes()


def test_the_decisions_loss_is_cross_entropy_in_the_layer_that_decisions_read() -> None:
    settings = {"deeper": "2", "used_layer": "1", "dropout": "0", "alone": "0"}
    head = made(schedule="in_turn", space_steps="1", objective="supcon", **settings)
    fitted_in_steps(head, 1)
    clips = {m: t.gather(torch.arange(48)) for m, t in BASE.tables.items()}
    total = head.batch_loss(clips, BASE.label, BASE.words).total
    assert BASE.words is not None
    logits = head.place(clips)[0] @ head.place_words(BASE.words).T / head.settings.temperature
    expected = F.cross_entropy(logits, BASE.label)
    assert float(total.detach()) == pytest.approx(float(expected.detach()))


def test_the_log_of_a_training_in_turn_has_the_terms_of_both_turns() -> None:
    head = made(schedule="in_turn", space_steps="2")
    recipe = Recipe(steps=6, ceiling=1, tasks=16, evaluate_every=3)
    done = train(head, BASE, None, Protocol(n_way=3, k_shot=1), recipe=recipe)
    mixed, last = done.curve[1:]  # The first entry is that of the untrained head.
    assert {"clip", "between", "decision_clip"} <= set(mixed)
    assert "between" not in last
    assert head.steps_taken == 6
    assert not head.notes()


def test_a_joint_schedule_adds_nothing_to_stored_weights() -> None:
    assert "steps_taken" not in made().state_dict()
    assert "steps_taken" in made(schedule="in_turn").state_dict()
