"""One run from a cache to a figure: load, train where the method learns, evaluate, store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.bank import FeatureBank
from ..episodes.protocol import Missing, Protocol
from ..errors import UsageError
from ..heads.head import Head
from ..heads.registry import find
from ..machine.device import pick_device
from ..machine.files import write_json
from .banks import Banks
from .measure import Measured, measure
from .metrics import arrays_of, metrics_of, per_episode
from .ready import ready_head
from .reliability import reliability
from .spec import Progress, RunSpec
from .store import save_run
from .train import Training

SWEEP_RATES = tuple(i / 10 for i in range(11))


@dataclass
class Run:
    """The result of one run. metrics is what ``--json`` prints; accuracy: float32 [E], one an episode."""

    metrics: dict[str, Any]
    accuracy: np.ndarray
    result: Measured
    training: Training | None
    out: Path

    @property
    def mean(self) -> float:
        return float(self.metrics["accuracy"])


def episode_eval(
    method: str = "protonet",
    dataset: str | None = None,
    cache: Path | str | None = None,
    *,
    protocol: Protocol | None = None,
    episodes: int = 10_000,
    streams: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    train_modalities: Sequence[str] | None = None,
    train_missing: Sequence[Missing] = (),
    fusion: str | None = None,
    settings: Mapping[str, str] | None = None,
    normalise: str = "l2",
    words: str | None = "auto",
    train_seed: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    out: Path | str | None = None,
    retrain: bool = False,
    with_reliability: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Evaluate ``method`` on episodes of the cached ``dataset``; train it on base classes first where it learns.

    streams: stream names or modalities to load (None: every modality's only stream). modalities: which of them the
    head is built for. train_modalities, train_missing: what training clips carry and lose (default: all, nothing).
    fusion: ec | ea | lf for single-modality methods. settings: ``key=value`` of the head; keys ``train.*`` are the
    recipe's, ``fusion.*`` the wrapper's. normalise: none | l2 | centre-l2 (by the base classes' mean).
    train_seed: of weights and training episodes (default: the protocol's seed). out: the run's folder; a trained
    head is kept and used again when everything it depends on is the same.
    with_reliability: add each modality's certainty and the complementarity table.
    progress: called with ("train" or "evaluate", done, total, figures).
    Raises UsageError, CacheError or TooFew with one sentence.
    """
    protocol = protocol or Protocol()
    spec = RunSpec(
        method,
        protocol,
        fusion,
        _tuple(streams),
        _tuple(modalities),
        _tuple(train_modalities),
        tuple(train_missing),
        dict(settings or {}),
        words,
        normalise,
        dtype,
        protocol.seed if train_seed is None else train_seed,
    )
    return run_spec(spec, dataset, cache, episodes, device, out, retrain, with_reliability, progress)


def run_spec(
    spec: RunSpec,
    dataset: str | None = None,
    cache: Path | str | None = None,
    episodes: int = 10_000,
    device: str = "auto",
    out: Path | str | None = None,
    retrain: bool = False,
    with_reliability: bool = False,
    progress: Progress | None = None,
) -> Run:
    """``episode_eval`` of a ready specification."""
    job = _begin(spec, cache, dataset, device, out, retrain, progress)
    return _finish(job, job.spec, job.folder, episodes, with_reliability, progress)


def missing_sweep(
    spec: RunSpec,
    what: str,
    dataset: str | None = None,
    cache: Path | str | None = None,
    episodes: int = 10_000,
    device: str = "auto",
    out: Path | str | None = None,
    retrain: bool = False,
    progress: Progress | None = None,
) -> list[Run]:
    """One head, trained once, at missing rates 0, 0.1 ... 1 of ``modality@side``, on the same episodes.

    Each rate's run lies in a folder of its own below the run's.
    """
    job = _begin(spec, cache, dataset, device, out, retrain, progress)
    return [
        _finish(job, step, job.folder / f"missing-{rate:g}", episodes, False, progress)
        for rate, step in _steps(job.spec, what, job.banks.test)
    ]


def seed_spread(
    spec: RunSpec,
    seeds: int,
    dataset: str | None = None,
    cache: Path | str | None = None,
    episodes: int = 10_000,
    device: str = "auto",
    out: Path | str | None = None,
    retrain: bool = False,
    progress: Progress | None = None,
) -> list[Run]:
    """The head trained under ``seeds`` training seeds from the spec's on, each measured on the same episodes.

    Each seed's run lies in a folder of its own below the run's; ``seeds.json`` there holds ``spread_of`` them.
    Raises UsageError for fewer than two seeds, and for a method that has nothing to train.
    """
    if seeds < 2:
        raise UsageError(f"--train-seeds is {seeds}; a spread needs at least 2.")
    spec, banks, folder = _loaded(spec, cache, dataset, device, out)
    runs = []
    for seed in range(spec.train_seed, spec.train_seed + seeds):
        step, place = replace(spec, train_seed=seed), folder / f"seed-{seed}"
        job = _Job(step, banks, place, *ready_head(step, banks, place, retrain, progress))
        if not any(p.requires_grad for p in job.head.parameters()):
            raise UsageError(f"Method {spec.method!r} has nothing to train, so seeds have no spread.")
        runs.append(_finish(job, step, place, episodes, False, progress))
    write_json(folder / "seeds.json", spread_of(runs))
    return runs


def spread_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean accuracy over training seeds, their standard deviation (n - 1), and each seed's accuracy."""
    values = np.array([run.mean for run in runs])
    return {
        "method": runs[0].metrics["method"],
        "seeds": [run.metrics["train_seed"] for run in runs],
        "accuracy": values.tolist(),
        "mean": float(values.mean()),
        "sd_over_seeds": float(values.std(ddof=1)),
        "ci95_draws": [run.metrics["ci95"] for run in runs],
        "runs": [str(run.out) for run in runs],
    }


@dataclass
class _Job:
    """A run that is ready to be measured."""

    spec: RunSpec
    banks: Banks
    folder: Path
    head: Head
    training: Training | None


def _begin(
    spec: RunSpec,
    cache: Path | str | None,
    dataset: str | None,
    device: str,
    out: Path | str | None,
    retrain: bool,
    progress: Progress | None,
) -> _Job:
    """Load the banks, then build, fit and load or train the head."""
    spec, banks, folder = _loaded(spec, cache, dataset, device, out)
    return _Job(spec, banks, folder, *ready_head(spec, banks, folder, retrain, progress))


def _loaded(
    spec: RunSpec, cache: Path | str | None, dataset: str | None, device: str, out: Path | str | None
) -> tuple[RunSpec, Banks, Path]:
    """The spec with its label set named, the banks, and the run's folder."""
    banks = Banks(spec, cache, dataset, pick_device(device))
    spec = replace(spec, protocol=replace(spec.protocol, label_set=banks.test.label_set))
    _check_modalities(spec, banks.test)
    place = Path(out) if out is not None else banks.folder / "runs" / f"{spec.method}-{spec.digest()}"
    return spec, banks, place


def _steps(spec: RunSpec, sweep: str, bank: FeatureBank) -> list[tuple[float, RunSpec]]:
    """The specs of a missing-rate sweep of ``modality@side``."""
    modality, _, side = sweep.partition("@")
    others = tuple(m for m in spec.protocol.missing if m.modality != modality)
    found = []
    for rate in SWEEP_RATES:
        missing = (*others, Missing.parse(f"{modality}={rate:g}@{side or 'query'}"))
        step = replace(spec, protocol=replace(spec.protocol, missing=missing))
        _check_modalities(step, bank)
        found.append((rate, step))
    return found


def _finish(
    job: _Job,
    spec: RunSpec,
    folder: Path,
    episodes: int,
    with_reliability: bool,
    progress: Progress | None,
) -> Run:
    """Evaluate a ready head under ``spec`` and store the run."""
    banks = job.banks
    result = run_measure(job.head, spec, banks, episodes, progress)
    metrics = metrics_of(spec, banks, result, job.training, job.head, folder)
    if with_reliability:
        metrics["reliability"] = reliability(job.head, banks.test, spec.protocol, min(episodes, 1000))
    accuracy = per_episode(result)
    stored = {
        **spec.to_dict(),
        "dataset": banks.test.dataset,
        "episodes": len(accuracy),
        "fingerprint": banks.test.fingerprint(),
    }
    save_run(folder, stored, metrics, arrays_of(result))
    return Run(metrics, accuracy, result, job.training, folder)


def run_measure(
    head: Head, spec: RunSpec, banks: Banks, episodes: int, progress: Progress | None = None
) -> Measured:
    """The evaluation of a ready head."""
    generalised = spec.protocol.generalised
    return measure(
        head,
        banks.test,
        spec.protocol,
        episodes,
        banks.unlabelled,
        banks.seen if generalised else None,
        banks.val if generalised else None,
        _counting(progress, episodes),
    )


def _check_modalities(spec: RunSpec, bank: FeatureBank) -> None:
    """Refuse a protocol that names modalities which are not loaded, or that no clip of the split has."""
    protocol = spec.protocol
    named = [
        *(protocol.support_modalities or ()),
        *(protocol.query_modalities or ()),
        *(spec.train_modalities or ()),
    ]
    named += [m.modality for m in (*protocol.missing, *spec.train_missing)]
    bank.select(list(dict.fromkeys(named)))
    for name, table in bank.tables.items():
        if not bool(table.present.any()):
            raise UsageError(
                f"No clip of the {bank.split} classes has modality {name!r}; leave it out with --modalities, or "
                "extract it."
            )
    if protocol.k_shot == 0 and not find(spec.method)[0].zero_shot:
        raise UsageError(
            f"Method {spec.method!r} needs supports; zero-shot heads are marked in `fsmm methods`."
        )


def _tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _counting(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress("evaluate", done, total, {})

    return count
