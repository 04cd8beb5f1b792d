"""One run from a cache to a figure: load, train where the method learns, evaluate, store."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cache.bank import FeatureBank
from ..episodes.protocol import Missing, Protocol, bounds
from ..errors import UsageError
from ..heads.base import Head, Recipe, update_settings
from ..heads.build import build_head, inputs_of
from ..heads.registry import find
from .banks import Banks, pick_device
from .evaluate import Evaluation
from .measure import Measured, measure
from .multi_label import MultiLabelEvaluation
from .reliability import reliability
from .spec import RunSpec
from .store import digest, save_run
from .train import Training, load_tensors, save_tensors, train, write_json

CHECKPOINT = "head.safetensors"
SWEEP_RATES = tuple(i / 10 for i in range(11))
Progress = Callable[[str, int, int, Mapping[str, float]], None]


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
    metrics = _metrics(spec, banks, result, job.training, job.head, folder)
    if with_reliability:
        metrics["reliability"] = reliability(job.head, banks.test, spec.protocol, min(episodes, 1000))
    accuracy = _per_episode(result)
    stored = {
        **spec.to_dict(),
        "dataset": banks.test.dataset,
        "episodes": len(accuracy),
        "fingerprint": banks.test.fingerprint(),
    }
    save_run(folder, stored, metrics, _arrays(result))
    return Run(metrics, accuracy, result, job.training, folder)


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


def _metrics(
    spec: RunSpec, banks: Banks, result: Measured, training: Training | None, head: Head, folder: Path
) -> dict[str, Any]:
    bank = banks.test
    return {
        "method": spec.method,
        "fusion": spec.fusion,
        "dataset": bank.dataset,
        "split": bank.split,
        "label_set": bank.label_set,
        "class_split": bank.class_split,
        "streams": {key: str(name) for key, name in bank.streams.items()},
        "words": None if bank.word_stream is None else str(bank.word_stream),
        "normalise": spec.normalise,
        "protocol": spec.protocol.to_dict(),
        "protocol_text": spec.protocol.describe(),
        "train_modalities": spec.train_modalities,
        "settings": dict(spec.settings),
        "seed": spec.protocol.seed,
        "train_seed": spec.train_seed,
        **result.summary(),
        "train_seconds": training.seconds if training else 0.0,
        "training": None if training is None else asdict(training),
        "parameters": sum(p.numel() for p in head.parameters() if p.requires_grad),
        "peak_memory_mb": peak_memory_mb(banks.device),
        "device": str(banks.device),
        "fingerprint": bank.fingerprint(),
        "clips": len(bank),
        "clips_without": {m: int((~t.present).sum()) for m, t in bank.tables.items() if not t.all_present},
        "classes": len(bank.class_names),
        "out": str(folder),
    }


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process or one of its workers has held (on CUDA: that torch has allocated), in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return used / 2**20 if sys.platform == "darwin" else used / 2**10


def _per_episode(result: Measured) -> np.ndarray:
    if isinstance(result, Evaluation):
        return result.accuracy
    if isinstance(result, MultiLabelEvaluation):
        return result.average_precision.astype(np.float32)
    return np.array([result.summary()["accuracy"]], np.float32)


def _arrays(result: Measured) -> dict[str, np.ndarray]:
    arrays = {"accuracy": _per_episode(result)}
    if isinstance(result, MultiLabelEvaluation):
        return arrays | {"micro_f1": result.micro_f1, "macro_f1": result.macro_f1}
    return arrays | {"confusion": result.confusion, "class_names": np.array(result.class_names)}


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
