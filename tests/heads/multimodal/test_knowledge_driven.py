"""The knowledge-driven head: its graph, its guidance and its classifiers against what the equations say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests_support import bank_of, moved, random_bank
from torch import Tensor
from torch.nn import functional as F

from fsmm.cache.bank import FeatureBank
from fsmm.cache.relations.graph import Relations
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Head
from fsmm.heads.multimodal.gc_lstm import DualGCLSTM, Guidance
from fsmm.heads.multimodal.knowledge_driven import KnowledgeDriven
from fsmm.heads.parts.class_graph import ClassGraph, Graph, hearing
from fsmm.heads.parts.class_rows import ClassRows
from fsmm.heads.parts.even_clips import EvenSteps

OBJECTS, BASES, CLASSES, WORD = 8, 20, 28, 24


def bridge_set(size: float = 1.0, shown: float = 0.6) -> tuple[FeatureBank, FeatureBank]:
    """The synthetic set "object bridge", base and novel: only objects link base and novel activities.

    Every activity uses two of eight objects, its words are random, and so is what video and sensor show of it; the
    object scores of a clip show its activity's objects, and the relation graph has an edge from an activity to each.
    size: how far activities differ in video and sensor; shown: the share of steps that show an object.
    """
    chance = torch.Generator().manual_seed(5)
    pairs = torch.combinations(torch.arange(OBJECTS))[torch.randperm(CLASSES, generator=chance)]
    uses = F.one_hot(pairs, OBJECTS).sum(1).float()
    weight = torch.zeros(CLASSES + OBJECTS, CLASSES + OBJECTS)
    weight[:CLASSES, CLASSES:] = uses
    relations = Relations(
        weight=weight + weight.T,
        objects=[f"o{i}" for i in range(OBJECTS)],
        vectors=torch.randn(8, WORD, generator=chance),
    )
    words = torch.randn(CLASSES, WORD, generator=chance)
    signature = {
        "video": torch.randn(CLASSES, 1, 10, generator=chance),
        "sensor": torch.randn(CLASSES, 1, 6, generator=chance),
    }

    def bank(classes: Tensor, split: str) -> FeatureBank:
        label = torch.arange(len(classes)).repeat_interleave(12)
        own = classes[label]
        features = {
            m: size * x[own] + 0.5 * torch.randn(len(own), 4, x.shape[-1], generator=chance)
            for m, x in signature.items()
        }
        seen = (torch.rand(len(own), 4, OBJECTS, generator=chance) < shown) * uses[own][:, None]
        features["object"] = seen + 0.2 * torch.rand(seen.shape, generator=chance)
        made = bank_of(features, label, split=split, class_id=classes, words=words[classes])
        return replace(made, relations=relations)

    return bank(torch.arange(BASES), "base"), bank(torch.arange(BASES, CLASSES), "novel")


def accuracy(head: Head[Any], bank: FeatureBank, shots: int) -> float:
    protocol = Protocol(n_way=5, k_shot=shots, n_query=5)
    index = next(Sampler(bank, protocol).batches(0, 40, 40))
    task = materialise(bank, index, protocol)
    with torch.no_grad():
        return float((head(task).argmax(-1) == task.query_label).float().mean())


def head_on(base: FeatureBank, **settings: str) -> Head[Any]:
    torch.manual_seed(0)
    head = build_head(
        "knowledge-driven", inputs_of(base, base_classes=len(base.class_names)), settings
    ).eval()
    head.fit_base(base)
    return head


def test_object_scores_and_relations_bridge_base_and_novel_activities() -> None:
    """Without supports, words and features of novel classes say nothing: what is right comes over the objects."""
    base, novel = bridge_set(size=0.1, shown=0.9)
    assert accuracy(head_on(base, graph="uses"), novel, 0) > 0.7
    assert accuracy(head_on(base, graph="words"), novel, 0) < 0.35
    assert accuracy(head_on(base, graph="none"), novel, 0) < 0.35


def test_objects_must_fit_their_scores() -> None:
    base, _ = bridge_set()
    relations = (
        replace(base.relations, objects=["one"], vectors=torch.ones(1, WORD)) if base.relations else None
    )
    with pytest.raises(UsageError, match="has 1 objects and stream 'object' has 8 scores"):
        head_on(replace(base, relations=relations), graph="uses")
    with pytest.raises(UsageError, match="no relation graph 'uses'"):
        head_on(replace(base, relations=None), graph="uses")


def test_guidance_is_what_a_loop_over_nodes_says() -> None:
    torch.manual_seed(0)
    nodes, word, hidden = 5, 7, 3
    edge = hearing(
        torch.rand(nodes, nodes).tril(-1) + torch.rand(nodes, nodes).triu(1), torch.ones(nodes) > 0
    )
    graph, guide = Graph(torch.randn(nodes, word), edge), Guidance(word, hidden)
    active, state = torch.rand(2, nodes), torch.randn(2, hidden)
    found = guide(graph, active, state)
    for clip in range(2):
        total = torch.zeros(hidden)
        for i in range(nodes):
            heard = torch.zeros(hidden)
            for j in range(nodes):
                gate = torch.sigmoid(guide.gate(state[clip]) @ graph.node[j])
                heard = heard + edge[i, j] * active[clip, j] * gate * guide.map(graph.node[j])
            total = total + torch.relu(heard)
        assert torch.allclose(found[clip], total / nodes, atol=1e-6)


def lstm(**options: bool) -> DualGCLSTM:
    torch.manual_seed(0)
    return DualGCLSTM({"a": 4, "b": 2}, 6, 5, **{"guided": True, "co_attention": True, **options})


def test_without_co_attention_streams_weigh_alike_and_absent_ones_nothing() -> None:
    torch.manual_seed(1)
    present = torch.tensor([True, True, False])
    states = [torch.randn(3, 5), torch.randn(3, 5)]
    both = torch.stack([torch.ones(3) > 0, present])
    alike = lstm(co_attention=False)._joined(states, both)
    assert torch.allclose(alike[:2], (states[0] + states[1])[:2] / 2)
    assert torch.allclose(alike[2], states[0][2])
    attended = lstm()._joined(states, both)
    assert not torch.allclose(attended[:2], alike[:2])
    assert torch.allclose(attended[2], states[0][2])


def test_guidance_comes_from_above_and_objects_wake_nodes() -> None:
    clips = {
        "a": EvenSteps(torch.randn(3, 4, 4), torch.ones(3) > 0),
        "b": EvenSteps(torch.randn(3, 4, 2), torch.ones(3) > 0),
    }
    graph = Graph(torch.randn(5, 6), torch.eye(5))
    scores = torch.rand(3, 4, 2)
    guided, blind = lstm(), lstm(guided=False)
    code = [net(clips, graph, s, 3).code for net in (guided, blind) for s in (None, scores)]
    assert not torch.allclose(code[0], code[1])  # objects matter
    assert torch.allclose(code[2], code[3])  # but not without guidance


def test_a_base_class_is_predicted_as_if_it_were_left_out() -> None:
    """The closed form for leaving one class out agrees with fitting without it."""
    torch.manual_seed(0)
    bank = random_bank({"frame": (1, 4)}, classes=9, clips=3, word_dim=5)
    graph = ClassGraph(5, "none")
    graph.fit(bank)
    means, there = torch.randn(9, 4), torch.ones(9) > 0
    rows = ClassRows(5, 4, hidden=3, penalty=1.0)
    rows.fit(graph, means, there)
    x = graph.base_words.double()
    ridge = (x @ x.T).diagonal().mean()
    for c in range(9):
        others = torch.arange(9) != c
        kernel = x[others] @ x[others].T + ridge * torch.eye(8)
        expected = x[c] @ x[others].T @ torch.linalg.solve(kernel, means[others].double())
        assert torch.allclose(rows.left_out[c].double(), expected, atol=1e-5)


def test_an_episode_of_base_classes_leaves_their_nodes_out() -> None:
    bank = random_bank({"frame": (1, 4)}, classes=6, clips=3, word_dim=5)
    graph = ClassGraph(5, "words")
    graph.fit(bank)
    assert bank.words is not None
    made = graph.episode(bank.words[None, :2], torch.tensor([[0, 1]]))
    assert made.node.shape == (1, 8, 5)
    assert float(made.edge[0, :2].abs().sum()) == 0
    assert float(made.edge[0, :, :2].abs().sum()) == 0
    assert float(made.edge[0, 6:, 2:6].abs().sum()) > 0


@pytest.mark.parametrize("modalities", [["sensor"], ["video", "sensor"]])
def test_one_modality_is_enough_and_a_stored_head_is_the_same(modalities: list[str]) -> None:
    base, novel = bridge_set()
    base, novel = base.select(modalities), novel.select(modalities)
    head = moved(head_on(base, graph="uses"), 0.1)
    assert accuracy(head, novel, 3) > 0.8
    again = build_head("knowledge-driven", inputs_of(base, base_classes=BASES), {"graph": "uses"}).eval()
    again.load_state_dict(head.state_dict())
    protocol = Protocol(n_way=4, k_shot=1, n_query=2)
    task = materialise(novel, next(Sampler(novel, protocol).batches(0, 2, 2)), protocol)
    assert torch.equal(head(task), again(task))


def test_the_lstms_alone_learn() -> None:
    """Without the training-free start, thirty steps on base activities take a quarter off what the head loses there."""
    base, _ = bridge_set()
    head = head_on(base.select(["video", "sensor"]), start="false", hidden="16", steps="4")
    assert isinstance(head, KnowledgeDriven)
    protocol = Protocol(n_way=5, k_shot=1, n_query=3, split="base")
    sampler = Sampler(base, protocol)
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    losses = []
    head.train()
    for step in range(30):
        task = materialise(base, next(sampler.batches(4 * step, 4, 4)), protocol)
        total = head.loss(task).total
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
