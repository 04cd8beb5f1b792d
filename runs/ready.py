"""Making a head ready: it is built, fitted to base statistics, and loaded or trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from ..episodes.protocol import bounds
from ..errors import UsageError
from ..heads.build import build_head, innermost, inputs_of
from ..heads.head import Head
from ..heads.settings import Recipe, update_settings
from ..machine.tensors import load_tensors, save_tensors
from .banks import Banks
from .digest import digest
from .spec import Progress, RunSpec
from .train import Training, train

CHECKPOINT = "head.safetensors"
_RECIPE = "train."  # The prefix of the settings that belong to the recipe.


def ready_head(
    spec: RunSpec, banks: Banks, folder: Path, *, retrain: bool = False, progress: Progress | None = None
) -> tuple[Head, Training | None]:
    """The head of a run, built, fitted to base statistics and loaded or trained, and its training.

    folder: the run's folder, which holds the checkpoint. retrain: train even where a checkpoint fits.
    The training is None where nothing was trained. Raises UsageError for settings that the head does not have.
    """
    torch.manual_seed(spec.train_seed)
    head = _built(spec, banks)
    given = {k.removeprefix(_RECIPE): v for k, v in spec.settings.items() if k.startswith(_RECIPE)}
    if not learns(head):
        if given:
            raise UsageError(f"Method {spec.method!r} has nothing to train here; leave out --set train.*.")
        return head, None
    recipe: Recipe = update_settings(head.recipe, given, f"the training of {spec.method}")
    identity, path = _identity(spec, banks, head, recipe), folder / CHECKPOINT
    if not retrain and _load(head, path, identity):
        return head, None
    training = train(
        head,
        banks.base,
        banks.val,
        spec.protocol,
        recipe=recipe,
        seed=spec.train_seed,
        folder=folder / "training",
        modalities=spec.train_modalities,
        missing=spec.train_missing,
        progress=_training_progress(progress),
    )
    save_tensors(path, head.state_dict(), {"identity": identity, "method": spec.method})
    return head, training


def learns(head: Head) -> bool:
    """Whether the head has weights to train."""
    return any(p.requires_grad for p in head.parameters())


def _built(spec: RunSpec, banks: Banks) -> Head:
    """The untrained head on the banks' device, with its closed-form statistics of base classes."""
    base_classes = len(banks.base.class_names) if banks.method.regime == "batch" else 0
    way = bounds(spec.protocol.n_way)[1] or len(banks.test.class_names)
    low, high = bounds(spec.protocol.k_shot)
    inputs = inputs_of(banks.test, base_classes=base_classes, way=way, shot=high if low == high else None)
    own = {k: v for k, v in spec.settings.items() if not k.startswith(_RECIPE)}
    head = build_head(spec.method, inputs, own, spec.fusion).to(banks.device)
    if banks.method.fits_base:
        head.fit_base(banks.base)
    return head


def _identity(spec: RunSpec, banks: Banks, head: Head, recipe: Recipe) -> str:
    """A digest of everything that the trained weights depend on."""
    return digest(
        {
            **spec.training_identity(),
            "recipe": asdict(recipe),
            # Defaults are among the settings, so that a new default makes a new head.
            "head": asdict(innermost(head).settings),
            "base": banks.base.fingerprint(),
            "streams": {k: str(v) for k, v in banks.base.streams.items()},
        }
    )


def _load(head: Head, path: Path, identity: str) -> bool:
    """Load the weights of the checkpoint if it exists and has this identity, and return whether they were loaded."""
    if not path.is_file():
        return False
    tensors, about = load_tensors(path)
    if about.get("identity") != identity:
        return False
    head.load_state_dict(tensors)
    return True


def _training_progress(progress: Progress | None) -> Callable[[int, int, Mapping[str, float]], None] | None:
    """A callback of the trainer that reports to ``progress``."""
    if progress is None:
        return None
    return lambda done, total, figures: progress("train", done, total, figures)
