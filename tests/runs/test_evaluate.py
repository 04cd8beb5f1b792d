"""Laws of evaluation: what results must not depend on, and what protocols reduce to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import bank_of, synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.scoring import gram
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.scoring.gram import FromGram
from fsmm.heads.scoring.plan import best_shortcut
from fsmm.runs import evaluate as module
from fsmm.runs.evaluate import evaluate


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=2.0, unlabelled=30)


@pytest.fixture(scope="module")
def bank(cache: Path) -> FeatureBank:
    return FeatureBank.load(cache, split="novel").pooled().normalised("l2")


def accuracies(
    bank: FeatureBank, protocol: Protocol, method: str = "protonet", **given: object
) -> np.ndarray:
    head = build_head(method, inputs_of(bank))
    return evaluate(head, bank, protocol, 120, **given).accuracy


def test_results_depend_on_neither_chunk_nor_workers_nor_where_one_starts(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = Protocol(n_query=5, k_shot=2)
    whole = accuracies(bank, protocol)
    monkeypatch.setattr(module, "_CPU_BUDGET", 1)  # one episode a chunk
    assert np.array_equal(accuracies(bank, protocol, workers=3), whole)
    head = build_head("protonet", inputs_of(bank))
    assert np.array_equal(evaluate(head, bank, protocol, 40, first=50).accuracy, whole[50:90])


def test_a_batch_equals_its_episodes_scored_by_a_slow_loop(bank: FeatureBank) -> None:
    """Nearest class mean, written clip by clip with numpy, for one modality without absences."""
    complete = bank.rows(np.flatnonzero(bank.tables["frame"].present.numpy())).select(["frame"])
    protocol = Protocol(n_query=4, k_shot=3, seed=5)
    fast = accuracies(complete, protocol)
    x, slow = complete.tables["frame"].gather(torch.arange(len(complete))).x[:, 0].numpy(), []
    for index in Sampler(complete, protocol).batches(0, 120, 1):
        means = [np.mean([x[r] for r in rows], axis=0) for rows in index.support[0].numpy()]
        said = [int(np.argmin([((x[q] - m) ** 2).sum() for m in means])) for q in index.query[0].numpy()]
        slow.append(np.mean(np.array(said) == index.query_label[0].numpy()))
    assert fast == pytest.approx(np.array(slow), abs=1e-6)


def test_missing_rate_zero_is_complete_and_rate_one_is_absence(bank: FeatureBank) -> None:
    protocol = Protocol(n_query=5)
    none = replace(protocol, missing=(Missing("audio", 0.0),))
    assert np.array_equal(accuracies(bank, none), accuracies(bank, protocol))
    gone = replace(protocol, missing=(Missing("audio", 1.0),), may_lose_all=True)
    alone = replace(protocol, support_modalities=("frame",), query_modalities=("frame",))
    assert np.array_equal(accuracies(bank, gone), accuracies(bank, alone))


def test_missing_falls_at_its_rate_and_never_takes_everything(bank: FeatureBank) -> None:
    protocol = Protocol(n_query=5, missing=(Missing("audio", 0.7, "query"), Missing("frame", 0.7, "query")))
    index = next(Sampler(bank, protocol).batches(0, 100, 100))
    batch = materialise(bank, index, protocol)
    frame, audio = batch.query["frame"].present, batch.query["audio"].present
    assert bool((frame | audio).all())
    loose = materialise(bank, index, replace(protocol, may_lose_all=True))
    had = materialise(bank, index, replace(protocol, missing=()))
    kept = loose.query["audio"].present.sum() / had.query["audio"].present.sum()
    assert float(kept) == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / int(had.query["audio"].present.sum())))
    assert torch.equal(batch.support["audio"].present, had.support["audio"].present)


def test_missing_is_a_function_of_episode_and_clip(bank: FeatureBank) -> None:
    protocol = Protocol(n_query=5, missing=(Missing("audio", 0.5),))
    sampler = Sampler(bank, protocol)
    together = materialise(bank, next(sampler.batches(0, 20, 20)), protocol)
    alone = materialise(bank, next(sampler.batches(13, 1, 1)), protocol)
    assert torch.equal(together.query["audio"].present[13], alone.query["audio"].present[0])


def test_cross_modal_with_equal_sets_is_few_shot(bank: FeatureBank) -> None:
    protocol = Protocol(n_query=5)
    both = ("frame", "audio")
    same = replace(protocol, support_modalities=both, query_modalities=both)
    assert np.array_equal(accuracies(bank, same), accuracies(bank, protocol))
    crossed = replace(protocol, support_modalities=("frame",), query_modalities=("audio",))
    with pytest.raises(UsageError, match="common-space"):
        accuracies(bank, crossed)


def test_dirichlet_with_a_huge_alpha_is_balanced(bank: FeatureBank) -> None:
    """Not the same draws, but the same distribution: paired means agree within their error."""
    balanced, dirichlet = Protocol(n_query=5, k_shot=3), Protocol(n_query=5, k_shot=3, dirichlet=1e8)
    head = build_head("protonet", inputs_of(bank))
    a, b = (evaluate(head, bank, p, 800).accuracy for p in (balanced, dirichlet))
    error = np.hypot(a.std(), b.std()) / np.sqrt(800)
    assert abs(a.mean() - b.mean()) < 4 * error


def test_a_transductive_result_states_its_effective_classes(bank: FeatureBank) -> None:
    head = build_head("protonet", inputs_of(bank))
    balanced = evaluate(head, bank, Protocol(n_query=3), 20).summary()["effective_classes"]
    assert balanced == {"mean": 5.0, "least": 5, "most": 5}
    uneven = Protocol(n_query=3, dirichlet=0.2)
    found = evaluate(head, bank, uneven, 40)
    label = next(Sampler(bank, uneven).batches(0, 40, 40)).query_label
    expected = [len(set(row.tolist()) - {-1}) for row in label]
    assert found.effective is not None
    assert found.effective.tolist() == expected
    stated = found.summary()["effective_classes"]
    assert (stated["least"], stated["most"]) == (min(expected), max(expected))
    alone = evaluate(head, bank, uneven, 40, transductive=False)
    assert alone.summary()["effective_classes"] is None


def test_the_confusion_matrix_counts_every_query(bank: FeatureBank) -> None:
    head = build_head("protonet", inputs_of(bank))
    found = evaluate(head, bank, Protocol(n_query=3), 50)
    assert found.confusion.sum() == 50 * 15
    assert np.trace(found.confusion) / found.confusion.sum() == pytest.approx(found.mean)


def test_gaussian_accuracy_agrees_with_theory(make_cache: Callable[..., Path]) -> None:
    """Two far better known classes: with means at +-d/2 and many shots, accuracy tends to Phi(d / 2)."""
    from scipy.stats import norm

    torch.manual_seed(0)
    distance, n = 2.0, 2000
    centre = torch.zeros(2, 8)
    centre[0, 0], centre[1, 0] = distance / 2, -distance / 2
    label = torch.arange(2).repeat_interleave(n)
    bank = bank_of(centre[label] + torch.randn(2 * n, 8), label)
    found = evaluate(
        build_head("protonet", inputs_of(bank)), bank, Protocol(n_way=2, k_shot=500, n_query=200), 60
    )
    assert found.mean == pytest.approx(norm.cdf(distance / 2), abs=0.012)  # 4,000 clips: s.e. .006


def test_unlabelled_clips_help_the_head_that_uses_them_and_leave_others_alone(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path / "c", streams={"frame/net": (1, 8)}, noise=1.5, unlabelled=20)
    bank = FeatureBank.load(cache, split="novel").pooled().normalised("l2")
    # clips of the novel classes themselves play the unlabelled ones, so that they carry structure
    plain, semi = (build_head(m, inputs_of(bank)) for m in ("protonet", "semi-protonet"))
    protocol = Protocol(n_query=5, unlabelled=60)
    without = evaluate(plain, bank, Protocol(n_query=5), 200).accuracy
    assert np.array_equal(evaluate(plain, bank, protocol, 200, unlabelled=bank).accuracy, without)
    helped = evaluate(semi, bank, protocol, 200, unlabelled=bank).accuracy
    assert np.array_equal(evaluate(semi, bank, Protocol(n_query=5), 200).accuracy, without)
    assert (helped - without).mean() > 2 * (helped - without).std() / np.sqrt(200)


@pytest.mark.parametrize("protocol", [Protocol(n_way=(3, 5), n_query=3), Protocol(dirichlet=1.0, n_query=3)])
def test_intervals_over_clips_and_classes_are_given_for_balanced_episodes_alone(
    bank: FeatureBank, protocol: Protocol
) -> None:
    head = build_head("protonet", inputs_of(bank))
    found, plain = (evaluate(head, bank, p, 60).summary() for p in (protocol, Protocol(n_query=3)))
    assert found["ci95"] is not None
    assert found["ci95_clips"] is None
    assert found["ci95_classes"] is None
    assert plain["ci95_clips"] is not None


@pytest.mark.parametrize("method", ["protonet", "nearest", "ridge", "linear-probe"])
def test_processes_and_the_gram_path_change_nothing(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small split of whole clips takes the Gram path; one made too small for it reads the features."""
    bank = FeatureBank.load(synthetic_cache(tmp_path, absent=0.0, noise=2.0), ["frame"]).pooled()
    head, protocol = build_head(method, inputs_of(bank)), Protocol(n_query=5, k_shot=2)
    test = EpisodeTest(bank=bank, protocol=protocol, episodes=2400)
    assert isinstance(best_shortcut(head, test), FromGram)
    alone = evaluate(head, bank, protocol, 2400, workers=1)
    forked = evaluate(head, bank, protocol, 2400, workers=3)
    monkeypatch.setattr(gram, "MAX_CLIPS", 0)
    direct = evaluate(head, bank, protocol, 2400, workers=1)
    assert np.array_equal(alone.accuracy, forked.accuracy)
    assert np.array_equal(alone.confusion, forked.confusion)
    assert forked.summary()["ci95_clips"] == pytest.approx(alone.summary()["ci95_clips"], rel=1e-9)
    # a tie that rounding decides may fall the other way
    assert (alone.accuracy != direct.accuracy).mean() < 0.002
