"""Training a head on base classes, by episodes or batches of clips, for as long as accuracy on val classes rises.

The length of a recipe is where a training starts to need a reason to go on; its ceiling is where it ends at the latest.
An interrupted training can be resumed at any point.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..episodes import counter
from ..episodes.clips import batch_clips, batch_rows, some_of
from ..episodes.draw import AnySampler, sampler_for
from ..episodes.gather import materialise
from ..episodes.mix import mix_classes
from ..episodes.protocol import Missing, Protocol
from ..errors import FsmmError
from ..heads.head import ClipTrainedHead, Head, Losses
from ..heads.settings import Recipe
from ..machine.cores import half_of_the_cores
from ..machine.files import parsed_json
from ..machine.memory import keep_freed_memory
from ..machine.tensors import load_tensors, save_tensors
from .checkpoint import unfitting
from .measure import measure
from .tasks import training_protocol, validation_protocol

LATEST = "latest.safetensors"


@dataclass
class Training:
    """The record of a training."""

    curve: list[dict[str, float]] = field(default_factory=list)
    """The figures {step, loss, parts..., val} of each evaluation."""
    best_step: int = 0
    """The step of the best state; 0 where the untrained head was best."""
    best_val: float = -1.0
    """The accuracy of the best state on val classes; NaN where there are none, and -1 before the first evaluation."""
    steps: int = 0
    """The number of steps taken."""
    seconds: float = 0.0
    """The time of the training in seconds."""
    stopped: str = ""
    """When training stopped and why, as a phrase; empty while it goes on."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the training that a reader of its figures should see."""


def train(
    head: Head,
    base: FeatureBank,
    val: FeatureBank | None,
    protocol: Protocol,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    folder: Path | None = None,
    modalities: tuple[str, ...] | None = None,
    missing: tuple[Missing, ...] = (),
    measured: Head | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> Training:
    """Train ``head`` in place and leave it in its best state on val classes (the last one where there are none).

    protocol: the evaluated task; training episodes take its way and shot unless the recipe sets others.
    folder: the folder of the checkpoints, from which an interrupted run continues with the very same steps.
    modalities, missing: the modalities that training clips carry (None: all) and lose; those of the protocol are for
        evaluation.
    measured: the head as val classes are to see it, which shares the weights of ``head`` (None: the head itself).
    identity: what else the weights depend on, such as digests of the clips; a checkpoint with another one is not
        continued.
    progress: called with (step, steps, latest losses).
    Raises FsmmError where the base split cannot serve the episodes, or the loss is no longer finite.
    """
    recipe = recipe or head.recipe
    base = some_of(base, recipe.clips, seed)
    task = training_protocol(protocol, recipe, base, seed=seed, modalities=modalities, missing=missing)
    keep_freed_memory()
    check = None if val is None else validation_protocol(protocol, val)
    trainer = _Trainer(
        head=head,
        measured=measured or head,
        base=base,
        val=val,
        task=task,
        check=check,
        recipe=recipe,
        seed=seed,
        folder=folder,
        identity=identity or {},
    )
    with half_of_the_cores(unless=base.device.type != "cpu" or recipe.every_core):
        trainer.resume()
        return trainer.run(progress)


@dataclass(kw_only=True)
class _Trainer:
    """One training: the head, its data and recipe, and its progress."""

    head: Head
    """The head that is trained."""
    measured: Head
    """The head as val classes see it."""
    base: FeatureBank
    """The base clips."""
    val: FeatureBank | None
    """The val clips, or None where there are no val classes."""
    task: Protocol
    """The protocol of training episodes."""
    check: Protocol | None
    """The protocol of validation, or None where there are no val classes."""
    recipe: Recipe
    """The recipe of the training."""
    seed: int
    """The seed of the training."""
    folder: Path | None
    """The folder of the checkpoints, or None where none are written."""
    identity: Mapping[str, Any]
    """What else the weights depend on."""

    def __post_init__(self) -> None:
        self.objective = self._objective_of(self.head)
        self.optimiser = make_optimiser(self.head, self.recipe)
        self.done = Training()
        self.best: dict[str, Tensor] = _state(self.head)
        self.pending: list[dict[str, float]] = []

    def run(self, progress: Callable[[int, int, Mapping[str, float]], None] | None) -> Training:
        done, recipe = self.done, self.recipe
        if not done.curve:
            self._evaluate(0)
        started, before = time.perf_counter(), done.seconds
        while not self._is_over():
            figures = self._step(done.steps)
            done.steps += 1
            done.seconds = before + time.perf_counter() - started
            self.pending.append(figures)
            if done.steps % recipe.evaluate_every == 0 or self._is_over():
                self._evaluate(done.steps)
            if progress:
                shown = recipe.steps if done.steps <= recipe.steps else self._ceiling()
                progress(done.steps, shown, {**figures, "val": done.best_val})
        done.seconds = before + time.perf_counter() - started
        done.stopped = self._reason()
        self.head.load_state_dict(self.best)
        self.head.eval()
        return done

    def _is_over(self) -> bool:
        return self.done.steps >= self._ceiling() or self._out_of_patience() or self._out_of_time()

    def _ceiling(self) -> int:
        """The most steps; without val classes nothing speaks for more than the recipe's own."""
        return self.recipe.steps * (1 if self.val is None else self.recipe.ceiling)

    def _out_of_patience(self) -> bool:
        if self.val is None:
            return False
        return self.done.steps - self.done.best_step >= self.recipe.patience * self.recipe.evaluate_every

    def _out_of_time(self) -> bool:
        return 0 < 60 * self.recipe.minutes <= self.done.seconds

    def _reason(self) -> str:
        """When and why the training that is over has stopped, as a phrase."""
        done, recipe = self.done, self.recipe
        if not recipe.steps:
            return "not trained (train.steps is 0)"
        best = f"the best state is that of step {done.best_step}"
        if self._out_of_patience():
            return f"val accuracy stopped rising; {best}, and training ended at step {done.steps}"
        if self.val is None:
            still = "there are no val classes"
        elif done.best_step == done.steps:
            still = f"val accuracy still rising; {best}"
        else:
            still = f"val accuracy not yet known to have stopped rising; {best}"
        if done.steps >= self._ceiling():
            if self.val is None:
                return f"the recipe's {done.steps} steps are done; {still}"
            return f"ceiling of {done.steps} steps reached, {still}"
        return f"cut at step {done.steps} after {recipe.minutes:g} minutes (depends on the machine); {still}"

    def _step(self, step: int) -> dict[str, float]:
        # Every source of chance is a function of (seed, step), so a resumed run takes the very same steps.
        torch.manual_seed(
            int(counter.states(counter.key(self.seed, "training"), np.array([step]))[0] >> np.uint64(1))
        )
        self.head.train()
        self._set_rate(step)
        losses = self.objective(step)
        total = losses.total
        if not torch.isfinite(total):
            raise _diverged(step, f"loss {total.item():g}")
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self._clip()
        self.optimiser.step()
        return {"loss": total.item(), **{k: v.item() for k, v in losses.parts.items()}}

    def _objective_of(self, head: Head[Any]) -> Callable[[int], Losses]:
        """The objective of a step, on a batch of clips or on training episodes, as the head is trained.

        Raises TooFew where the base split cannot serve the episodes.
        """
        if isinstance(head, ClipTrainedHead):
            return lambda step: self._on_clips(head, step)
        sampler = sampler_for(self.base, self.task)
        return lambda step: self._on_episodes(sampler, step)

    def _on_clips(self, head: ClipTrainedHead[Any], step: int) -> Losses:
        rows = batch_rows(self.base, self.seed, step, self.recipe.tasks)
        clips = batch_clips(self.base, rows, self.task)
        return head.batch_loss(clips, self.base.label[rows], self.base.words)

    def _on_episodes(self, sampler: AnySampler, step: int) -> Losses:
        tasks = self.recipe.tasks
        numbers = np.arange(step * tasks, (step + 1) * tasks, dtype=np.int64)
        ways, shots = sampler.shapes(numbers)
        index = sampler.draw(numbers, int(ways[0]), int(shots[0]))
        episodes = materialise(self.base, index, self.task)
        if self.recipe.mix > 0:
            episodes = mix_classes(episodes, self.recipe.mix)
        return self.head.loss(episodes)

    def _set_rate(self, step: int) -> None:
        recipe = self.recipe
        factor = recipe.decay ** (step // recipe.decay_every) if recipe.decay_every else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * factor

    def _clip(self) -> None:
        if self.recipe.clip_value:
            torch.nn.utils.clip_grad_value_(self.head.parameters(), self.recipe.clip_value)
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), self.recipe.clip_norm)

    def _evaluate(self, step: int) -> None:
        """Measure the head on val classes, keep its state if it is the best so far, and write the checkpoint."""
        done = self.done
        entry = {"step": float(step), **_mean(self.pending)}
        self.pending = []
        if self.val is not None and self.check is not None:
            # Only the accuracy is read, and no head that learns decides the clips of a whole split together.
            found = measure(
                self.measured, self.val, self.check, self.recipe.evaluate_episodes, transductive=False
            )
            entry["val"] = float(found.summary()["accuracy"])
        if self.val is None or entry["val"] > done.best_val:
            if not all(bool(weight.isfinite().all()) for weight in self.head.parameters()):
                raise _diverged(step, "weights that are not finite")
            done.best_val, done.best_step = entry.get("val", math.nan), step
            self.best = _state(self.head)
        done.curve.append(entry)
        self._save()

    def _save(self) -> None:
        """Write the checkpoint as one file, so that a killed process never leaves an inconsistent state."""
        if self.folder is None:
            return
        tensors = {f"head.{k}": v for k, v in _state(self.head).items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser.{number}.{k}": torch.as_tensor(v) for k, v in state.items() if v is not None
            }
        save_tensors(
            self.folder / LATEST,
            tensors,
            {"recipe": self._identity(), "training": json.dumps(asdict(self.done))},
        )

    def _identity(self) -> str:
        heads = [f"{type(m).__name__} {m.settings}" for m in self.head.modules() if isinstance(m, Head)]
        own = {"seed": self.seed, "heads": heads, "task": str(self.task), "check": str(self.check)}
        return json.dumps({**asdict(self.recipe), **own, "more": self.identity}, sort_keys=True, default=str)

    def resume(self) -> None:
        """Continue from the folder's checkpoint if it is undamaged and has the same head, data, recipe, task and seed.

        Where it cannot be used although it should be, the training begins anew and notes why.
        """
        if self.folder is None or not (path := self.folder / LATEST).is_file():
            return
        try:
            tensors, about = load_tensors(path)
            if about.get("recipe") != self._identity():
                return
            self._continue_from(tensors, about)
        except (FsmmError, ValueError) as error:
            self.done = Training(notes=[f"{str(error).rstrip('.')}; the training began anew."])

    def _continue_from(self, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        """Take over a checkpoint's whole state. Raises ValueError, and changes nothing, where it does not fit."""
        head, best = _with_prefix(tensors, "head."), _with_prefix(tensors, "best.")
        for state in (head, best):
            if fault := unfitting(self.head.state_dict(), state):
                raise ValueError(f"The state of the interrupted training does not fit: {fault}")
        done = _parsed(about.get("training", ""))
        self._resume_optimiser(_with_prefix(tensors, "optimiser."))
        self.head.load_state_dict(head)
        self.best, self.done = best, done

    def _resume_optimiser(self, tensors: Mapping[str, Tensor]) -> None:
        whole = self.optimiser.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            number, name = key.split(".", 1)
            state.setdefault(int(number), {})[name] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def _parsed(text: str) -> Training:
    """The record of a training that a checkpoint holds. Raises ValueError where it is none."""
    try:
        found = Training(**parsed_json(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"The record of the interrupted training cannot be read ({error})") from None
    for name, usual in asdict(Training()).items():
        value = getattr(found, name)
        if not isinstance(value, (int, float) if isinstance(usual, float) else type(usual)):
            raise ValueError(f"The record of the interrupted training has a strange {name!r}")
    if not all(isinstance(entry, dict) for entry in found.curve):
        raise ValueError("The record of the interrupted training has a strange 'curve'")
    return found


def _diverged(step: int, how: str) -> FsmmError:
    return FsmmError(
        f"Training diverged at step {step} ({how}); lower the rate with --set train.rate=..., or clip gradients with "
        "--set train.clip_norm=1."
    )


def make_optimiser(head: Head, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser of the head's trainable weights.

    Raises FsmmError for an unknown optimiser and for a head without trainable weights.
    """
    weights = [p for p in head.parameters() if p.requires_grad]
    if not weights:
        raise FsmmError("This head has nothing to train; leave out training settings.")
    if recipe.optimiser == "adam":
        return torch.optim.Adam(weights, recipe.rate, weight_decay=recipe.weight_decay)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(weights, recipe.rate, weight_decay=recipe.weight_decay)
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(weights, recipe.rate, recipe.momentum, weight_decay=recipe.weight_decay)
    raise FsmmError(f"Optimiser {recipe.optimiser!r} is not known; use adam, adamw or sgd.")


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _state(head: Head) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in head.state_dict().items()}


def _mean(entries: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over the steps that have it; a training's turns may have figures of their own."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    return {name: float(np.mean([entry[name] for entry in entries if name in entry])) for name in names}
