"""The figures that a run prints and stores in metrics.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..heads.head import Head
from ..heads.multimodal.weights import HasWeights
from ..machine.memory import peak_memory_mb
from .banks import Banks
from .choices import choices_of
from .filling_choice import FillingChoice
from .job import Job
from .pretraining import pretraining
from .result import Result
from .train import Training


def metrics_of(
    *,
    job: Job,
    banks: Banks,
    head: Head,
    filling: FillingChoice | None,
    training: Training | None,
    stopped: str,
    result: Result,
    folder: Path,
) -> dict[str, Any]:
    """The figures of a run and the facts that a reader needs to judge them, in plain JSON values.

    filling: what base and val classes chose for what clips lack, or None where nothing was chosen.
    stopped: when and why the head's training stopped, in this run or an earlier one; empty where there was none.
    """
    spec, bank, summary = job.spec, banks.test, result.summary()
    return {
        "method": spec.method,
        "fusion": spec.fusion,
        "dataset": bank.dataset,
        "split": bank.split,
        "label_set": bank.label_set,
        "class_split": bank.class_split,
        "streams": {key: str(name) for key, name in bank.streams.items()},
        "words": None if bank.word_stream is None else str(bank.word_stream),
        "notes": [
            *bank.notes,
            *banks.training_notes(),
            *head.notes(),
            *_on_supports(job, banks),
            *_on_unlabelled(job, banks),
            *(training.notes if training else ()),
            *_note(filling),
        ],
        "normalise": banks.normalise,
        "normalise_choice": None if banks.choice is None else asdict(banks.choice),
        "when_missing": spec.when_missing,
        "when_missing_choice": None if filling is None else filling.to_dict(),
        "modality_weights": asdict(head.weights) if isinstance(head, HasWeights) else None,
        "protocol": spec.protocol.to_dict(),
        "protocol_text": spec.protocol.describe(),
        "train_dataset": None if banks.other is None else banks.other.name,
        "train_left_out": [] if banks.other is None else list(banks.other.left_out),
        "train_modalities": spec.train_modalities,
        "settings": dict(spec.settings),
        "chosen": head.chosen(),
        "choices": choices_of(job, banks, head, stopped=stopped, result=result, filling=filling),
        "seed": spec.protocol.seed,
        "train_seed": spec.train_seed,
        **summary,
        "train_seconds": training.seconds if training else 0.0,
        "training": None if training is None else asdict(training),
        "training_stopped": stopped,
        "parameters": sum(p.numel() for p in head.parameters() if p.requires_grad),
        "peak_memory_mb": peak_memory_mb(banks.device),
        "device": str(banks.device),
        "fingerprint": bank.fingerprint(groups=spec.protocol.rules_groups),
        **bank.identities(),
        "pretraining": pretraining(banks.folder, bank, summary.get("per_class") or {}, banks.training_sets),
        "clips": len(bank),
        "clips_without": {m: int((~t.present).sum()) for m, t in bank.tables.items() if not t.all_present},
        "classes": len(bank.class_names),
        "out": str(folder),
    }


def _on_supports(job: Job, banks: Banks) -> list[str]:
    """That a method leaves the supports of the test unread, as a list of one sentence or none."""
    if banks.method.reads_supports or job.spec.protocol.k_shot == 0:
        return []
    return [f"{job.spec.method} decides by class words alone: it does not read the supports (zero-shot)."]


def _on_unlabelled(job: Job, banks: Banks) -> list[str]:
    """That clips without labels are given to a method that does not read them, or not given to one that does."""
    given, name = job.spec.protocol.unlabelled, job.spec.method
    if banks.method.reads_unlabelled and not given:
        return [f"{name} had no clips without labels to learn from; --unlabelled N gives N to each episode."]
    if given and not banks.method.reads_unlabelled:
        return [f"{name} does not read the {given} clips without labels that each episode gives."]
    return []


def _note(filling: FillingChoice | None) -> list[str]:
    """The sentence that says that a choice could not be made, as a list of none or one."""
    return [] if filling is None or not filling.note else [f"{filling.note[0].upper()}{filling.note[1:]}."]
