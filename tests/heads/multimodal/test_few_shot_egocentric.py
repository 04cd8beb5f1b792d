"""The few-shot egocentric head: its graph of steps, and the propagation of classifiers."""

from __future__ import annotations

from dataclasses import replace

import torch
from tests_support import moved, random_bank
from torch.nn import functional as F

from fsmm.episodes.batch import Episodes
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.multimodal.few_shot_egocentric import FewShotEgocentric
from fsmm.heads.multimodal.step_graph import EdgeType, StepGraphLayer
from fsmm.heads.parts.even_clips import all_clips
from fsmm.heads.parts.whitened_clips import WhitenedClips
from fsmm.heads.scoring.once_per_whole_clip import Surroundings

SHAPES = {"video": (4, 10), "sensor": (6, 5)}
BASE = random_bank(SHAPES, classes=8, clips=8, word_dim=6, split="base", seed=1)


def head_with(**settings: str) -> FewShotEgocentric:
    torch.manual_seed(0)
    head = build_head("few-shot-egocentric", inputs_of(BASE, base_classes=8), settings).eval()
    head.fit_base(BASE)
    assert isinstance(head, FewShotEgocentric)
    return head


def task() -> Episodes:
    protocol = Protocol(n_way=4, k_shot=2, n_query=3)
    return materialise(BASE, next(Sampler(BASE, protocol).batches(0, 2, 2)), protocol)


def test_whitened_clips_scatter_alike_in_every_direction() -> None:
    whitened = WhitenedClips({m: dim for m, (_, dim) in SHAPES.items()}, 0.0)
    whitened.fit(BASE)
    clips = all_clips(BASE)
    joined = torch.cat([F.normalize(s.pooled(), dim=-1) for s in clips.values()], -1) - whitened.centre
    x = (joined @ whitened.whitening).double()
    away = torch.cat([x[BASE.label == c] - x[BASE.label == c].mean(0) for c in range(8)])
    assert torch.allclose(away.T @ away / len(away), torch.eye(15).double(), atol=1e-3)


def test_without_a_graph_a_classifier_is_the_mean_of_supports_and_propagation_begins_there() -> None:
    episodes = task()
    around = Surroundings.of(episodes)
    own, present = torch.randn(2, 4, 15), torch.ones(2, 4) > 0
    assert torch.equal(head_with(graph="none").propagated(own, present, around), own)
    head = head_with()
    assert torch.equal(head.propagated(own, present, around), own)
    assert not torch.allclose(moved(head, 0.1).propagated(own, present, around), own)


def test_propagation_is_what_a_loop_over_classes_says() -> None:
    episodes, head = task(), moved(head_with(), 0.1)
    around = Surroundings.of(episodes)
    own, present = torch.randn(2, 4, 15), torch.ones(2, 4) > 0
    found = head.propagated(own, present, around)
    for b in range(2):
        words = head.graph.read(around.words[b]) if around.words is not None else own
        others = [c for c in range(8) if c not in around.class_id[b].tolist()]
        node = torch.cat([head.graph.base_words[others], words])
        w = torch.cat([head.base_code[others], own[b]])
        for n in range(4):
            near = (words[n] @ node.T).clamp(min=0)
            near[len(others) + n] = 1.0
            edge = torch.softmax(5.0 * near, -1)
            heard = edge @ head.gather(torch.cat([w, node], -1))
            expected = own[b, n] + head.spread(F.leaky_relu(heard, 0.2))
            assert torch.allclose(found[b, n], expected, atol=1e-5)


def test_edges_between_modalities_carry_what_the_other_shows() -> None:
    torch.manual_seed(0)
    h = {m: torch.randn(2, 4, 6) for m in SHAPES}
    other = {**h, "sensor": torch.randn(2, 4, 6)}
    present = {m: torch.ones(2) > 0 for m in SHAPES}
    for association in (True, False):
        layer = StepGraphLayer(list(SHAPES), 6, association=association)
        same = torch.allclose(layer(h, present, 1)["video"], layer(other, present, 1)["video"])
        assert same != association
        if association:  # only neighbouring times are heard
            late = {**h, "sensor": h["sensor"].clone()}
            late["sensor"][:, 3] += 1
            moved_steps = (
                (layer(late, present, 1)["video"] - layer(h, present, 1)["video"]).abs().amax((0, 2))
            )
            assert float(moved_steps[:2].max()) < 1e-6 < float(moved_steps[2:].min())


def test_an_edge_type_is_scaled_dot_product_attention_and_an_absent_sender_is_silent() -> None:
    torch.manual_seed(0)
    edge, to, of = EdgeType(6), torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    all_near = torch.ones(3, 3) > 0
    expected = F.scaled_dot_product_attention(edge.ask(to), edge.answer(of), edge.say(of))
    found = edge(to, of, all_near, torch.tensor([True, False]))
    assert torch.allclose(found[0], expected[0], atol=1e-6)
    assert float(found[1].abs().max()) == 0


def test_a_missing_stream_is_an_absent_one() -> None:
    head, episodes = moved(head_with(), 0.1), task()
    gone = {
        m: replace(s, x=s.x * 0, present=s.present & False, length=s.length * 0) if m == "sensor" else s
        for m, s in episodes.query.items()
    }
    assert torch.allclose(
        head(replace(episodes, query=gone)),
        head(replace(episodes, query={"video": episodes.query["video"]})),
        atol=1e-6,
    )
