"""One run from a cache to a figure: load, train where the method learns, evaluate, store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cache.bank import FeatureBank
from ..cache.schema import dataset_folder, default_cache
from ..episodes.protocol import Protocol, bounds
from ..errors import CacheError, UsageError
from ..heads.base import Head, Recipe, update_settings
from ..heads.build import build_head, inputs_of, needs_sequences
from ..heads.registry import Method, find
from .evaluate import Evaluation, evaluate
from .store import digest, save_run
from .train import Training, load_tensors, save_tensors, train

CHECKPOINT = "head.safetensors"
Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass
class Run:
    """The result of one run. metrics is what ``--json`` prints; accuracy: float32 [E], one an episode."""

    metrics: dict[str, Any]
    accuracy: np.ndarray
    evaluation: Evaluation
    training: Training | None
    out: Path

    @property
    def mean(self) -> float:
        return self.evaluation.mean


@dataclass
class _Plan:
    """What identifies a run; its digest names the default folder and decides whether a checkpoint fits."""

    method: str
    fusion: str | None
    settings: dict[str, str]
    protocol: Protocol
    normalise: str
    streams: dict[str, str]
    words: str | None
    train_seed: int


def episode_eval(
    method: str = "protonet",
    dataset: str | None = None,
    cache: Path | str | None = None,
    *,
    protocol: Protocol | None = None,
    episodes: int = 10_000,
    streams: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    fusion: str | None = None,
    settings: Mapping[str, str] | None = None,
    normalise: str = "l2",
    words: str | None = "auto",
    train_seed: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    out: Path | str | None = None,
    retrain: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Evaluate ``method`` on episodes of the cached ``dataset``; train it on base classes first where it learns.

    streams: stream names or modalities to load (None: every modality's only stream). modalities: which of them to
    use. fusion: ec | ea | lf for single-modality methods. settings: ``key=value`` of the head; keys ``train.*`` are
    the recipe's, ``fusion.*`` the wrapper's. normalise: none | l2 | centre-l2 (by the base classes' mean).
    train_seed: of weights and training episodes (default: the protocol's seed). out: the run's folder; a trained
    head is kept and used again when everything it depends on is the same.
    progress: called with ("train" or "evaluate", done, total, figures).
    Raises UsageError, CacheError or TooFew with one sentence.
    """
    protocol = protocol or Protocol()
    given = dict(settings or {})
    entry, _ = find(method)
    banks = _Banks(cache, dataset, protocol, streams, modalities, words, normalise, device, dtype, method, entry)
    train_seed = protocol.seed if train_seed is None else train_seed
    plan = _Plan(
        method,
        fusion,
        given,
        replace(protocol, label_set=banks.test.label_set),
        normalise,
        {key: str(name) for key, name in banks.test.streams.items()},
        None if banks.test.word_stream is None else str(banks.test.word_stream),
        train_seed,
    )
    folder = Path(out) if out is not None else banks.folder / "runs" / f"{method}-{digest(asdict(plan))}"
    torch.manual_seed(train_seed)
    inputs = inputs_of(banks.test, banks.base_classes(), bounds(protocol.n_way)[1] or len(banks.test.class_names))
    own = {k: v for k, v in given.items() if not k.startswith("train.")}
    head = build_head(method, inputs, own, fusion).to(banks.test.device)
    training = _ready(head, entry, banks, plan, folder, retrain, progress)
    evaluation = evaluate(
        head,
        banks.test,
        protocol,
        episodes,
        unlabelled=banks.unlabelled(),
        progress=_counting(progress, episodes),
    )
    metrics = _metrics(plan, banks, evaluation, training, head, folder)
    save_run(
        folder,
        {**asdict(plan), "dataset": banks.test.dataset, "episodes": episodes, "fingerprint": banks.test.fingerprint()},
        metrics,
        {
            "accuracy": evaluation.accuracy,
            "confusion": evaluation.confusion,
            "class_names": np.array(evaluation.class_names),
        },
    )
    return Run(metrics, evaluation.accuracy, evaluation, training, folder)


class _Banks:
    """The banks of one run, all prepared alike: the test split at once, base, val and unlabelled when asked for."""

    def __init__(
        self,
        cache: Path | str | None,
        dataset: str | None,
        protocol: Protocol,
        streams: Sequence[str] | None,
        modalities: Sequence[str] | None,
        words: str | None,
        normalise: str,
        device: str,
        dtype: str,
        method: str,
        entry: Method,
    ) -> None:
        self.cache = default_cache() if cache is None else Path(cache)
        self.folder = dataset_folder(self.cache, dataset)
        self.protocol, self.normalise, self.entry = protocol, normalise, entry
        self.streams, self.modalities = streams, modalities
        self.words = None if entry.words == "no" else words
        self.device, self.dtype = pick_device(device), _pick_dtype(dtype)
        self.sequences = needs_sequences(method)
        self._loaded: dict[str, FeatureBank] = {}
        self.test = self._prepare(protocol.split)

    def base_classes(self) -> int:
        """Number of base classes; read only for heads that train on batches or use base statistics."""
        return len(self.base.class_names) if self.entry.regime == "batch" else 0

    @property
    def base(self) -> FeatureBank:
        return self._prepare("base")

    @property
    def val(self) -> FeatureBank | None:
        try:
            return self._prepare("val")
        except CacheError:
            return None  # a split without val classes: training runs to its end

    def unlabelled(self) -> FeatureBank | None:
        return self._prepare("unlabelled") if self.protocol.unlabelled else None

    def _prepare(self, split: str) -> FeatureBank:
        if split not in self._loaded:
            bank = self._raw(split)
            means = self._base_means() if self.normalise == "centre-l2" else None
            self._loaded[split] = bank.normalised(self.normalise, means)
        return self._loaded[split]

    def _base_means(self) -> dict[str, torch.Tensor]:
        return self._raw("base").means()

    def _raw(self, split: str) -> FeatureBank:
        key = f"raw {split}"
        if key not in self._loaded:
            extra = split == "unlabelled"
            bank = FeatureBank.load(
                self.cache,
                self.streams or self.modalities,
                "all" if extra else split,
                dataset=self.folder.name,
                label_set=self.protocol.label_set,
                class_split=self.protocol.class_split,
                clip_split=self.protocol.clip_split if split == self.protocol.split else None,
                words=None if extra else self.words,
                device=self.device,
                dtype=self.dtype,
                unlabelled=extra,
            )
            if self.modalities:
                bank = bank.select(self.modalities)
            self._loaded[key] = bank if self.sequences else bank.pooled()
        return self._loaded[key]


def _ready(
    head: Head, entry: Method, banks: _Banks, plan: _Plan, folder: Path, retrain: bool, progress: Progress | None
) -> Training | None:
    """Fit, load or train the head, as its regime asks; None where nothing was trained."""
    if type(head).fit_base is not Head.fit_base:
        head.fit_base(banks.base)
    trainable = any(p.requires_grad for p in head.parameters())
    given = {k.removeprefix("train."): v for k, v in plan.settings.items() if k.startswith("train.")}
    if not trainable:
        if given:
            raise UsageError(f"Method {plan.method!r} has nothing to train here; leave out --set train.*.")
        return None
    recipe: Recipe = update_settings(recipe_of(head), given, f"the training of {plan.method}")
    identity = digest({**asdict(plan), "protocol": _training_part(plan.protocol), "recipe": asdict(recipe),
                       "base": banks.base.fingerprint()})
    path = folder / CHECKPOINT
    if path.is_file() and not retrain:
        tensors, about = load_tensors(path)
        if about.get("identity") == identity:
            head.load_state_dict(tensors)
            return None
    watch = None if progress is None else lambda done, total, figures: progress("train", done, total, figures)
    training = train(head, banks.base, banks.val, plan.protocol, recipe, plan.train_seed, folder / "training", watch)
    save_tensors(path, head.state_dict(), {"identity": identity, "method": plan.method})
    return training


def recipe_of(head: Head) -> Recipe:
    """The recipe of a head, or of the head inside a fusion wrapper."""
    inner: Any = getattr(head, "inner", None)
    if isinstance(inner, torch.nn.ModuleDict):
        inner = next(iter(inner.values()))
    return inner.recipe if isinstance(inner, Head) else head.recipe


def _training_part(protocol: Protocol) -> dict[str, Any]:
    """What of the protocol training depends on (the test split and number of queries do not)."""
    values = protocol.to_dict()
    for name in ("split", "n_query", "dirichlet", "small_classes", "clip_split", "generalised"):
        values.pop(name)
    return values


def _metrics(
    plan: _Plan, banks: _Banks, evaluation: Evaluation, training: Training | None, head: Head, folder: Path
) -> dict[str, Any]:
    bank = banks.test
    return {
        "method": plan.method,
        "fusion": plan.fusion,
        "dataset": bank.dataset,
        "split": bank.split,
        "label_set": bank.label_set,
        "class_split": bank.class_split,
        "streams": plan.streams,
        "words": plan.words,
        "normalise": plan.normalise,
        "protocol": plan.protocol.to_dict(),
        "protocol_text": plan.protocol.describe(),
        "settings": plan.settings,
        "seed": plan.protocol.seed,
        "train_seed": plan.train_seed,
        **evaluation.summary(),
        "train_seconds": training.seconds if training else 0.0,
        "training": None if training is None else asdict(training),
        "parameters": sum(p.numel() for p in head.parameters() if p.requires_grad),
        "fingerprint": bank.fingerprint(),
        "clips": len(bank),
        "classes": len(bank.class_names),
        "out": str(folder),
    }


def pick_device(device: str) -> torch.device:
    """ "auto" is the GPU where there is one. Raises UsageError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"Device {device!r} is not known; use auto, cpu or cuda.") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("Device 'cuda' was asked for, but torch sees no GPU; use --device cpu.")
    return chosen


def _pick_dtype(dtype: str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in known:
        raise UsageError(f"dtype {dtype!r} is not known; use float32 or bfloat16.")
    return known[dtype]


def _counting(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress("evaluate", done, total, {})

    return count
