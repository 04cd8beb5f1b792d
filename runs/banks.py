"""The feature banks of one run, all prepared alike and loaded when first asked for."""

from __future__ import annotations

from pathlib import Path

import torch

from ..cache.bank import FeatureBank
from ..cache.schema import dataset_folder, default_cache
from ..errors import CacheError
from ..heads.build import needs_sequences
from ..heads.registry import find
from ..machine.device import pick_dtype
from .spec import RunSpec
from .zero_shot import held_out


class Banks:
    """Test, base, val and unlabelled clips of ``spec`` on one device.

    For generalised zero-shot, base is split into what training sees and what S is measured on.
    """

    def __init__(
        self, spec: RunSpec, cache: Path | str | None, dataset: str | None, device: torch.device
    ) -> None:
        self.spec, self.device = spec, device
        self.cache = default_cache() if cache is None else Path(cache)
        self.folder = dataset_folder(self.cache, dataset)
        self.method, _ = find(spec.method)
        self.sequences = needs_sequences(spec.method)
        self._raw: dict[str, FeatureBank] = {}
        self._ready: dict[str, FeatureBank] = {}
        self.test = self._bank(spec.protocol.split)

    @property
    def base(self) -> FeatureBank:
        """What training sees."""
        return self._seen(0) if self.spec.protocol.generalised else self._bank("base")

    @property
    def seen(self) -> FeatureBank:
        """Base clips kept from training, for S."""
        return self._seen(1)

    @property
    def val(self) -> FeatureBank | None:
        """None where the class split has no val classes: training then runs to its end."""
        try:
            return self._bank("val")
        except CacheError:
            return None

    @property
    def unlabelled(self) -> FeatureBank | None:
        return self._bank("unlabelled") if self.spec.protocol.unlabelled else None

    def _seen(self, which: int) -> FeatureBank:
        if "seen 0" not in self._ready:
            self._ready["seen 0"], self._ready["seen 1"] = held_out(
                self._bank("base"), self.spec.protocol.seed
            )
        return self._ready[f"seen {which}"]

    def _bank(self, split: str) -> FeatureBank:
        if split not in self._ready:
            means = self._load("base").means() if self.spec.normalise == "centre-l2" else None
            self._ready[split] = self._load(split).normalised(self.spec.normalise, means)
        return self._ready[split]

    def _load(self, split: str) -> FeatureBank:
        if split in self._raw:
            return self._raw[split]
        spec, extra = self.spec, split == "unlabelled"
        bank = FeatureBank.load(
            self.cache,
            spec.streams or spec.modalities,
            "all" if extra else split,
            dataset=self.folder.name,
            label_set=spec.protocol.label_set,
            class_split=spec.protocol.class_split,
            clip_split=spec.protocol.clip_split if split == spec.protocol.split else None,
            words=None if extra or self.method.words == "no" else spec.words,
            device=self.device,
            dtype=pick_dtype(spec.dtype),
            unlabelled=extra,
        )
        if spec.modalities:
            bank = bank.select(spec.modalities)
        self._raw[split] = bank if self.sequences else bank.pooled()
        return self._raw[split]
