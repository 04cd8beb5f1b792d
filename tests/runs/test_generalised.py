"""Seen or unseen: rules and their choice against plain loops, folds of classes, and generalised few-shot tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests_support import bank_of

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import TooFew
from fsmm.heads.build import build_head, inputs_of
from fsmm.runs.class_folds import class_folds, with_classes
from fsmm.runs.generalised import SEEN_SUPPORTS, Sides, generalised, trials
from fsmm.runs.seen_unseen import KINDS, Choice, Clips, Kind, Rule, Trial, accuracies, choose, seen_score

SEEN, UNSEEN = 4, 3


def trial(seed: int = 0, n: int = 60) -> Trial:
    """Logits that favour the right class, and seen classes over unseen ones."""
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, n, SEEN + UNSEEN, generator=chance, dtype=torch.float64)
    logits[..., :SEEN] += 1.0
    unseen, seen = (torch.randint(0, c, (n,), generator=chance) for c in (UNSEEN, SEEN))
    rows = torch.arange(n)
    logits[0, rows, SEEN + unseen] += 2.0
    logits[1, rows, seen] += 2.0
    return Trial(Clips(logits[0], unseen), Clips(logits[1], seen), Clips(logits[1] * 2, seen), SEEN)


def blobs(classes: int, per_class: int, seed: int, spread: float = 0.3) -> FeatureBank:
    chance = torch.Generator().manual_seed(seed)
    label = torch.arange(classes).repeat_interleave(per_class)
    x = torch.randn(classes, 16, generator=chance)[label] + spread * torch.randn(
        len(label), 16, generator=chance
    )
    return bank_of(x, label)


@pytest.mark.parametrize("kind", KINDS)
def test_accuracies_agree_with_a_loop(kind: Kind) -> None:
    given = trial()
    thresholds = torch.tensor([-0.5, 0.4, 1.5], dtype=torch.float64)
    found = accuracies(given, kind, thresholds)
    for row, cut in zip(found, thresholds.tolist()):
        sides = []
        for clips, shift in ((given.seen, 0), (given.unseen, SEEN)):
            label = clips.label
            right = (Rule(kind=kind).predicted(clips, SEEN, cut) == label + shift).double()
            sides.append(torch.stack([right[label == c].mean() for c in label.unique()]).mean())
        s, u = sides
        assert torch.allclose(row, torch.stack([s, u, 2 * s * u / (s + u)]))


def test_a_bias_is_taken_off_the_seen_logits() -> None:
    clips = trial().unseen
    shifted = clips.logits.clone()
    shifted[:, :SEEN] -= 0.7
    assert torch.equal(Rule(kind="bias").predicted(clips, SEEN, 0.7), shifted.argmax(1))


def test_the_gates_are_energy_and_entropy_of_the_seen_logits() -> None:
    clips = trial().seen
    own = clips.logits[:, :SEEN].numpy()
    assert np.allclose(seen_score("energy", clips, SEEN), np.log(np.exp(own).sum(1)))
    p = np.exp(own) / np.exp(own).sum(1, keepdims=True)
    assert np.allclose(seen_score("entropy", clips, SEEN), (p * np.log(p)).sum(1))
    moved = clips.logits.clone()
    moved[:, SEEN:] += 100.0  # a gate does not look at unseen classes
    for kind in ("energy", "entropy"):
        assert torch.equal(seen_score(kind, clips, SEEN), seen_score(kind, Clips(moved, clips.label), SEEN))


@pytest.mark.parametrize("kind", KINDS)
def test_a_relative_threshold_does_not_depend_on_the_scale_of_scores(kind: Kind) -> None:
    """A head whose scores of all clips are twice as large and moved decides the same."""
    given, rule = trial(), Rule(kind="learned", threshold=-0.5, relative=True)
    with_gate = [clips._replace(gate=seen_score(kind, clips, SEEN)) for clips in given[:3]]
    moved = [clips._replace(gate=2 * clips.gate + 3) for clips in with_gate if clips.gate is not None]
    first, second = Trial(*with_gate, SEEN), Trial(*moved, SEEN)
    for a, b in ((first.seen, second.seen), (first.unseen, second.unseen)):
        assert torch.equal(
            rule.predicted(a, SEEN, rule.cut(first)), rule.predicted(b, SEEN, rule.cut(second))
        )
    own = seen_score(kind, given.train, SEEN)
    assert rule.cut(first) == pytest.approx(float(own.mean() - 0.5 * own.std()))


def test_the_best_harmonic_mean_is_chosen_over_kinds_and_thresholds() -> None:
    trials = [trial(seed) for seed in range(3)]
    choice = choose(trials, KINDS, "base", "three trials")
    assert dict(choice.others)[choice.rule.kind] == max(dict(choice.others).values())
    best = max(entry[3] for entry in choice.curve)
    assert best == pytest.approx(dict(choice.others)[choice.rule.kind])
    at = next(entry for entry in choice.curve if entry[0] == choice.rule.threshold)
    assert at[3] == best
    again = []
    for given in trials:
        cut = torch.tensor([choice.rule.cut(given)], dtype=torch.float64)
        again.append(float(accuracies(given, choice.rule.kind, cut)[0, 2]))
    assert np.mean(again) == pytest.approx(best, abs=1e-6)


def test_folds_hold_each_class_out_equally_often() -> None:
    folds = list(class_folds(10, 5, 4, seed=0))
    for stay, out in folds:
        assert len(out) == 4
        assert sorted([*stay, *out]) == list(range(10))
    counts = np.bincount([c for _, out in folds for c in out], minlength=10)
    assert counts.sum() == 20
    assert counts.max() - counts.min() <= 1


def test_a_bank_of_some_classes_keeps_their_clips() -> None:
    bank = blobs(5, 4, seed=0)
    part = with_classes(bank, [3, 1])
    assert part.class_names == [bank.class_names[3], bank.class_names[1]]
    assert part.label.tolist() == [1] * 4 + [0] * 4
    rows = torch.arange(4)
    assert torch.equal(part.tables["frame"].gather(rows).x, bank.tables["frame"].gather(rows + 4).x)


def test_generalised_few_shot_classifies_every_other_clip() -> None:
    unseen, whole = blobs(3, 12, seed=1), blobs(4, 40, seed=2)
    sides = Sides(
        unseen, whole.rows(np.arange(160)[::4]), whole.rows(np.setdiff1d(np.arange(160), np.arange(160)[::4]))
    )
    head = build_head("protonet", inputs_of(unseen))
    found = generalised(head, sides, Choice(rule=Rule()), shots=5, draws=4)
    assert found.clips == 3 * (12 - 5) + 40
    assert found.confusion.sum() == 4 * found.clips
    assert float(found.seen.min()) > 0.9
    assert float(found.unseen.min()) > 0.9
    assert found.summary()["episodes"] == 4
    assert SEEN_SUPPORTS < 30  # some training clips of the seen classes are left out of each draw
    again = generalised(head, sides, Choice(rule=Rule()), shots=5, draws=4)
    assert np.array_equal(found.harmonic, again.harmonic)


def test_each_side_alone_is_the_accuracy_where_the_other_does_not_compete() -> None:
    unseen, seen = blobs(3, 12, seed=1), blobs(4, 12, seed=2)
    sides, head = Sides(unseen, seen, seen), build_head("protonet", inputs_of(unseen))
    found = generalised(head, sides, Choice(rule=Rule()), shots=1, draws=3)
    for draw, trial in enumerate(trials(head, sides, shots=1, draws=3, seed=0)):
        first = trial.seen_classes
        for clips, columns, alone in (
            (trial.seen, slice(first), found.seen_alone),
            (trial.unseen, slice(first, None), found.unseen_alone),
        ):
            right = clips.logits[:, columns].argmax(1) == clips.label
            each = [float(right[clips.label == c].float().mean()) for c in clips.label.unique()]
            assert alone[draw] == pytest.approx(sum(each) / len(each))


def test_supports_that_leave_no_query_are_refused() -> None:
    unseen, seen = blobs(3, 5, seed=1), blobs(4, 10, seed=2)
    head = build_head("protonet", inputs_of(unseen))
    with pytest.raises(TooFew, match="5 clips"):
        generalised(head, Sides(unseen, seen, seen), Choice(rule=Rule()), shots=5)
