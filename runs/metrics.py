"""What a run stores and prints."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..heads.head import Head
from .banks import Banks
from .evaluate import Evaluation
from .measure import Measured
from .multi_label import MultiLabelEvaluation
from .spec import RunSpec
from .train import Training


def metrics_of(
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


def per_episode(result: Measured) -> np.ndarray:
    if isinstance(result, Evaluation):
        return result.accuracy
    if isinstance(result, MultiLabelEvaluation):
        return result.average_precision.astype(np.float32)
    return np.array([result.summary()["accuracy"]], np.float32)


def arrays_of(result: Measured) -> dict[str, np.ndarray]:
    arrays = {"accuracy": per_episode(result)}
    if isinstance(result, MultiLabelEvaluation):
        return arrays | {"micro_f1": result.micro_f1, "macro_f1": result.macro_f1}
    return arrays | {"confusion": result.confusion, "class_names": np.array(result.class_names)}
