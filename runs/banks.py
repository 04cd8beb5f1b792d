"""The feature banks of one run, all prepared in the same way and loaded on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch

from ..cache.alignment import Alignment
from ..cache.bank import FeatureBank, choose_streams, word_key
from ..cache.catalog import Catalog
from ..cache.relations.graph import graph_digest
from ..cache.relations.terms import RESERVED
from ..cache.sample import Sample
from ..cache.schema import StreamName, dataset_folder, default_cache
from ..cache.stream import stream_checks
from ..errors import CacheError, NoClips, UsageError
from ..heads.registry import Method, find
from ..machine.device import pick_device, pick_dtype
from .digest import digest
from .job import Place
from .normalisation import NormalisationChoice, choose_normalisation, prepared
from .other_training import OtherTraining
from .pretraining import training_sets
from .shared import SharedBanks
from .spec import RunSpec
from .word_order import WORDS_BY, words_by_position
from .zero_shot import held_out

_ALL_STEPS = 1 << 20
_OTHER = "training"
"""The key of the base clips where they are another data set's."""


class HeadBanks(Interface):
    """What a head is built of: the clips of its classes, on one device."""

    @property
    def method(self) -> Method:
        """The method's row of the registry."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of all clips."""
        ...

    @property
    def base(self) -> FeatureBank:
        """The clips that train."""
        ...

    @property
    def test(self) -> FeatureBank:
        """The clips that judge."""
        ...

    @property
    def val(self) -> FeatureBank | None:
        """The clips of the val classes; None where the class split has none."""
        ...

    def base_sample(self, sample: Sample) -> FeatureBank:
        """A sample of the clips that train."""
        ...


class Banks:
    """The test, base, val and unlabelled clips of ``spec``, read from the cache of ``place``, on its device.

    method: the row of the table of methods; its name is looked up once a run, by this class.
    normalise: how features are normalised; choice: why, where base and val classes chose it.
    shared: the banks that several runs share; None where the run is alone.
    steps: the number of steps that longer sequences are averaged down to; None takes the banks' own.
    other: the data set whose classes take the place of the base classes; None where they are the tested data set's.
    For generalised zero-shot, the base clips are split into those of training and those on which S is measured.
    Raises UsageError and CacheError where the method, the device or the test clips cannot be had.
    """

    def __init__(
        self, spec: RunSpec, place: Place, shared: SharedBanks | None = None, *, steps: int | None = None
    ) -> None:
        self.spec, self.device, self._shared = spec, pick_device(place.device), shared
        self._steps = steps
        self.cache = default_cache() if place.cache is None else place.cache
        self.folder = dataset_folder(self.cache, place.dataset)
        self.method = spec.resolved
        self._raw: dict[str, FeatureBank] = {}
        self._ready: dict[str, FeatureBank] = {}
        self.other = self._other_training()
        self._base = "base" if self.other is None else _OTHER
        self.choice = self._chosen() if spec.normalise == "auto" else None
        self.normalise = spec.normalise if self.choice is None else self.choice.pick
        self.test = self._bank(spec.protocol.split)

    @property
    def base(self) -> FeatureBank:
        """The base clips of training."""
        return self._seen(0) if self.spec.protocol.generalised else self._bank(self._base)

    def base_sample(self, sample: Sample) -> FeatureBank:
        """A sample of the base clips; where the others are not in memory, they are not read for it.

        The clips are the same in either case. Raises NoClips where there are no base clips.
        """
        learns = self.method.learns(self.spec.settings)
        all_needed = self.method.fits_base or learns or self.normalise == "centre-l2"
        if all_needed or self.spec.protocol.generalised or self._base in self._raw:
            base = self.base
            rows = np.arange(len(base)) if base.multi else sample.rows(base.label.cpu().numpy())
            return base if len(rows) == len(base) else base.rows(rows)
        return prepared(self._read(self._base, sample), self.normalise, pools=self._pools)

    @cached_property
    def training_sets(self) -> list[str]:
        """The training sets of the test clips' encoders, as far as their classes are known."""
        return training_sets(self.folder, self.test)

    @property
    def all_base(self) -> FeatureBank:
        """All base clips, those that generalised tests hold out of training among them."""
        return self._bank(self._base)

    @property
    def seen(self) -> FeatureBank:
        """The base clips that are held out of training, on which generalised zero-shot measures S."""
        return self._seen(1)

    @property
    def val(self) -> FeatureBank | None:
        """The val clips, or None where the class split has no val classes; training then runs to its end."""
        try:
            return self._bank("val")
        except NoClips:
            return None

    @property
    def unlabelled(self) -> FeatureBank | None:
        """The clips without labels, or None where the protocol gives none to heads."""
        return self._bank("unlabelled") if self.spec.protocol.unlabelled else None

    @property
    def reads_base(self) -> bool:
        """Whether the head takes anything from base classes: weights, statistics, or how features are scaled."""
        learns = self.method.learns(self.spec.settings) or self.method.fits_base
        weighs = (
            self.spec.settings.get("fusion.weights") == "base" or self.spec.settings.get("weights") == "base"
        )
        joins = len(self.test.tables) > 1 and self.method.modalities == "one"
        return learns or weighs or joins or self.normalise == "centre-l2" or self.choice is not None

    @property
    def relations(self) -> str | None:
        """The relation graph that the head's setting ``graph`` names, or None.

        Raises UsageError where training classes are another data set's, whose classes the graph does not relate.
        """
        graph = self.spec.settings.get("graph", RESERVED[0])
        if not self.method.relations or graph in RESERVED:
            return None
        if self.other is not None:
            raise UsageError(
                f"Relation graph {graph!r} relates the classes of one data set; use graph=words with --train-dataset."
            )
        return graph

    def training_notes(self) -> list[str]:
        """Sentences about the classes that the head trains on; none where they are the tested data set's."""
        if self.other is None:
            return []
        if not self.reads_base:
            return [
                f"{self.spec.method} takes nothing from training classes, so --train-dataset changes nothing."
            ]
        return [*self.other.notes]

    def training_groups(self) -> list[str]:
        """Digests of the base and val clips with their groups, on which training depends where episodes rule groups."""
        return [bank.fingerprint(groups=True) for bank in (self.base, self.val) if bank is not None]

    def training_data(self) -> dict[str, Any]:
        """The streams of the base and val clips, and digests of these clips, their features and their class words.

        The features' digest is made of the checksums that the shards have of them, so that it is the same on any
        machine and costs no reading of features.
        """
        banks = [bank for bank in (self.base, self.val) if bank is not None]
        folders = [self.folder.parent / bank.dataset for bank in banks]
        ids = {folder: Catalog.read(folder).clip_id for folder in dict.fromkeys(folders)}
        clips = [
            [bank.class_names, [ids[folder][row] for row in bank.clip_row], bank.label.tolist()]
            for bank, folder in zip(banks, folders)
        ]

        def checks(stream: StreamName, keys: Sequence[Sequence[str]]) -> list[list[int | None]]:
            held = {folder: stream_checks(folder, stream) for folder in ids}
            return [[held[folder].get(key) for key in part] for folder, part in zip(folders, keys)]

        named = [part for _, part, _ in clips]
        features = {str(stream): checks(stream, named) for stream in self.base.streams.values()}
        words = self.base.word_stream
        keys = [[word_key(bank.label_set, name) for name in bank.class_names] for bank in banks]
        said = [[None] * len(part) for part in keys] if words is None else checks(words, keys)
        return {
            "streams": {key: str(stream) for key, stream in self.base.streams.items()},
            "words": None if words is None else str(words),
            "clips": digest({"clips": clips}),
            "features": digest(features),
            "class words": digest({"checks": said}),
            **({} if self.relations is None else {"relations": graph_digest(self.folder, self.relations)}),
            **({"files": files} if (files := self.spec.files) else {}),
        }

    def with_all_steps(self) -> FeatureBank:
        """The test clips with all their steps, as they are in the cache: :meth:`prepare` brings them to a head."""
        return self._read(self.spec.protocol.split, steps=_ALL_STEPS)

    def prepare(self, bank: FeatureBank) -> FeatureBank:
        """Test clips as the head reads them, normalised as this run's are."""
        means = self._load(self._base).means() if self.normalise == "centre-l2" else None
        return prepared(bank, self.normalise, pools=self._pools, means=means)

    def _seen(self, which: int) -> FeatureBank:
        if "seen 0" not in self._ready:
            self._ready["seen 0"], self._ready["seen 1"] = held_out(
                self._bank(self._base), self.spec.protocol.seed
            )
        return self._ready[f"seen {which}"]

    def _bank(self, split: str) -> FeatureBank:
        if split not in self._ready:
            base = self._load(self._base) if self.normalise == "centre-l2" else None
            means, bank = None if base is None else base.means(), self._load(split)
            if self._shared is None:
                self._ready[split] = prepared(bank, self.normalise, pools=self._pools, means=means)
            else:
                self._ready[split] = self._shared.prepared(
                    bank, self.normalise, pools=self._pools, means=means, means_of=base
                )
        return self._ready[split]

    @property
    def _pools(self) -> bool:
        return not self.spec.reads_time

    def _chosen(self) -> NormalisationChoice:
        """The normalisation that the base and val classes choose; one of the two may be missing."""

        def held(split: str) -> FeatureBank | None:
            try:
                return self._load(split)
            except (NoClips, UsageError):
                return None

        late = "lf" in (self.spec.fusion, find(self.spec.method)[1])
        return choose_normalisation(
            held(self._base), held("val"), self.spec.protocol, pools=self._pools, late=late
        )

    def _other_words(self, *, own: bool) -> dict[str, str]:
        """The class whose words each class gets, where it is not its own; none for classes of another data set."""
        if not own or not self.spec.settings.get(WORDS_BY):
            return {}
        labels = Catalog.read(self.folder)
        return words_by_position(
            self.spec.settings,
            labels.labels(self.spec.protocol.label_set or labels.default_label_set).class_names,
        )

    def _load(self, split: str) -> FeatureBank:
        if split not in self._raw:
            self._raw[split] = self._read(split)
        return self._raw[split]

    def _read(self, split: str, sample: Sample | None = None, *, steps: int | None = None) -> FeatureBank:
        """The clips of a split, or a sample of them without class words, from the cache.

        steps: longer sequences are averaged down to so many; these keep their steps whatever the method reads.
        """
        spec, extra = self.spec, split == "unlabelled"
        no_words = extra or sample is not None
        needs_steps = spec.reads_time or spec.normalise in ("per-step", "auto") or steps is not None
        choice: dict[str, Any] = {
            "dataset": self.folder.name,
            "label_set": spec.protocol.label_set,
            "class_split": spec.protocol.class_split,
            "clip_split": spec.protocol.clip_split if split == spec.protocol.split else None,
            "words": None if no_words or self.method.words == "no" else spec.words,
            "device": self.device,
            "dtype": pick_dtype(spec.dtype),
            "unlabelled": extra,
            "sample": sample,
        }
        if self.relations is not None:
            choice["relations"] = self.relations
        if most := steps or self._steps:
            choice["max_steps"] = most
        names: Sequence[str] | None = spec.streams or spec.modalities
        part = "all" if extra else split
        if self.other is not None and split == _OTHER:
            part = self.other.split
            names = [*map(str, choose_streams(self.folder, names).values())]
            choice |= self._other_choice(self.other, pooled=not needs_steps, no_words=no_words)
        if spec.align is not None:
            folder = dataset_folder(self.cache, choice["dataset"])
            choice["align"] = Alignment.parse(spec.align, choose_streams(folder, names))
        if others := self._other_words(own=self.other is None or split != _OTHER):
            choice["words_of"] = tuple(sorted(others.items()))
        if self._shared is None:
            bank = FeatureBank.load(self.cache, names, part, **choice)
            bank = bank if needs_steps else bank.pooled()
        else:
            bank = self._shared.load(self.cache, names, part, pooled=not needs_steps, **choice)
        if others and bank.words is not None:
            count = sum(others.get(name, name) != name for name in bank.class_names)
            note = (
                f"{count} of {len(bank.class_names)} {split} classes get another class's words, by position."
            )
            bank = replace(bank, notes=[*bank.notes, note])
        if self.method.words == "needed" and bank.no_words and not no_words:
            raise CacheError(f"Method {spec.method!r} needs class words. {bank.no_words}")
        if self.other is not None and split == _OTHER:
            bank = self.other.without_left_out(bank)
        return bank.select(spec.modalities) if spec.modalities else bank

    def _other_choice(self, other: OtherTraining, *, pooled: bool, no_words: bool) -> dict[str, Any]:
        """What the clips of the other data set are read with: as many steps at most as the tested ones have."""
        tested = self._load(self.spec.protocol.split)
        words = tested.word_stream
        choice: dict[str, Any] = {
            "dataset": other.name,
            "label_set": other.label_set,
            "class_split": other.class_split,
            "words": None if no_words or words is None else str(words),
        }
        if not pooled:
            choice["max_steps"] = max(table.steps for table in tested.tables.values())
        return choice

    def _other_training(self) -> OtherTraining | None:
        """The training classes of another data set, where the run names one that is not the tested one."""
        name, protocol = self.spec.train_dataset, self.spec.protocol
        if name is None or name == self.folder.name:
            return None
        if protocol.generalised:
            raise UsageError(
                "Generalised zero-shot measures seen classes of the tested data set; leave out --train-dataset."
            )
        streams = choose_streams(self.folder, self.spec.streams or self.spec.modalities)
        return OtherTraining.of(
            self.cache, name, own=self.folder, streams=[*streams.values()], protocol=protocol
        )
