"""A head made ready: built, fitted to base statistics, loaded or trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..episodes.protocol import bounds
from ..errors import UsageError
from ..heads.build import build_head, inputs_of
from ..heads.head import Head
from ..heads.settings import Recipe, update_settings
from ..machine.tensors import load_tensors, save_tensors
from .banks import Banks
from .spec import Progress, RunSpec
from .store import digest
from .train import Training, train

CHECKPOINT = "head.safetensors"


def ready_head(
    spec: RunSpec, banks: Banks, folder: Path, retrain: bool = False, progress: Progress | None = None
) -> tuple[Head, Training | None]:
    """The head of a run: built, fitted to base statistics, and loaded or trained as its regime asks."""
    torch.manual_seed(spec.train_seed)
    own = {k: v for k, v in spec.settings.items() if not k.startswith("train.")}
    base_classes = len(banks.base.class_names) if banks.method.regime == "batch" else 0
    way = bounds(spec.protocol.n_way)[1] or len(banks.test.class_names)
    low, high = bounds(spec.protocol.k_shot)
    inputs = inputs_of(banks.test, base_classes, way, high if low == high else None)
    head = build_head(spec.method, inputs, own, spec.fusion).to(banks.device)
    if wants_base(head):
        head.fit_base(banks.base)
    given = {k.removeprefix("train."): v for k, v in spec.settings.items() if k.startswith("train.")}
    if not any(p.requires_grad for p in head.parameters()):
        if given:
            raise UsageError(f"Method {spec.method!r} has nothing to train here; leave out --set train.*.")
        return head, None
    recipe: Recipe = update_settings(recipe_of(head), given, f"the training of {spec.method}")
    identity = digest(
        {
            **spec.training_identity(),
            "recipe": asdict(recipe),
            "head": asdict(innermost(head).settings),  # with its defaults: a new default is a new head
            "base": banks.base.fingerprint(),
            "streams": {k: str(v) for k, v in banks.base.streams.items()},
        }
    )
    path = folder / CHECKPOINT
    if path.is_file() and not retrain:
        tensors, about = load_tensors(path)
        if about.get("identity") == identity:
            head.load_state_dict(tensors)
            return head, None
    training = train(
        head,
        banks.base,
        banks.val,
        spec.protocol,
        recipe,
        spec.train_seed,
        folder / "training",
        spec.train_modalities,
        spec.train_missing,
        None if progress is None else lambda done, total, figures: progress("train", done, total, figures),
    )
    save_tensors(path, head.state_dict(), {"identity": identity, "method": spec.method})
    return head, training


def innermost(head: Head) -> Head:
    """The method itself, inside a fusion wrapper or not."""
    inner: Any = getattr(head, "inner", None)
    if isinstance(inner, torch.nn.ModuleDict):
        inner = next(iter(inner.values()))
    return inner if isinstance(inner, Head) else head


def recipe_of(head: Head) -> Recipe:
    """The published recipe of the method; a wrapper's own where only the wrapper learns."""
    inner = innermost(head)
    return inner.recipe if any(p.requires_grad for p in inner.parameters()) else head.recipe


def wants_base(head: Head) -> bool:
    """Whether the method takes closed-form statistics of the base classes."""
    return type(innermost(head)).fit_base is not Head.fit_base
