"""A base set: clips of other classes, from which a user's classifier may learn what its few examples cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.catalog import Catalog
from ...cache.schema import StreamName
from ...episodes.protocol import Protocol, TooFew
from ...errors import NoClips, UsageError
from ...heads.head import Head
from ...heads.multimodal.weights import HasWeights
from ...heads.settings import Recipe, update_settings
from ..normalisation import prepared
from ..ready import learns
from ..tasks import training_protocol
from ..train import train
from .fitted import FittedHead, HeadChoice

CENTRED = ("protonet", "ridge")
"""The methods that are also tried on features from which the base set's mean is subtracted."""
FITTED = ("simpleshot",)
"""The methods that take closed-form statistics of the base set, and are tried with one."""
TRAINED = {"feat": {"train.steps": "200"}}
"""The methods that are trained on the base set and tried, with their settings."""


@dataclass(frozen=True, kw_only=True)
class BaseSet:
    """The clips of base classes, and of val classes where there are some, as they are in the cache."""

    base: FeatureBank
    """The base clips, with their steps."""
    val: FeatureBank | None
    """The val clips, by which a training is ended; None where there are none."""
    name: str
    """CACHE/DATASET, as it was named."""

    @classmethod
    def load(
        cls,
        named: Path | str,
        streams: Mapping[str, StreamName],
        dims: Mapping[str, int],
        words: str | None = None,
    ) -> BaseSet:
        """The base set CACHE/DATASET in the streams of the examples.

        streams: the stream of each modality, where it is known; dims: the width of each modality; words: the stream of
        class words, if any. The base classes of the default class split are taken, or all where there is no split.
        Raises UsageError where it is no data set of a cache or lacks a stream.
        """
        place = Path(named).expanduser()
        if not (place / "catalog.h5").is_file():
            raise UsageError(
                f"The base set {str(named)!r} is no data set of a cache; name one as CACHE/DATASET, such as "
                "fsmm-demo/cache/demo."
            )
        split = "base" if Catalog.read(place).labels().splits else "all"
        wanted = [str(streams[m]) if m in streams else m for m in dims]
        base = FeatureBank.load(place.parent, wanted, split, dataset=place.name, words=words)
        for m, dim in dims.items():
            if base.tables[m].dim != dim:
                raise UsageError(
                    f"The base set has {m} features of width {base.tables[m].dim} and the examples of width {dim}; "
                    "both need the same encoder."
                )
        try:
            val = FeatureBank.load(place.parent, wanted, "val", dataset=place.name, words=words)
        except (NoClips, UsageError):
            val = None
        if base.multi:
            raise UsageError(f"The base set {str(named)!r} has several labels a clip; one a clip is needed.")
        return cls(base=base, val=val if split == "base" else None, name=str(named))

    def means(self) -> dict[str, Tensor]:
        """The mean feature [D] by modality."""
        return self.base.means()

    def read(self, choice: HeadChoice, *, val: bool = False) -> FeatureBank | None:
        """The base clips, or the val clips, as a head of this choice reads them."""
        bank = self.val if val else self.base
        if bank is None:
            return None
        own = bank.select(choice.modalities)
        return prepared(own, choice.normalise, pools=choice.pools, means=self.means())


def base_candidates(modalities: Sequence[str]) -> list[HeadChoice]:
    """The heads that a base set makes possible."""
    several = len(modalities) > 1
    found = [
        HeadChoice(method=method, fusion=how, modalities=tuple(modalities), normalise="centre-l2")
        for method in CENTRED
        for how in (("lf", "ec") if several else (None,))
    ]
    fusion = "ec" if several else None
    found += [HeadChoice(method=m, fusion=fusion, modalities=tuple(modalities)) for m in FITTED]
    found += [
        HeadChoice(method=method, fusion=fusion, modalities=tuple(modalities), settings=settings)
        for method, settings in TRAINED.items()
    ]
    return found


def learn(
    fitted: FittedHead,
    base: BaseSet,
    *,
    seed: int = 0,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> None:
    """Let a head take from the base set what it can: modality weights, closed-form statistics, and training."""
    head, choice, bank = fitted.head, fitted.choice, base.read(fitted.choice)
    assert bank is not None, "there is always a base bank"
    task = _task(fitted, bank)
    _fit_weights(head, bank, task)
    if choice.row.fits_base:
        head.fit_base(bank)
    if choice.row.fits_val and (val := base.read(choice, val=True)) is not None:
        head.fit_val(val)
    if not learns(head):
        return
    given = {k.removeprefix("train."): v for k, v in choice.settings.items() if k.startswith("train.")}
    if "steps" in given:
        given = {"ceiling": "1", **given}
    recipe: Recipe = update_settings(head.recipe, given, f"the training of {choice.method}")
    torch.manual_seed(seed)
    train(
        head,
        bank,
        base.read(choice, val=True),
        task,
        recipe=recipe,
        seed=seed,
        progress=progress,
    )
    head.eval()


def _task(fitted: FittedHead, bank: FeatureBank) -> Protocol:
    """The user's task as a protocol over base classes."""
    shots = torch.bincount(fitted.label, minlength=len(fitted.class_names)).double().median()
    return Protocol(
        n_way=min(len(fitted.class_names), len(bank.class_names)),
        k_shot=max(int(shots), 1),
        n_query=10,
        small_classes="exclude",
    )


def _fit_weights(head: Head[Any], bank: FeatureBank, task: Protocol) -> None:
    if isinstance(head, HasWeights) and head.fits_weights and len(bank.tables) > 1:
        try:
            head.fit_weights(bank, training_protocol(task, Recipe(), bank, seed=0))
        except TooFew:
            return
