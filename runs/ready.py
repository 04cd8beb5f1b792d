"""Making a head ready: it is built, fitted to base statistics, and loaded or trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..cache.bank import FeatureBank
from ..episodes.protocol import Missing, bounds
from ..errors import UsageError
from ..heads.build import build_head, inputs_of
from ..heads.head import Head
from ..heads.multimodal.weights import HasWeights
from ..heads.settings import Recipe, update_settings
from .banks import Banks, HeadBanks
from .checkpoint import Checkpoint
from .filling_choice import provisional
from .layout import CHECKPOINT, TRAINING
from .spec import Progress, RunSpec
from .train import LATEST, Training, train
from .try_out import try_out
from .weights import fit_weights

DROPOUT_RATES = (0.0, 0.25, 0.5)
"""The rates at which training clips lose each of several modalities, of which val classes choose one."""
_RECIPE = "train."  # The prefix of the settings that belong to the recipe.


@dataclass(frozen=True, kw_only=True)
class ReadyHead:
    """A head that is ready to be measured."""

    head: Head
    """The head, built, fitted to base statistics, and loaded or trained."""
    training: Training | None = None
    """The training, or None where nothing was trained."""
    checkpoint: Checkpoint | None = None
    """The place of the head's weights, or None where the head has nothing to train."""
    stopped: str = ""
    """When and why the head's training stopped, in this run or an earlier one; empty where there was none."""

    def keep(self) -> None:
        """Write the weights to their place, if they have one and are not there."""
        if self.checkpoint is not None:
            self.checkpoint.save(self.head, self.stopped)


def ready_head(
    spec: RunSpec,
    banks: Banks,
    folder: Path,
    *,
    retrain: bool = False,
    reliability: bool = False,
    progress: Progress | None = None,
) -> ReadyHead:
    """The head of a run, built, fitted to base statistics and loaded or trained.

    folder: the run's folder, which holds the checkpoint. retrain: train even where a checkpoint fits. reliability:
    whether the reliability of modalities will be measured.
    Where a checkpoint is there and cannot be used, the training notes why. Raises UsageError for settings that the head
    does not have, and, before any training, whatever the test itself would raise.
    """
    head = _seeded_head(spec, banks)
    if not learns(head):
        if any(key.startswith(_RECIPE) for key in spec.settings):
            raise UsageError(f"Method {spec.method!r} has nothing to train here; leave out --set train.*.")
        return ReadyHead(head=head)
    recipe = recipe_of(head, spec)
    identity = _identity(spec, banks, head, recipe)
    checkpoint = Checkpoint(path=folder / CHECKPOINT, identity=identity)
    loaded, why_not = (False, "") if retrain else checkpoint.load(head)
    if loaded:
        return ReadyHead(head=head, checkpoint=checkpoint, stopped=checkpoint.stopped())
    try_out(head, banks, spec, reliability=reliability)
    head, training = _trained(
        head,
        spec,
        banks,
        folder / TRAINING,
        recipe=recipe,
        identity=identity,
        retrain=retrain,
        progress=progress,
    )
    if why_not:
        training.notes.insert(0, f"{why_not} It was made anew.")
    made = ReadyHead(head=head, training=training, checkpoint=checkpoint, stopped=training.stopped)
    made.keep()
    return made


def _seeded_head(spec: RunSpec, banks: Banks) -> Head:
    """The untrained head as the seed of training makes it."""
    torch.manual_seed(spec.train_seed)
    return built_head(spec, banks)


def _trained(
    head: Head,
    spec: RunSpec,
    banks: Banks,
    folder: Path,
    *,
    recipe: Recipe,
    identity: Mapping[str, Any],
    retrain: bool,
    progress: Progress | None,
) -> tuple[Head, Training]:
    """The trained head with its training; folder: that of the checkpoints, in which a training may be continued.

    Where val classes choose the rate at which training clips lose modalities, a head is trained at each of
    ``DROPOUT_RATES``, and the one that is most accurate on val classes is kept.
    """
    names = spec.train_modalities or tuple(head.inputs.streams)
    chooses = spec.chooses_dropout and len(names) > 1 and banks.val is not None
    losses = (
        {rate: tuple(Missing(m, rate) for m in names) for rate in DROPOUT_RATES}
        if chooses
        else {0.0: spec.losses}
    )
    made: dict[float, tuple[Head, Training]] = {}
    for rate, missing in losses.items():
        each = head if not made else _seeded_head(spec, banks)
        place = folder / f"dropout-{rate:g}" if chooses else folder
        if retrain:
            (place / LATEST).unlink(missing_ok=True)
        seen = None if banks.val is None else provisional(each, banks.val, spec, banks)
        training = train(
            each,
            banks.base,
            None if seen is None else seen.bank,
            spec.protocol,
            recipe=recipe,
            seed=spec.train_seed,
            folder=place,
            modalities=spec.train_modalities,
            missing=missing,
            measured=None if seen is None else seen.head,
            identity=identity,
            progress=_training_progress(progress),
        )
        made[rate] = each, training
    best = max(made, key=lambda rate: made[rate][1].best_val) if chooses else next(iter(made))
    if chooses:
        found = ", ".join(f"{rate:g} {100 * done.best_val:.1f} %" for rate, (_, done) in made.items())
        made[best][1].notes.append(
            f"Val classes chose the rate {best:g} at which training clips lose each modality: {found}."
        )
    return made[best]


def learns(head: Head) -> bool:
    """Whether the head has weights to train."""
    return any(p.requires_grad for p in head.parameters())


def built_head(spec: RunSpec, banks: HeadBanks, base: FeatureBank | None = None) -> Head:
    """The untrained head on the banks' device, with its closed-form statistics of base classes.

    base: other base clips than the run's, for a head of some of its classes.
    """
    trained = banks.method.regime == "batch"
    base_classes = len((banks.base if base is None else base).class_names) if trained else 0
    way = bounds(spec.protocol.n_way)[1] or len(banks.test.class_names)
    low, high = bounds(spec.protocol.k_shot)
    inputs = inputs_of(banks.test, base_classes=base_classes, way=way, shot=high if low == high else None)
    own = {k: v for k, v in spec.settings.items() if not k.startswith(_RECIPE)}
    head = build_head(spec.method, inputs, own, spec.fusion).to(banks.device)
    fit_weights(head, spec, banks)
    if banks.method.fits_base:
        head.fit_base(banks.base if base is None else base)
    if banks.method.fits_val and (val := banks.val) is not None:
        head.fit_val(val)
    return head


def recipe_of(head: Head, spec: RunSpec) -> Recipe:
    """The head's recipe with what the run sets; a number of steps that is set alone is all that is taken."""
    given = {k.removeprefix(_RECIPE): v for k, v in spec.settings.items() if k.startswith(_RECIPE)}
    if "steps" in given:
        given = {"ceiling": "1", **given}
    recipe: Recipe = update_settings(head.recipe, given, f"the training of {spec.method}")
    return recipe


def _identity(spec: RunSpec, banks: Banks, head: Head, recipe: Recipe) -> dict[str, Any]:
    """All that the trained weights depend on, in plain JSON values by a word for each."""
    weights = head.weights.share if isinstance(head, HasWeights) and not head.weights.are_equal else None
    return {
        **spec.training_identity(),
        **banks.training_data(),
        **({"groups": banks.training_groups()} if spec.protocol.rules_groups else {}),
        "normalise": banks.normalise,
        **({} if weights is None else {"modality weights": weights}),
        "recipe": asdict(recipe),
        # Defaults are among the settings, so that a new default makes a new head.
        "head settings": [asdict(m.settings) for m in head.modules() if isinstance(m, Head)],
    }


def _training_progress(progress: Progress | None) -> Callable[[int, int, Mapping[str, float]], None] | None:
    """A callback of the trainer that reports to ``progress``."""
    if progress is None:
        return None
    return lambda done, total, figures: progress("train", done, total, figures)
