"""The steps of a tuning: each is a function of the seed and its number, so that an interrupted one goes on alike."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import FsmmError
from ...machine.files import parsed_json
from ...machine.json_text import json_text
from ...machine.progress import reporter
from ...machine.tensors import load_tensors, save_tensors
from ..encoders.tunable import Tunable
from .batches import Batches
from .objectives import Objective
from .request import TuneRecipe

_SAVE_SECONDS = 60.0


class Trainer:
    """One tuning. weights: what is tuned of the tower. state: the file from which an interrupted tuning goes on.

    identity: what the tuning is; a state of another one is not continued.
    """

    def __init__(
        self,
        tower: Tunable,
        weights: Sequence[nn.Parameter],
        objective: Objective,
        batches: Batches,
        recipe: TuneRecipe,
        *,
        state: Path,
        identity: str,
    ) -> None:
        self.tower, self.weights, self.objective, self.batches = tower, list(weights), objective, batches
        self.recipe, self.state, self.identity = recipe, state, identity
        self.losses: list[float] = []
        own = list(objective.parameters())
        groups = [{"params": self.weights, "rate": recipe.tower_rate}]
        groups += [{"params": own, "rate": recipe.head_rate}] if own else []
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=recipe.weight_decay)

    def run(self, label: str) -> list[float]:
        """Take the steps that are left and return the losses of all. label: the name of the work in its progress.

        The state is written every minute, and where the tuning is interrupted. Raises FsmmError where a loss is not
        finite, or the memory does not suffice.
        """
        self.resume()
        saved = time.monotonic()
        with reporter(label) as shown, _repeatable(self.tower.device):
            try:
                while (step := len(self.losses)) < self.recipe.steps:
                    self.losses.append(self._step(step))
                    shown(step + 1, self.recipe.steps, f"loss {self.losses[-1]:.3f}")
                    if time.monotonic() - saved > _SAVE_SECONDS:
                        self.save()
                        saved = time.monotonic()
            except KeyboardInterrupt:
                self.save()
                raise
        self.save()
        return self.losses

    def _step(self, step: int) -> float:
        torch.manual_seed(self.batches.seed * 1_000_003 + step)  # for dropout, and for what is masked
        try:
            return self._taken(step)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
                raise
            raise FsmmError(
                f"The memory does not suffice for a step of {self.recipe.batch} clips; lower --batch or --frames, or "
                "tune fewer --blocks."
            ) from None

    def _taken(self, step: int) -> float:
        device = self.tower.device
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * (1 + math.cos(math.pi * step / self.recipe.steps)) / 2
        batch = self.batches.batch(step, device)
        half = self.recipe.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
            loss = self.objective(self.tower, self.tower.embed, batch)
        value = loss.item()
        if not math.isfinite(value):
            raise FsmmError(
                f"The loss of step {step} is not finite; lower --encoder-rate and --head-rate, or raise --temperature."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return value

    def _learned(self) -> dict[str, Tensor]:
        """The tensors that steps change, by name."""
        tower = {f"tower.{number}": weight for number, weight in enumerate(self.weights)}
        return tower | {f"objective.{name}": value for name, value in self.objective.state_dict().items()}

    def save(self) -> None:
        """Write the state, whole or absent. Raises OSError where it cannot be written."""
        tensors = self._learned()
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{key}": torch.as_tensor(value) for key, value in values.items()}
        save_tensors(self.state, tensors, {"identity": self.identity, "losses": json_text(self.losses)})

    def resume(self) -> None:
        """Go on from the state, where there is one of this very tuning that is undamaged."""
        if not self.state.is_file():
            return
        try:
            tensors, about = load_tensors(self.state)
            losses = parsed_json(about.get("losses", ""))
        except (FsmmError, ValueError):
            return
        own = self._learned()
        fits = all(name in tensors and tensors[name].shape == value.shape for name, value in own.items())
        if about.get("identity") != self.identity or not fits:
            return
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[name])
        self.optimiser.load_state_dict(self._optimiser_state(tensors))
        self.losses = [float(loss) for loss in losses]

    def _optimiser_state(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".")
                state.setdefault(int(number), {})[key] = value
        return {"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]}


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Let a GPU use operations that give one result each time, as far as there are such."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Some operations of video networks have no such form, and say so each time.
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
