"""Missing modalities: what each rule fills in, that base clips alone are asked, and that the choice is kept."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import bank_of, random_bank, synthetic_cache
from torch.nn import functional as F

import fsmm
from fsmm.cache.bank import FeatureBank
from fsmm.cache.table import TensorTable
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.multimodal.matched import MatchedHead
from fsmm.runs import filling_choice
from fsmm.runs.filling import NEIGHBOURS, BaseClips, Pair, Rule, gone, withholds
from fsmm.runs.filling_choice import best_of, candidates, choose, filled
from fsmm.runs.kinds import read_train_missing

RULES: tuple[Rule, ...] = ("drop", "match", "match-linear", "mean", "neighbours", "linear", "zero")
TASK = Protocol(n_way=3, k_shot=2, n_query=4)
LOST = replace(TASK, missing=(Missing("audio", 0.6, "query"),))


def related(clips: int, classes: int = 6, *, seed: int, first: int = 0) -> FeatureBank:
    """Clips whose audio is a fixed linear function of their frame; classes are seeds of Gaussians."""
    chance = torch.Generator().manual_seed(seed)
    label = torch.arange(clips) % classes
    frame = F.normalize(
        torch.randn(classes, 8, generator=chance)[label] + torch.randn(clips, 8, generator=chance)
    )
    audio = frame @ torch.linspace(-1, 1, 40).reshape(8, 5) + 0.5
    bank = bank_of({"frame": frame, "audio": audio}, label)
    return replace(bank, clip_row=np.arange(first, first + clips))


BASE, TEST = related(240, seed=1), related(90, seed=2, first=1000)


def filled_audio(
    bank: FeatureBank, rule: Rule, base: FeatureBank = BASE
) -> tuple[torch.Tensor, torch.Tensor]:
    """The audio of the queries of some episodes of LOST, and which of them had lost it."""
    index = Sampler(bank, LOST).draw(np.arange(8), 3, 2)
    before = materialise(bank, index, LOST).query["audio"]
    pair = Pair(support=rule, query=rule)
    after = materialise(BaseClips(base).over(bank, pair), index, LOST).query["audio"]
    kept = before.present
    assert torch.equal(after.x[kept], before.x[kept]), "what a clip has is never changed"
    assert bool(after.present.all())
    assert bool((after.length == 1).all())
    return after.pooled()[~kept], index.query[~kept]


def test_the_mean_is_that_of_base_clips_and_zeros_count_as_a_clip() -> None:
    mean, _ = filled_audio(TEST, "mean")
    assert torch.allclose(mean, BASE.tables["audio"].mean().expand_as(mean))
    assert not filled_audio(TEST, "zero")[0].any()


def test_a_linear_relation_between_modalities_brings_back_what_is_lost() -> None:
    linear, rows = filled_audio(TEST, "linear")
    assert torch.allclose(linear, TEST.tables["audio"].gather(rows).pooled(), atol=0.02)


def test_neighbours_are_base_clips_and_a_base_clip_is_not_its_own() -> None:
    for bank in (TEST, BASE):
        found, rows = filled_audio(bank, "neighbours")
        frames, own = (b.tables["frame"].pooled().x[:, 0] for b in (BASE, bank))
        audio = BASE.tables["audio"].pooled().x[:, 0]
        for value, row in zip(found, rows.tolist()):
            cosines = F.normalize(frames, dim=-1) @ F.normalize(own[row], dim=-1)
            cosines[torch.from_numpy(BASE.clip_row == bank.clip_row[row])] = -2
            assert torch.allclose(value, audio[cosines.topk(NEIGHBOURS).indices].mean(0), atol=1e-5)


def test_sequences_are_filled_to_their_length_and_clips_with_nothing_stay_absent() -> None:
    base = random_bank({"frame": (4, 6), "audio": (3, 5)}, classes=4, clips=12, short=False)
    bank = random_bank({"frame": (4, 6), "audio": (2, 5)}, classes=4, clips=12, seed=1)
    frame = bank.tables["frame"]
    gone = torch.arange(len(bank)) % 6 == 0
    bank.tables["frame"] = TensorTable(
        frame.gather(torch.arange(len(bank))).x * ~gone[:, None, None],
        frame.length * ~gone,
        frame.present & ~gone,
    )
    task = replace(TASK, missing=(Missing("audio", 1.0),), may_lose_all=True)
    index = Sampler(bank, task).draw(np.arange(4), 3, 2)
    for rule in RULES[3:]:
        episodes = materialise(BaseClips(base).over(bank, Pair(support=rule, query=rule)), index, task)
        for side, rows in ((episodes.support, index.support), (episodes.query, index.query)):
            assert torch.equal(side["audio"].present, ~gone[rows])
            assert torch.equal(side["audio"].length, 2 * (~gone[rows]).long())
            assert bool(side["audio"].x.isfinite().all())
            assert not side["audio"].x[gone[rows]].any()


def test_what_no_training_clip_carries_is_not_filled() -> None:
    index = Sampler(TEST, LOST).draw(np.arange(4), 3, 2)
    pair = Pair(support="linear", query="linear")
    only_frames = BaseClips(BASE.select(["frame"])).over(TEST, pair)
    assert torch.equal(
        materialise(only_frames, index, LOST).query["audio"].present,
        materialise(TEST, index, LOST).query["audio"].present,
    )


def test_a_matched_query_is_decided_by_what_it_has_alone() -> None:
    head = MatchedHead(build_head("protonet-ec", inputs_of(TEST)))
    alone = build_head("protonet", inputs_of(TEST.select(["frame"])))
    index = Sampler(TEST, LOST).draw(np.arange(6), 3, 2)
    episodes = materialise(TEST, index, LOST)
    lost = ~episodes.query["audio"].present
    assert 0 < int(lost.sum()) < lost.numel()
    said, by_frames = head(episodes), alone(episodes.only(["frame"]))
    assert torch.allclose(torch.softmax(said, -1)[lost], torch.softmax(by_frames, -1)[lost], atol=1e-5)
    assert torch.allclose(said[~lost], head.inner(episodes)[~lost])


def test_a_matched_query_and_its_supports_get_the_same_estimates_of_what_the_query_lacks() -> None:
    """A query without audio is decided as where no clip of either side has audio, and audio is estimated for all."""
    head, known = build_head("protonet-ec", inputs_of(TEST)), BaseClips(BASE)
    index = Sampler(TEST, LOST).draw(np.arange(6), 3, 2)
    episodes = materialise(TEST, index, LOST)
    linear, alike = (Pair(support=rule, query=rule) for rule in ("linear", "match-linear"))
    gone_everywhere = replace(TASK, missing=(Missing("audio", 1.0),))
    estimated = materialise(known.over(TEST, linear), index, gone_everywhere)
    lost = ~episodes.query["audio"].present
    assert 0 < int(lost.sum()) < lost.numel()
    made = filled(head, TEST, alike, known)
    said = made.head(materialise(made.bank, index, LOST))
    assert torch.allclose(said[lost], head(estimated)[lost], atol=1e-5)
    assert torch.allclose(said[~lost], head(episodes)[~lost], atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"support_modalities": ("frame",), "query_modalities": ("audio",)},
        {"missing": (Missing("audio", 0.6), Missing("frame", 0.6))},
        {"missing": (Missing("audio", 1.0, "support"), Missing("frame", 0.5, "query"))},
    ],
)
def test_no_way_reads_what_the_protocol_withholds(changes: dict[str, Any]) -> None:
    """Clips are given other features where an episode withholds theirs, and no answer changes."""
    task, known = replace(TASK, **changes), BaseClips(BASE)
    head = build_head("protonet-ec", inputs_of(TEST))
    index = Sampler(TEST, task).draw(np.arange(1), 3, 2)
    seen = materialise(TEST, index, task)
    tables = {}
    for name, table in TEST.tables.items():
        x = table.gather(torch.arange(len(TEST))).x.clone()
        for rows, side in ((index.support, seen.support), (index.query, seen.query)):
            nothing = torch.zeros_like(rows, dtype=torch.bool)
            withheld = rows[~(side[name].present if name in side else nothing)]
            x[withheld] = 7 * torch.randn(x[withheld].shape, generator=torch.Generator().manual_seed(0))
        tables[name] = TensorTable(x, torch.ones(len(x), dtype=torch.int64), torch.ones(len(x)).bool())
    other = replace(TEST, tables=tables)
    assert not torch.equal(other.tables["audio"].mean(), TEST.tables["audio"].mean())
    pairs = [Pair(support=s, query=q) for s in RULES for q in RULES]
    answered = 0
    for pair in pairs:
        made = [filled(head, bank, pair, known) for bank in (TEST, other)]
        with suppress(UsageError):  # Supports and queries of different modalities cannot be compared.
            one, two = (each.head(materialise(each.bank, index, task)) for each in made)
            assert torch.allclose(one, two, atol=1e-5), str(pair)
            answered += 1
    assert answered > len(pairs) / 3


def test_under_noise_nothing_is_made_of_features_that_noise_replaces(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling_choice, "EPISODES", 10)
    noisy = (Missing("frame", 0.5, "query"),)
    task = Protocol(n_query=4, missing=(Missing("audio", 0.5, "query"),), noisy=noisy)
    run = lambda rule: fsmm.episode_eval(  # noqa: E731
        "protonet-ec", "toy", cache, protocol=task, episodes=20, out=tmp_path / rule, when_missing=rule
    )
    for rule in ("neighbours", "linear", "match-linear"):
        with pytest.raises(UsageError, match="use drop, match, mean or zero with --noisy"):
            run(rule)
    choice = run("auto").metrics["when_missing_choice"]
    assert choice["query"] in {"match", "drop", "mean", "zero"}
    assert {way["way"] for way in choice["beside"]} == {"drop", "match", "mean", "zero"}


def test_estimates_leave_the_episodes_as_they_are() -> None:
    task = replace(TASK, missing=(Missing("audio", 0.6), Missing("frame", 0.3)))
    pair, known = Pair(support="drop", query="match-linear"), BaseClips(BASE)
    made = filled(build_head("protonet-ec", inputs_of(TEST)), TEST, pair, known)
    index = Sampler(TEST, task).draw(np.arange(6), 3, 2)
    episodes, again = (materialise(made.bank, index, task) for _ in range(2))
    made.head(episodes)
    for name in episodes.query:
        for one, other in ((episodes.support, again.support), (episodes.query, again.query)):
            assert torch.equal(one[name].x, other[name].x)
            assert torch.equal(one[name].present, other[name].present)


def test_a_protocol_withholds_by_rates_above_zero_and_by_sides_with_fewer_modalities() -> None:
    assert not withholds(replace(TASK, missing=(Missing("audio", 0.0),)), TEST)
    assert withholds(LOST, TEST)
    assert withholds(replace(TASK, query_modalities=("audio",)), TEST)
    assert not withholds(replace(TASK, query_modalities=("frame", "audio")), TEST)
    assert not withholds(LOST, TEST.select(["frame"]))


def test_candidates_are_those_of_the_side_that_lacks_something() -> None:
    assert {p.support for p in candidates(LOST, TEST)} == {"drop"}
    supports = replace(TASK, missing=(Missing("audio", 0.5, "support"),))
    assert {p.query for p in candidates(supports, TEST)} == {"drop"}
    both = [str(p) for p in candidates(replace(TASK, missing=(Missing("audio", 0.5),)), TEST)]
    assert len(both) == len(set(both)) == 12


def test_the_choice_takes_a_good_candidate_and_one_that_a_head_cannot_answer_is_none() -> None:
    """Early fusion refuses supports of frames and queries of audio unless they are filled."""
    head = build_head("protonet-ec", inputs_of(TEST))
    crossed = replace(TASK, support_modalities=("frame",), query_modalities=("audio",))
    choice = choose(head, crossed, known=BaseClips(BASE), val=related(60, seed=3), test=TEST, trained=False)
    assert choice.parts == ["base", "val"]
    assert choice.support == "linear"
    assert max(choice.scores, key=lambda name: choice.scores[name]).startswith("linear")
    assert "drop" not in choice.scores


def test_classes_of_the_test_are_never_asked_and_the_run_says_that_nothing_was_chosen() -> None:
    head, val = build_head("protonet-ec", inputs_of(TEST)), related(60, seed=3)
    ask = lambda split: choose(  # noqa: E731
        head, replace(LOST, split=split), known=BaseClips(BASE), val=val, test=TEST, trained=False
    )
    assert ask("val").parts == ["base"]
    assert ask("base").parts == ["val"]
    nothing = ask("all")
    assert (nothing.support, nothing.query, nothing.scores) == ("drop", "drop", {})
    assert "can serve the task" in nothing.note


def test_of_candidates_that_are_as_good_the_most_plausible_one_is_taken() -> None:
    chance = np.random.default_rng(0)
    task = chance.random(400)
    as_good = task + chance.normal(0, 0.1, 400)
    ask = lambda *accuracies: best_of([np.stack(accuracies)], unanimous=False)  # noqa: E731
    assert ask(as_good, task, task - 0.3) == 0
    assert ask(as_good - 0.1, task, task - 0.3) == 1, "it is worse beyond doubt"
    nothing = np.full(400, np.nan)
    assert ask(nothing, task - 0.3, task) == 2, "what cannot be answered is no candidate"
    assert ask(*np.array([[0.2], [0.5], [0.4]])) == 1, "a whole split is one figure without an error"


def test_a_plausible_candidate_may_be_passed_over_only_where_every_part_speaks_against_it() -> None:
    chance = np.random.default_rng(0)
    first, second = (chance.random(200) for _ in range(2))
    plausible = [first - 0.1, second + 0.01]
    parts = [np.stack([plausible[0], first]), np.stack([plausible[1], second])]
    assert best_of(parts, unanimous=True) == 0, "the parts disagree"
    assert best_of(parts, unanimous=False) == 1, "all episodes speak against it"
    parts[1][0] = second - 0.01
    assert best_of(parts, unanimous=True) == 1


@pytest.mark.parametrize(
    ("changes", "is_gone"),
    [
        ({"missing": (Missing("audio", 1.0),)}, True),
        ({"support_modalities": ("frame",), "query_modalities": ("frame",)}, True),
        ({"support_modalities": ("frame",), "missing": (Missing("audio", 1.0, "query"),)}, True),
        ({"missing": (Missing("audio", 0.9),)}, False),
        ({"missing": (Missing("audio", 1.0, "support"),)}, False),
        ({"missing": (Missing("audio", 1.0), Missing("frame", 0.5))}, False),
        ({"missing": (Missing("audio", 1.0), Missing("frame", 1.0))}, False),
        ({"support_modalities": ("frame",), "query_modalities": ("audio",)}, False),
    ],
)
def test_what_no_clip_of_either_side_has_is_estimated_for_queries_as_well(
    changes: dict[str, Any], is_gone: bool
) -> None:
    task = replace(TASK, **changes)
    assert gone(task, TEST) is is_gone
    first, *others = candidates(task, TEST)
    assert (first == Pair(support="linear", query="linear")) is is_gone
    if is_gone:
        named = {str(pair) for pair in others}
        assert named == {"drop supports, match queries", "neighbours", "mean", "drop", "zero"}


def test_matching_where_a_modality_is_gone_is_one_candidate() -> None:
    """Whatever supports are filled with, no query is compared by it."""
    task = replace(TASK, missing=(Missing("audio", 1.0),))
    index, head = Sampler(TEST, task).draw(np.arange(6), 3, 2), build_head("protonet-ec", inputs_of(TEST))
    rules: tuple[Rule, ...] = ("drop", "linear", "mean")
    said = [
        MatchedHead(head)(
            materialise(BaseClips(BASE).over(TEST, Pair(support=rule, query="match")), index, task)
        )
        for rule in rules
    ]
    assert torch.allclose(said[0], said[1], atol=1e-5)
    assert torch.allclose(said[0], said[2], atol=1e-5)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), noise=1.5)


def test_a_run_says_what_was_chosen_and_leaves_whole_clips_alone(cache: Path, tmp_path: Path) -> None:
    whole, lossy = Protocol(n_query=4), Protocol(n_query=4, missing=(Missing("audio", 0.5),))
    evaluate = lambda task, **more: fsmm.episode_eval(  # noqa: E731
        "protonet", "toy", cache, protocol=task, episodes=40, out=tmp_path / "run", **more
    )
    plain = evaluate(whole)
    assert plain.metrics["when_missing_choice"] is None
    for rule in RULES:
        assert np.array_equal(evaluate(whole, when_missing=rule).accuracy, plain.accuracy)
    chosen = evaluate(lossy).metrics["when_missing_choice"]
    pair = str(Pair(support=chosen["support"], query=chosen["query"]))
    assert max(chosen["scores"].values()) - chosen["scores"][pair] < 0.05


@pytest.mark.parametrize("rule", ["match", "auto"])
def test_queries_of_fewer_modalities_than_supports_are_decided_by_what_they_have(
    cache: Path, tmp_path: Path, rule: str
) -> None:
    evaluate = lambda **more: fsmm.episode_eval(  # noqa: E731
        "protonet-ec", "toy", cache, episodes=40, out=tmp_path / "run", **more
    )
    alone = Protocol(n_query=4, support_modalities=("audio",), query_modalities=("audio",))
    asked = evaluate(protocol=replace(alone, support_modalities=None), when_missing=rule)
    if rule == "match":
        assert np.array_equal(asked.accuracy, evaluate(protocol=alone).accuracy)
    else:
        assert "match" in str(asked.metrics["when_missing_choice"]["scores"])


def test_val_classes_choose_the_rate_at_which_training_clips_lose_modalities(
    cache: Path, tmp_path: Path
) -> None:
    found = fsmm.episode_eval(
        "common-space",
        "toy",
        cache,
        protocol=Protocol(n_query=4, missing=(Missing("audio", 0.5),)),
        episodes=20,
        settings={
            "train.steps": "4",
            "train.evaluate_every": "2",
            "train.evaluate_episodes": "20",
            "dim": "8",
        },
        out=tmp_path / "run",
    )
    notes = [note for note in found.metrics["notes"] if "Val classes chose the rate" in note]
    assert len(notes) == 1


def test_the_rates_of_training_are_auto_none_or_given() -> None:
    assert read_train_missing("--train-missing", ["auto"]) == read_train_missing("x", "auto") == "auto"
    assert read_train_missing("--train-missing", ["none"]) == ()
    assert read_train_missing("--train-missing", ["audio=0.5"]) == (Missing("audio", 0.5),)
    with pytest.raises(UsageError, match="modality=rate"):
        read_train_missing("--train-missing", ["sometimes"])
