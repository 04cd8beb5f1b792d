"""A run leads from a cache to a figure: it loads, trains where the method learns, evaluates and stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..cache.bank import FeatureBank
from ..episodes.episode_file import EpisodeFile
from ..episodes.protocol import Missing, Protocol
from ..errors import UsageError
from ..heads.head import Head
from .banks import Banks
from .extent import Extent, planned
from .filling import READ_FEATURES, BaseClips
from .filling_choice import Filled, filled_test
from .filling_promise import with_ways_beside
from .frozen_space import frozen_space
from .job import Job, Place
from .kept_and_lost import KeptAndLost
from .layout import RUNS
from .leakage import leakage
from .leave_classes_out import check_rule, chosen_rule, learned_gate, sides_of
from .measure import draws_of, measure
from .metrics import metrics_of
from .order_certificate import order_certificate as certificate_of
from .order_certificate import refuse_without_order
from .ready import ReadyHead, learns, ready_head
from .reliability import reliability
from .replay import evaluate_file, replayed
from .result import Result
from .shared import SharedBanks
from .spec import Fusion, Normalisation, Progress, RunSpec, SeenUnseen, TableType, WhenMissing
from .store import check_writable, save_run
from .train import Training
from .unfinished import no_half_run

RELIABILITY_EPISODES = 1000  # The certainty of each modality is measured on at most this many episodes.


@dataclass(kw_only=True)
class Run:
    """A finished run."""

    metrics: dict[str, Any]
    """The figures of the run, which ``--json`` prints."""
    accuracy: np.ndarray
    """The figure of each episode, float32 [E]; empty where a whole split was classified at once."""
    result: Result
    """The result of the evaluation."""
    training: Training | None
    """The training, or None where nothing was trained."""
    out: Path
    """The run's folder."""

    @property
    def mean(self) -> float:
        """The accuracy, or the measure that the protocol has in its place, in 0..1."""
        return float(self.metrics["accuracy"])


def episode_eval(
    method: str = "protonet",
    dataset: str | None = None,
    cache: Path | str | None = None,
    *,
    protocol: Protocol | None = None,
    episodes: Extent = 10_000,
    episodes_file: Path | str | None = None,
    streams: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    train_modalities: Sequence[str] | None = None,
    train_missing: Sequence[Missing] | Literal["auto"] = "auto",
    when_missing: WhenMissing = "auto",
    train_dataset: str | None = None,
    fusion: Fusion | None = None,
    settings: Mapping[str, str] | None = None,
    normalise: Normalisation = "l2",
    words: str | None = "auto",
    train_seed: int | None = None,
    seen_unseen: SeenUnseen = "auto",
    device: str = "auto",
    dtype: TableType = "float32",
    align: str | None = None,
    out: Path | str | None = None,
    retrain: bool = False,
    with_reliability: bool = False,
    order_certificate: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Evaluate ``method`` on episodes of the cached data set; train it on base classes first where it learns.

    episodes: their number, or Auto for as many as the precision needs.
    episodes_file: the file of episodes that are replayed in place of drawn ones.
    streams: the stream names or modalities to load; None takes every modality's only stream.
    modalities: the loaded modalities that the head is built for (default: all).
    train_modalities, train_missing: the modalities that training clips carry (default: all) and lose (auto: at the rate
        that val classes choose where the test takes modalities from clips).
    when_missing: what becomes of modalities that clips lack (auto: as base and val classes choose).
    train_dataset: the data set of the cache whose base classes train the head (default: the one that is tested).
    fusion: ec, ea or lf, for methods of a single modality.
    settings: the ``key=value`` of the head; keys ``train.*`` belong to the recipe, ``fusion.*`` to the wrapper.
    normalise: none, l2, centre-l2 (by the base classes' mean), per-step, or auto (as base and val classes choose).
    train_seed: the seed of weights and training episodes (default: the protocol's seed).
    seen_unseen: how generalised tests tell seen from unseen classes (auto: as base classes left out choose).
    align: the times that all streams' steps are brought on: a number of them, a stream, or "coarsest".
    out: the run's folder; a trained head is stored in it and used again when everything it depends on is the same.
    with_reliability: add each modality's certainty and the complementarity table.
    order_certificate: add accuracies with steps shuffled, reversed and a single one, class by class.
    progress: called with ("train" or "evaluate", done, total, figures).
    Raises UsageError, CacheError or TooFew with one sentence.
    """
    protocol = protocol or Protocol()
    spec = RunSpec(
        method=method,
        protocol=protocol,
        fusion=fusion,
        streams=_tuple(streams),
        modalities=_tuple(modalities),
        train_modalities=_tuple(train_modalities),
        train_missing="auto" if train_missing == "auto" else tuple(train_missing),
        when_missing=when_missing,
        train_dataset=train_dataset,
        settings=dict(settings or {}),
        words=words,
        normalise=normalise,
        dtype=dtype,
        train_seed=protocol.seed if train_seed is None else train_seed,
        seen_unseen=seen_unseen,
        align=align,
    )
    place = Place(cache=_path(cache), dataset=dataset, device=device, out=_path(out))
    job = Job(
        spec=spec,
        place=place,
        episodes=episodes,
        episodes_file=_path(episodes_file),
        retrain=retrain,
        reliability=with_reliability,
        order_certificate=order_certificate,
    )
    return run(job, progress)


def run(job: Job, progress: Progress | None = None, *, shared: SharedBanks | None = None) -> Run:
    """Carry out a job. Raises UsageError, CacheError or TooFew with one sentence.

    shared: the banks that several runs share; None where the job is alone.
    """
    job, banks = load(job, shared=shared)
    with no_half_run(folder_of(job)):
        return finish(ready(job, banks, progress), progress)


def load(job: Job, *, shared: SharedBanks | None = None) -> tuple[Job, Banks]:
    """The job with its label set and its folder filled in, and its banks, which it may share with other jobs.

    Raises CacheError where the cache does not hold the job's clips or the run's folder cannot be written, UsageError
    where the job cannot be run.
    """
    spec, steps = job.spec, None
    if job.episodes_file is not None:
        file = EpisodeFile.read(job.episodes_file.expanduser())
        spec, steps = replace(spec, protocol=replayed(spec.protocol, file)), file.steps
    banks = Banks(spec, job.place, shared, steps=steps)
    spec = with_protocol(spec, label_set=banks.test.label_set)
    check_modalities(spec, banks.test)
    if job.order_certificate:
        refuse_without_order(banks.test, spec.protocol)
    out = job.place.out or banks.folder / RUNS / f"{spec.method}-{spec.digest()}"
    check_writable(out)
    return replace(job, spec=spec, place=replace(job.place, out=out)), banks


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A loaded job whose head is ready to be measured."""

    job: Job
    """The job, with its label set and its folder filled in."""
    banks: Banks
    """The banks of the job."""
    made: ReadyHead
    """The head, built, fitted, and loaded or trained, with its training and the place of its weights."""

    @property
    def head(self) -> Head:
        """The head itself."""
        return self.made.head


def ready(job: Job, banks: Banks, progress: Progress | None = None) -> Ready:
    """The loaded job with its head, which is built, fitted, and loaded or trained."""
    if job.spec.protocol.generalised:
        check_rule(job.spec, banks)
    made = ready_head(
        job.spec,
        banks,
        folder_of(job),
        retrain=job.retrain,
        reliability=job.reliability,
        progress=progress,
    )
    return Ready(job=job, banks=banks, made=made)


def finish(
    ready: Ready,
    progress: Progress | None = None,
    *,
    known: BaseClips | None = None,
    rates: KeptAndLost | None = None,
) -> Run:
    """Measure a ready head and store the run.

    known: what base clips know of what clips lack, where runs on the same clips share it. rates: the predictions that
    runs share whose queries lose one modality at different rates.
    """
    job, banks, made, folder = ready.job, ready.banks, ready.made, folder_of(ready.job)
    test = Filled(head=made.head, bank=banks.test)
    if job.episodes_file is None:
        ask = None if rates is None else partial(_asked, rates, job.spec)
        test = filled_test(made.head, job.spec, banks, trained=learns(made.head), known=known, ask=ask)
    result = _measured(ready, test, progress, rates)
    again = partial(_measured_again, ready, progress, rates)
    metrics = metrics_of(
        job=job,
        banks=banks,
        head=made.head,
        filling=with_ways_beside(test, job.spec, result, again),
        training=made.training,
        stopped=made.stopped,
        result=result,
        folder=folder,
    )
    if job.episodes_file is None:
        metrics["frozen_space"] = frozen_space(job.spec, job.place, banks.folder, job.episodes)
    if not job.spec.protocol.shared_group and not banks.test.multi:
        found = leakage(
            test.head,
            test.bank,
            job.spec.protocol,
            planned(job.episodes),
            unlabelled=banks.unlabelled,
        )
        metrics["leakage"] = asdict(found)
    if job.reliability:
        episodes = min(planned(job.episodes), RELIABILITY_EPISODES)
        metrics["reliability"] = reliability(made.head, banks.test, job.spec.protocol, episodes)
    if job.order_certificate:
        certificate = certificate_of(
            made.head, banks.test, job.spec.protocol, metrics["episodes"], progress=progress
        )
        metrics["order_certificate"] = certificate.to_dict()
    config = {
        **job.to_dict(),
        "dataset": banks.test.dataset,
        "episodes": metrics["episodes"],
        "fingerprint": metrics["fingerprint"],
        "clip_ids": metrics["clip_ids"],
        "clip_files": metrics["clip_files"],
        "chosen": metrics["chosen"],
    }
    # Where another run into this folder has replaced the head meanwhile, this run's head comes back.
    kept = made.checkpoint is not None and made.checkpoint.path.parent == folder
    with no_half_run(folder):
        save_run(folder, config, metrics, result.arrays(), keep=made.keep if kept else None)
    return Run(
        metrics=metrics, accuracy=result.per_episode(), result=result, training=made.training, out=folder
    )


def _asked(rates: KeptAndLost, spec: RunSpec, test: Filled, protocol: Protocol, episodes: int) -> Result:
    """The result of a head on some episodes, put together from what other rates have found where that is right."""
    transductive = spec.resolved.transductive
    if rates.serves(protocol, test.bank, transductive=transductive):
        return rates.evaluate(test, protocol, episodes)
    return measure(test.head, test.bank, protocol, episodes, transductive=transductive)


def _measured(
    ready: Ready, test: Filled, progress: Progress | None, rates: KeptAndLost | None = None
) -> Result:
    """The result of a ready head on the episodes of its protocol, or of its file.

    test: the head and the test clips, with what clips lack filled in; a file's episodes are taken as they are. rates:
    see ``finish``.
    """
    job, banks, made = ready.job, ready.banks, ready.made
    extent, transductive = draws_of(job.spec.protocol, job.episodes), job.spec.resolved.transductive
    count = _episode_progress(progress, extent)
    if job.episodes_file is not None and isinstance(job.episodes, int):
        file = EpisodeFile.read(job.episodes_file.expanduser())
        return evaluate_file(made.head, banks, file, job.episodes, progress=count, transductive=transductive)
    protocol = job.spec.protocol
    if rates is not None and rates.serves(protocol, test.bank, transductive=transductive):
        return rates.evaluate(test, protocol, job.episodes, unlabelled=banks.unlabelled, progress=count)
    generalised = protocol.generalised
    choice = chosen_rule(job.spec, banks, made.head) if generalised else None
    return measure(
        test.head,
        test.bank,
        job.spec.protocol,
        job.episodes,
        unlabelled=banks.unlabelled,
        sides=sides_of(banks) if generalised else None,
        choice=choice,
        gate=learned_gate(job.spec, sides_of(banks)) if generalised else None,
        progress=count,
        transductive=transductive,
    )


def _measured_again(
    ready: Ready, progress: Progress | None, rates: KeptAndLost | None, test: Filled, episodes: int
) -> Result:
    """The result of a ready head on so many of its first episodes, with what clips lack filled in another way."""
    return _measured(replace(ready, job=replace(ready.job, episodes=episodes)), test, progress, rates)


def folder_of(job: Job) -> Path:
    """The folder of a loaded job."""
    assert job.place.out is not None, "load() names the folder"
    return job.place.out


def with_protocol(spec: RunSpec, **changes: Any) -> RunSpec:
    """``spec`` with some fields of its protocol changed."""
    return replace(spec, protocol=replace(spec.protocol, **changes))


def check_modalities(spec: RunSpec, bank: FeatureBank) -> None:
    """Raise UsageError where a run's modalities, supports or queries do not suit its clips and its method.

    This is so for modalities of the protocol or of training that are not loaded, for loaded modalities that no clip of
    the split has, for zero-shot episodes with a method that needs supports, and for a generalised test of a
    transductive method, which is given the clips of unseen classes by themselves. So it is for noise with a rule that
    makes what clips lack of the features that noise replaces.
    """
    protocol = spec.protocol
    if protocol.noisy and spec.when_missing in READ_FEATURES:
        raise UsageError(
            f"--when-missing {spec.when_missing} makes what clips lack of the features that they have, which --noisy "
            "replaces; use drop, match, mean or zero with --noisy."
        )
    named = [
        *(protocol.support_modalities or ()),
        *(protocol.query_modalities or ()),
        *(spec.train_modalities or ()),
    ]
    named += [m.modality for m in (*protocol.missing, *protocol.noisy, *spec.losses)]
    bank.select(list(dict.fromkeys(named)))
    for name, table in bank.tables.items():
        if not bool(table.present.any()):
            raise UsageError(
                f"No clip of the {bank.split} classes has modality {name!r}; leave it out with --modalities, or "
                "extract it."
            )
    if protocol.k_shot == 0 and not spec.resolved.zero_shot:
        raise UsageError(
            f"Method {spec.method!r} needs supports; zero-shot heads are marked in `fsmm methods`."
        )
    if protocol.generalised and spec.resolved.transductive:
        raise UsageError(
            f"Method {spec.method!r} decides clips together, and a generalised test gives it the clips of the unseen "
            "classes by themselves, which would tell it which they are; take one that is not transductive (`fsmm "
            "methods` says which are)."
        )


def _tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _episode_progress(progress: Progress | None, extent: Extent) -> Callable[[int], None] | None:
    """A callback that adds up the numbers of episodes it is called with and reports the sum to ``progress``.

    The total is that of the step at hand where the number of episodes is not known.
    """
    if progress is None:
        return None
    steps = iter([extent]) if isinstance(extent, int) else extent.steps()
    done, total = 0, next(steps)

    def count(more: int) -> None:
        nonlocal done, total
        done += more
        while done > total:
            total = next(steps)
        progress("evaluate", done, total, {})

    return count
