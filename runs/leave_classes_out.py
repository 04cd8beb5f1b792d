"""The rule of a generalised test, chosen by leaving classes out of the base classes, so that it transfers.

A share of the base classes, as large as that of the unseen classes among all classes of the test, is held out of
training and plays the unseen ones; the head that is tested then is made in the same way from what is left. Only weights
of modalities, where a head fits them, are those of all base classes. Clips and classes of the test take no part, and
neither do the val classes, which only stop trainings as they always do.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..cache.bank import FeatureBank
from ..episodes.protocol import bounds
from ..errors import UsageError
from ..heads.head import Head
from .banks import Banks
from .class_folds import class_folds, with_classes
from .generalised import Sides, trials
from .learned_gate import LearnedGate
from .ready import built_head, learns, recipe_of
from .seen_unseen import KINDS, Choice, Kind, Rule, choose
from .spec import RunSpec
from .train import train

FOLDS = 8
"""The folds of a head that is not trained."""
TRAINED_FOLDS = 3
"""The folds of a head that is trained in every one."""
LEAST_CLASSES = 4
"""The fewest base classes of which some can be left out: two stay and two play the unseen ones."""
DRAWS = 3
"""The draws of supports in each fold."""
SEED = 2_000_003
"""This is added to the run's seed, so that folds share their draws with nothing else."""


def sides_of(banks: Banks) -> Sides:
    """The clips of a run's generalised test."""
    return Sides(unseen=banks.test, seen=banks.seen, train=banks.base)


def check_rule(spec: RunSpec, banks: Banks) -> None:
    """Raise UsageError where the rule that a run's ``seen_unseen`` asks for cannot be chosen on these classes."""
    if spec.seen_unseen == "val" and banks.val is None:
        raise UsageError("There are no val classes to choose a bias on; use --seen-unseen auto.")
    base = len(banks.base.class_names)
    if spec.seen_unseen not in ("val", "none") and base < LEAST_CLASSES:
        raise UsageError(
            f"{base} base classes are too few to leave some out for choosing between seen and unseen classes; use "
            "--seen-unseen none."
        )


def chosen_rule(spec: RunSpec, banks: Banks, head: Head) -> Choice:
    """The rule that a run's ``seen_unseen`` asks for. Raises as :func:`check_rule`."""
    check_rule(spec, banks)
    how = spec.seen_unseen
    if how == "none":
        return Choice(rule=Rule(), chosen_on="nothing: no bias")
    shots = bounds(spec.protocol.k_shot)[1]
    if how == "val":
        assert banks.val is not None, "check_rule has seen to that"
        sides = Sides(unseen=banks.val, seen=banks.seen, train=banks.base)
        found = list(trials(head, sides, shots=shots, draws=DRAWS, seed=spec.protocol.seed + SEED))
        return choose(found, ("bias",), "val", f"{len(banks.val.class_names)} val classes", relative=False)
    found = []
    folds = list(_folds(spec, banks, head))
    for number, (fold_head, sides) in enumerate(folds):
        seed = spec.protocol.seed + SEED + number
        gate = learned_gate(spec, sides)
        found += [*trials(fold_head, sides, shots=shots, draws=DRAWS, seed=seed, gate=gate)]
    kinds: tuple[Kind, ...] = KINDS if how == "auto" else (how,)
    held = len(folds[0][1].unseen.class_names)
    return choose(found, kinds, "base", f"{held} base classes left out, {len(folds)} times")


def learned_gate(spec: RunSpec, sides: Sides) -> LearnedGate | None:
    """The gate that has learned the seen classes, where a run's ``seen_unseen`` asks for one."""
    return LearnedGate(sides.train, spec.train_seed) if spec.seen_unseen == "learned" else None


def _folds(spec: RunSpec, banks: Banks, head: Head) -> Iterator[tuple[Head, Sides]]:
    """The head and the clips of each fold."""
    seen, unseen = len(banks.base.class_names), len(banks.test.class_names)
    held = min(max(round(seen * unseen / (seen + unseen)), 2), seen - 2)
    folds = TRAINED_FOLDS if learns(head) else FOLDS
    for stay, out in class_folds(seen, folds, held, spec.protocol.seed + SEED):
        inside = with_classes(banks.base, stay)
        sides = Sides(
            unseen=with_classes(banks.all_base, out), seen=with_classes(banks.seen, stay), train=inside
        )
        yield _made(spec, banks, head, inside), sides


def _made(spec: RunSpec, banks: Banks, head: Head, base: FeatureBank) -> Head:
    """A head made as the run's own is, from these base clips alone; the run's own where it takes nothing from them."""
    if not (banks.method.fits_base or learns(head)):
        return head
    torch.manual_seed(spec.train_seed)
    found = built_head(spec, banks, base)
    if learns(found):
        train(
            found,
            base,
            banks.val,
            spec.protocol,
            recipe=recipe_of(found, spec),
            seed=spec.train_seed,
            modalities=spec.train_modalities,
            missing=spec.losses,
        )
    return found
