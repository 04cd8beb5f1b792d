"""What a step reads: which clips, and which of their frames, as a function of the seed and the step's number alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import UsageError
from .request import TuneRecipe
from .store import ClipStore
from .views import views_of


@dataclass(frozen=True, kw_only=True)
class Batch:
    """M clips with V views of each, on the device of the network."""

    frames: Tensor
    """The views, float32 from 0 to 255, [V, M, F, ..., S, S, 3]."""
    rows: Tensor
    """Which clips of the store they are, int64 [M] on the CPU."""
    label: Tensor | None
    """Their base classes, int64 [M] or float32 [M, C]; None where labels are not read."""


class Batches:
    """The batches of a tuning.

    label: the labels of the store's clips, or None. views: the number V. whole: whether all steps of a clip are read.
    episodic: whether a batch holds the clips of one episode, class by class, the supports of each before its queries.
    Raises UsageError where the clips cannot serve that.
    """

    def __init__(
        self,
        store: ClipStore,
        label: np.ndarray | None,
        recipe: TuneRecipe,
        *,
        views: int,
        whole: bool,
        episodic: bool,
        seed: int,
    ) -> None:
        self.store, self.recipe, self.label = store, recipe, label
        self.views, self.whole, self.episodic, self.seed = views, whole, episodic, seed
        self.members = self._members() if episodic else []
        if views > 1 and len(store) < 2:
            raise UsageError(
                "Two clips are needed at least, since each is told from the others; there is one."
            )

    def _members(self) -> list[np.ndarray]:
        """The clips of each class that has enough of them for an episode."""
        assert self.label is not None, "episodes are made of labelled clips"
        if self.label.ndim > 1:
            raise UsageError(
                "Objective 'joint' needs one label a clip, and these clips may have several; take supervised."
            )
        recipe = self.recipe
        needed = recipe.k_shot + recipe.n_query
        groups = [np.flatnonzero(self.label == c) for c in np.unique(self.label)]
        found = [group for group in groups if len(group) >= needed]
        if len(found) < recipe.n_way:
            raise UsageError(
                f"An episode needs {recipe.n_way} base classes of {needed} readable clips, and {len(found)} have as "
                "many; lower --n-way, --k-shot or --n-query."
            )
        return found

    def batch(self, step: int, device: torch.device) -> Batch:
        """The batch of a step."""
        chance = np.random.default_rng((self.seed, step))
        rows = self._episode(chance) if self.episodic else self._some(chance)
        frames = np.stack([self.store.take(rows, self._steps(chance, len(rows))) for _ in range(self.views)])
        looks = torch.Generator().manual_seed(int(chance.integers(2**62)))
        moved = torch.from_numpy(frames).flatten(0, 1).to(device)
        seen = views_of(moved, self.recipe, looks).view(frames.shape)
        label = None if self.label is None else torch.from_numpy(self.label[rows]).to(device)
        return Batch(frames=seen, rows=torch.from_numpy(rows), label=label)

    def _some(self, chance: np.random.Generator) -> np.ndarray:
        return chance.permutation(len(self.store))[: self.recipe.batch]

    def _episode(self, chance: np.random.Generator) -> np.ndarray:
        recipe = self.recipe
        classes = chance.permutation(len(self.members))[: recipe.n_way]
        needed = recipe.k_shot + recipe.n_query
        return np.concatenate([chance.permutation(self.members[c])[:needed] for c in classes])

    def _steps(self, chance: np.random.Generator, clips: int) -> np.ndarray:
        """The steps [M, F] that are read of each clip, in their order."""
        total = self.store.steps
        count = total if self.whole else min(self.recipe.frames, total)
        drawn = chance.random((clips, total)).argsort(1)[:, :count]
        return np.sort(drawn, 1)
