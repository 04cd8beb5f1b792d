"""ECKPN's training-free rule in inner products, and its choice on base classes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from tests_support import bank_of
from torch import Tensor

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.table import Stream
from fsmm.commands.tables import show_run
from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Protocol
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.graph.eckpn import ECKPN
from fsmm.heads.graph.eckpn_class import class_weights
from fsmm.heads.graph.eckpn_rule import graph_of, logits_of, task_of
from fsmm.heads.graph.eckpn_settings import MASS, ECKPNSettings, Rule
from fsmm.heads.head import Inputs
from fsmm.heads.parts.ridge_map import without_each
from fsmm.runs.run import episode_eval

DIM, WORDS, WAYS, QUERIES = 6, 5, 3, 7
UNTRAINED = {"train.steps": "0", "train.evaluate_episodes": "1"}


def episodes(shots: int, batch: int = 2) -> Episodes:
    """Tasks of random clips, all present, in double precision."""
    torch.manual_seed(shots)

    def clips(*shape: int) -> Stream:
        present = torch.ones(shape, dtype=torch.bool)
        return Stream(torch.randn(*shape, 1, DIM, dtype=torch.float64), present, present.long())

    return Episodes(
        support={"frame": clips(batch, WAYS, shots)},
        query={"frame": clips(batch, QUERIES)},
        query_label=torch.randint(0, WAYS, (batch, QUERIES)),
        class_id=torch.arange(WAYS).expand(batch, -1),
        words=torch.randn(batch, WAYS, WORDS, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("shots", "graph"), [(1, {}), (2, {}), (2, {"layers": 1}), (1, {"masks": False}), (2, {"squeeze": False})]
)
@pytest.mark.parametrize(
    ("blend", "sharpness", "query_mass", "word_weight"),
    [*itertools.product((0.0, 0.5), (9.0, 18.0), ("supports", "equal", "all"), (0.0, 0.3))],
)
def test_the_rule_is_the_untrained_head(
    shots: int, graph: dict[str, object], blend: float, sharpness: float, query_mass: str, word_weight: float
) -> None:
    """Two pieces of code, one by nodes and layers, one by inner products, give the same logits."""
    settings = replace(
        ECKPNSettings(width=4, heads=2),
        blend=blend,
        sharpness=sharpness,
        query_mass=query_mass,
        word_weight=word_weight,
        **graph,
    )
    head = ECKPN(Inputs(streams={"frame": (1, DIM)}, word_dim=WORDS, way=WAYS), settings).double().eval()
    assert (head.word_map is not None) == (word_weight > 0)
    task = episodes(shots)
    images = None
    if head.word_map is not None:
        head.word_map.fit(torch.randn(7, WORDS), torch.randn(7, DIM), 1.0)
        assert task.words is not None
        images = head.word_map(task.words, torch.ones(1, 1, 1))
    nodes = torch.cat([task.support["frame"].x.flatten(1, 2), task.query["frame"].x], 1)[:, :, 0]
    drawn = task_of(nodes, images, ways=WAYS, shots=shots)
    found = logits_of(
        graph_of(drawn, head.rule, layers=settings.layers, masks=settings.masks), drawn, head.rule
    )
    torch.testing.assert_close(found, head(task), rtol=1e-5, atol=1e-5)


def test_queries_weigh_at_most_their_share() -> None:
    p = torch.rand(2, 3 * 2 + QUERIES, 3, dtype=torch.float64)
    for name, mass in MASS.items():
        weight = class_weights(p, 6, mass)
        torch.testing.assert_close(weight.sum(1), torch.ones(2, 3, dtype=torch.float64))
        of_queries, of_supports = p[:, 6:].sum(1), p[:, :6].sum(1)
        expected = torch.minimum(of_queries, mass * of_supports)
        torch.testing.assert_close(weight[:, 6:].sum(1), expected / (expected + of_supports), msg=name)
    torch.testing.assert_close(class_weights(p, 6, MASS["all"]), p / p.sum(1, keepdim=True))


def test_words_of_a_class_left_out_are_a_regression_without_it() -> None:
    torch.manual_seed(0)
    words, centre = torch.randn(9, WORDS).double(), torch.randn(9, DIM).double()
    away = words - words.mean(0)
    penalty = 0.5 * float(away.square().sum(1).mean())
    found = without_each(words, centre, 0.5)
    for left in range(9):
        others = [i for i in range(9) if i != left]
        fitted = Ridge(alpha=penalty).fit(words[others], centre[others])
        expected = torch.from_numpy(fitted.predict(words[[left]])[0])
        torch.testing.assert_close(found[left], expected)


def clusters(seed: int, classes: int = 12, noise: float = 1.0, shared: float = 0.0) -> FeatureBank:
    """Base clips around class means; ``shared`` moves them along a few directions that no class owns."""
    chance = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), 24)
    x = chance.normal(size=(classes, 16))[label] + noise * chance.normal(size=(len(label), 16))
    if shared:
        x += shared * chance.normal(size=(3, 16))[chance.integers(0, 3, len(label))]
    return bank_of(torch.tensor(x, dtype=torch.float32), torch.from_numpy(label), split="base")


def fitted(bank: FeatureBank, shot: int | None = 1, **given: str) -> ECKPN:
    head = build_head("eckpn", inputs_of(bank, way=5, shot=shot), {"width": "4", "heads": "2", **given})
    head.fit_base(bank)
    assert isinstance(head, ECKPN)
    return head


def test_queries_are_used_where_base_classes_say_that_they_help() -> None:
    """One shot among fifteen queries of well-separated classes: the mean of a cluster beats one clip of it."""
    head = fitted(clusters(0))
    assert head.rule.query_mass != "supports"
    assert head.choice.gain > head.choice.error > 0
    assert head.notes() == []


def test_class_means_are_kept_where_queries_mislead() -> None:
    """Clips gather by what classes share, so that neighbours are mostly of other classes; the run says so."""
    head = fitted(clusters(0, noise=0.5, shared=8.0), shot=5)
    assert head.rule.is_class_means
    assert "nearest class mean" in " ".join(head.notes())


def test_too_few_classes_leave_the_plainest_rule_and_a_note() -> None:
    head = fitted(clusters(0, classes=3))
    assert head.rule.is_class_means
    assert "cannot choose its rule (too few base classes" in " ".join(head.notes())


def test_given_settings_are_not_chosen() -> None:
    whole = {"blend": "0.5", "sharpness": "9", "query_mass": "all", "word_weight": "0.2"}
    head = fitted(clusters(0, noise=0.5, shared=8.0), **whole)
    assert head.rule == Rule(
        blend=0.5, sharpness=9.0, query_mass="all", word_weight=0.0
    )  # there are no words
    assert head.chosen() == {}
    assert head.notes() == []
    partly = fitted(clusters(0, noise=0.5, shared=8.0), shot=5, blend="0.5")
    assert partly.rule.blend == 0.5
    assert set(partly.chosen()) >= {"blend", "sharpness", "query_mass", "word_weight", "gain"}


def test_words_take_part_only_where_they_are_asked_for() -> None:
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=WORDS, way=WAYS)
    assert ECKPN(inputs, ECKPNSettings()).word_map is None
    asked = ECKPN(inputs, ECKPNSettings(word_weight=0.2))
    assert asked.word_map is not None
    assert asked.rule.word_weight == 0.2
    assert ECKPN(inputs, ECKPNSettings(start="none")).word_map is not None


def test_the_choice_is_deterministic_and_a_checkpoint_holds_it() -> None:
    first, again = fitted(clusters(0)), fitted(clusters(0))
    assert first.choice == again.choice
    other = fitted(clusters(0, noise=0.5, shared=8.0), shot=5)
    assert other.rule != first.rule
    other.load_state_dict(first.state_dict())
    assert other.choice == first.choice
    for mine, theirs in zip(other.state_dict().values(), first.state_dict().values()):
        assert torch.equal(mine, theirs)


def test_varying_shots_and_more_ways_than_base_classes_are_tried_as_far_as_they_go() -> None:
    bank = clusters(0, classes=5)
    assert fitted(bank, shot=None).choice.classes == 5
    head = build_head("eckpn", inputs_of(bank, way=20, shot=1), {"width": "4", "heads": "2"})
    head.fit_base(bank)
    assert head.choice.classes == 5


def test_novel_classes_have_no_say(make_cache: Callable[..., Path]) -> None:
    """Other labels of all novel clips leave the choice as it is, and with it all that is trained."""
    cache = make_cache(streams={"frame/net": (1, 12)}, classes=18)
    task = Protocol(n_query=5)

    def chosen() -> dict[str, object]:
        run = episode_eval("eckpn", cache=cache, protocol=task, episodes=5, settings=UNTRAINED)
        return run.metrics["chosen"]

    before = chosen()
    catalog = Catalog.read(cache / "toy")
    event = catalog.labels("event")
    label = np.array(event.label)
    novel = np.flatnonzero(label >= 12)
    label[novel] = np.random.default_rng(0).permutation(label[novel])
    moved = LabelSet(event.class_names, label, splits=event.splits)
    Catalog("toy", catalog.clip_id, {"event": moved}, "event").write(cache / "toy")
    assert chosen() == before


def test_a_run_prints_and_stores_what_was_chosen(
    make_cache: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = make_cache(streams={"frame/net": (1, 12), "audio/net": (1, 10)}, classes=18)
    given = {"cache": cache, "protocol": Protocol(n_query=5), "episodes": 5, "settings": UNTRAINED}
    for fusion, keys in (("ec", {"blend", "query_mass"}), ("lf", {"frame.blend", "audio.query_mass"})):
        run = episode_eval("eckpn", fusion=fusion, out=tmp_path / fusion, **given)
        assert keys <= set(run.metrics["chosen"])
        config = json.loads((tmp_path / fusion / "config.json").read_text())
        assert config["chosen"] == run.metrics["chosen"]
        show_run(run.metrics)
        printed = " ".join(capsys.readouterr().out.split())
        assert "chosen on base classes" in printed


def absent(bank: FeatureBank, every: int, words: Tensor | None = None) -> FeatureBank:
    """The bank with the modality of every so many clips absent, and with class words."""
    (table,) = bank.tables.values()
    x: Tensor = table.gather(torch.arange(len(bank))).x
    length = torch.ones(len(bank), dtype=torch.long)
    length[::every] = 0
    return bank_of(x * (length > 0)[:, None, None], bank.label, length, split="base", words=words)


def test_absent_clips_take_no_part() -> None:
    bank = clusters(0)
    gone = absent(bank, 6)
    left = np.flatnonzero(np.arange(len(bank)) % 6)
    assert fitted(gone).choice == fitted(bank.rows(left)).choice


def test_a_modality_that_no_base_clip_has_leaves_the_plainest_rule() -> None:
    head = fitted(absent(clusters(0), 1, words=torch.randn(12, WORDS)))
    assert head.rule.is_class_means
    assert "cannot choose" in " ".join(head.notes())
    assert all(bool(value.isfinite().all()) for value in head.state_dict().values())
