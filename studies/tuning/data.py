"""What a tuning may look at: the clips of base and val classes, and their divisions. No novel clip is ever read.

A part is one way to try a setting: some classes train, some stop the training, and others judge it. The plain part
trains on the base classes and is judged on the val classes. Where these are few, folds of the base classes play val in
turn, and other class splits divide the same clips otherwise; a class that is novel in the split that will be tested
takes no part in any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ...cache.bank import FeatureBank
from ...cache.catalog import Catalog
from ...cache.sample import Sample
from ...cache.table import Stream, Table, TensorTable
from ...episodes.draw import query_room
from ...episodes.protocol import Protocol, bounds
from ...errors import NoClips, UsageError, listed
from ...heads.registry import Method
from ...runs.banks import Banks
from ...runs.job import Place
from ...runs.normalisation import of_classes, prepared
from ...runs.spec import RunSpec
from ...runs.tasks import VALIDATION_SEED

FEW = 20
"""Fewer val classes than this are a poor guide, so that folds of the base classes are judged beside them."""
MOST_FOLDS = 5
_SEED = (
    700_001  # It is added to the seeds of validation, so that no early stop is judged by its own episodes.
)


@dataclass(frozen=True, kw_only=True)
class TuningData:
    """The clips that a tuning reads. It has no cache, no catalog and no clip of a novel class."""

    base: FeatureBank
    """The clips of the base classes."""
    val: FeatureBank | None
    """The clips of the val classes; None where there are none."""
    method: Method
    """The method's row of the registry."""
    centred: bool
    """Whether the mean of a part's training clips is still to be subtracted, and features to be scaled."""
    codes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """What each class, by its index in the label set, is in further class splits: 1 for base, 2 for val."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Digests of clips and features."""
    notes: Sequence[str] = ()
    """Sentences that a reader of the result should see."""

    @property
    def modalities(self) -> int:
        """The number of modalities that heads are built for."""
        return len(self.base.tables)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One division of the clips into those that train, those that stop the training, and those that judge."""

    name: str
    """What judges: val, or a fold of the base classes, of a class split."""
    split: str
    """The class split that it belongs to."""
    base: FeatureBank
    """The clips that train."""
    val: FeatureBank | None
    """The clips on which training stops; None where there are none."""
    test: FeatureBank
    """The clips that judge."""
    method: Method
    """The method's row of the registry."""

    @property
    def device(self) -> torch.device:
        """The device of all clips."""
        return self.base.device

    def base_sample(self, sample: Sample) -> FeatureBank:
        """A sample of the clips that train."""
        base = self.base
        rows = np.arange(len(base)) if base.multi else sample.rows(base.label.cpu().numpy())
        return base if len(rows) == len(base) else base.rows(rows)


def tuning_data(spec: RunSpec, place: Place, class_splits: Sequence[str] = ()) -> TuningData:
    """The clips of base and val classes for a run.

    class_splits: further class splits of the label set whose divisions of these clips are used.
    Raises UsageError for a run that is tested on classes that a tuning reads, or an unknown class split; NoClips where
    there are no base classes.
    """
    if spec.protocol.split != "novel":
        raise UsageError(
            f"A tuning reads base and val classes, for a test on novel ones; it cannot serve --split "
            f"{spec.protocol.split}."
        )
    banks = _banks(spec, place)
    base, val = banks.base, banks.val
    codes = _codes(banks, base, class_splits) if class_splits else {}
    chosen = f"Features are scaled by {banks.normalise}, as base and val classes chose."
    return TuningData(
        base=base,
        val=val,
        method=banks.method,
        centred=spec.normalise == "centre-l2",
        codes=codes,
        identity=banks.training_data(),
        notes=[*base.notes, *banks.training_notes(), *([chosen] if banks.choice else [])],
    )


def _banks(spec: RunSpec, place: Place) -> Banks:
    """The banks of a run on val classes, or on base classes where there are none; novel clips are not among them.

    Features are left as they are where each part subtracts a mean of its own.
    """
    unscaled = replace(spec, normalise="none") if spec.normalise == "centre-l2" else spec
    protocol = replace(spec.protocol, split="val", clip_split=None, unlabelled=0, generalised=False)
    try:
        return Banks(replace(unscaled, protocol=protocol), place)
    except NoClips:
        return Banks(replace(unscaled, protocol=replace(protocol, split="base")), place)


def _codes(banks: Banks, base: FeatureBank, names: Sequence[str]) -> dict[str, dict[int, int]]:
    """What each class is in further class splits."""
    if banks.other is not None:
        raise UsageError(
            "Further class splits divide the tested data set's clips; leave out --train-dataset."
        )
    labels = Catalog.read(banks.folder).labels(base.label_set)
    codes = {name: labels.codes(name) for name in names}
    return {name: dict(enumerate(held.tolist())) for name, held in codes.items() if name != base.class_split}


def parts_of(data: TuningData, protocol: Protocol, folds: int | None) -> list[Part]:
    """The parts of a tuning, those of the tested class split first.

    folds: into how many folds base classes are divided, 0 for none; None: as many as leave a fold the ways of a task,
    where there are fewer val classes than FEW. Raises UsageError where nothing can judge.
    """
    found = _parts(
        data,
        base=data.base,
        val=data.val,
        split=data.base.class_split,
        protocol=protocol,
        folds=folds,
    )
    if data.codes and data.val is not None:
        pool = joined(data.base, data.val)
        for name, codes in data.codes.items():
            base, val = (_coded(pool, codes, code) for code in (1, 2))
            if base is not None:
                found += _parts(data, base=base, val=val, split=name, protocol=protocol, folds=folds)
    if not found:
        raise UsageError(
            "There are no val classes, and too few base classes to let folds of them play val; a tuning needs either."
        )
    return found


def _parts(
    data: TuningData,
    *,
    base: FeatureBank,
    val: FeatureBank | None,
    split: str,
    protocol: Protocol,
    folds: int | None,
) -> list[Part]:
    """The parts of one class split."""
    count = _folds(base, val, protocol) if folds is None else folds
    if base.multi and folds:
        raise UsageError("Folds need one label a clip; leave out --folds.")
    found = [] if val is None else [(f"{split}: val", base, val, val)]
    classes = len(base.class_names)
    if count and classes < 2 * count:
        raise UsageError(
            f"{classes} base classes cannot be divided into {count} folds of two; lower --folds."
        )
    order = np.random.Generator(np.random.Philox(protocol.seed)).permutation(classes)
    for number in range(count):
        fold = of_classes(base, np.sort(order[number::count]))
        rest = of_classes(base, np.sort(np.delete(order, np.s_[number::count])))
        found.append((f"{split}: fold {number + 1} of {count}", rest, fold if val is None else val, fold))
    return [
        _prepared(Part(name=name, split=split, base=train, val=stop, test=test, method=data.method), data)
        for name, train, stop, test in found
    ]


def _folds(base: FeatureBank, val: FeatureBank | None, protocol: Protocol) -> int:
    """The number of folds where none is given."""
    if base.multi or (val is not None and len(val.class_names) >= FEW):
        return 0
    classes, way = len(base.class_names), max(bounds(protocol.n_way)[1], 2)
    return 0 if classes < 4 else min(max(classes // way, 2), MOST_FOLDS)


def _prepared(part: Part, data: TuningData) -> Part:
    """The part with its features centred by the mean of those that train, where a run would centre them."""
    if not data.centred:
        return part
    means, pools = part.base.means(), not data.method.reads_time

    def scaled(bank: FeatureBank) -> FeatureBank:
        return prepared(bank, "centre-l2", pools=pools, means=means)

    val = None if part.val is None else scaled(part.val)
    return replace(part, base=scaled(part.base), val=val, test=scaled(part.test))


def _coded(pool: FeatureBank, codes: Mapping[int, int], code: int) -> FeatureBank | None:
    """The clips of the classes that have a code in a class split; None where fewer than two have it."""
    kept = [place for place, index in enumerate(pool.class_id.tolist()) if codes.get(index) == code]
    return of_classes(pool, np.array(kept)) if len(kept) > 1 else None


def joined(first: FeatureBank, second: FeatureBank) -> FeatureBank:
    """The clips of two banks of one data set whose classes differ, with those of the first in front."""
    tables: dict[str, Table] = {}
    for key, table in first.tables.items():
        both = [_whole(each) for each in (table, second.tables[key])]
        steps = max(stream.x.shape[1] for stream in both)
        x = torch.cat([torch.nn.functional.pad(s.x, (0, 0, 0, steps - s.x.shape[1])) for s in both])
        present, length = (torch.cat([getattr(s, name) for s in both]) for name in ("present", "length"))
        tables[key] = TensorTable(x, length, present)
    words = [bank.words for bank in (first, second)]
    return replace(
        first,
        split="base and val",
        tables=tables,
        label=torch.cat([first.label, second.label + len(first.class_names)]),
        class_names=[*first.class_names, *second.class_names],
        class_id=torch.cat([first.class_id, second.class_id]),
        clip_row=np.concatenate([first.clip_row, second.clip_row]),
        groups=np.concatenate([first.groups, second.groups]),
        clip_id=np.concatenate([first.clip_id, second.clip_id]),
        clip_file=np.concatenate([first.clip_file, second.clip_file]),
        words=None if any(each is None for each in words) else torch.cat([w for w in words if w is not None]),
    )


def _whole(table: Table) -> Stream:
    """All clips of a table."""
    return table.gather(torch.arange(len(table), device=table.length.device))


def judging_protocol(protocol: Protocol, bank: FeatureBank) -> Protocol:
    """The protocol by which a part is judged: the evaluated task with as many ways and queries as its classes have."""
    classes = len(bank.class_names)
    low, high = bounds(protocol.n_way)
    spare = int(np.quantile(query_room(bank, protocol, bounds(protocol.k_shot)[1]), 0.25))
    return replace(
        protocol,
        split="val",
        n_way=protocol.n_way if high <= classes else min(low, classes),
        n_query=max(min(protocol.n_query, spare), 1),
        seed=protocol.seed + VALIDATION_SEED + _SEED,
        small_classes="exclude",
        unlabelled=0,
        generalised=False,
        clip_split=None,
    )


def about_parts(parts: Sequence[Part]) -> str:
    """A sentence that names the parts and the classes that judge in each."""
    told = [f"{part.name} ({len(part.test.class_names)} classes)" for part in parts]
    return f"Settings are judged on {listed(told)}."
