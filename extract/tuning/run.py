"""``fsmm encoder-tune``: an encoder is tuned on clips that no evaluation reads, and becomes an encoder of its own."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..._version import __version__
from ...errors import UsageError
from ...machine.device import pick_device
from ...machine.digests import SUMS, file_sha256, sums_text
from ...machine.files import write_bytes
from ...machine.json_text import json_text
from ...machine.locks import lock_of
from ...machine.memory import keep_freed_memory
from ...machine.progress import silence
from ...machine.tensors import save_tensors
from ..choose import need_extra
from ..clip_files import state_of
from ..contract import Encoder
from ..encoders import build, entry
from ..encoders.references import is_reference
from ..encoders.tunable import Tunable, last_units
from ..encoders.tuned import NETWORK, PROJECTION, RECORD, TunedReference, parse_reference, tunable_of
from ..prepared import listed
from ..request import Request
from .batches import Batches
from .clips import TuningClips, tuning_clips
from .low_rank import add_adapters, merge_adapters
from .masked import MaskedPatches, MaskedSteps, sees_patches
from .objectives import Contrast, Joint, JointInputs, Losses, Objective, Supervised
from .report import TuneReport, curve_of
from .request import TuneRequest
from .store import ClipStore, decode_clips
from .trainer import Trainer

WORK = ".tuning"  # the folder in --out that holds the state of an unfinished tuning
_BLOCKS = 2
_DIGITS = 8  # of the weights' digest in the encoder's name


@dataclass(frozen=True, kw_only=True)
class _Base:
    """The encoder that is tuned."""

    encoder: Encoder
    """The encoder."""
    text: str
    """Its name in the table or its model, by which the tuned network is built again."""
    identity: Mapping[str, str]
    """The provenance of its features."""


def tune_encoder(request: TuneRequest, losses: Losses, *, quiet: bool = False) -> TuneReport:
    """Tune an encoder as the request says, or go on where an interrupted call of it stopped.

    losses: the arithmetic of methods. quiet: no progress is shown. Raises UsageError for a request that cannot be met,
    WeightsError, and FsmmError for clips that cannot be read, a loss that is not finite, or too little memory. After
    Ctrl-C, the same call goes on.
    """
    began = time.perf_counter()
    need_extra()
    request.check()
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # It makes products on a GPU repeatable.
    with silence(wanted=quiet):
        base = _base(request)
        clips = _clips(request)
        out = request.out or Path("tuned") / f"{_slug(base.text)}-{request.objective}"
        identity = _identity(request, base, clips)
        if (record := _finished(out, identity)) is not None:
            seconds = time.perf_counter() - began
            return TuneReport(
                folder=out, record=record, failed={}, seconds=seconds, tuning_seconds=0.0, was_there=True
            )
        with lock_of(out / WORK / "lock") as ours:
            if not ours:
                raise UsageError(
                    f"Another process tunes an encoder in {str(out)!r}; wait for it, or give another --out."
                )
            report = _tuned(request, base, clips, losses, out, identity)
        shutil.rmtree(out / WORK, ignore_errors=True)
    return replace(report, seconds=time.perf_counter() - began)


def _base(request: TuneRequest) -> _Base:
    """The encoder that is tuned, with its network. Raises UsageError for one that cannot be."""
    device, text = str(pick_device(request.device)), request.encoder
    if is_reference(text):
        if request.weights is not None:
            raise UsageError(f"Encoder {text!r} names its file itself; write {text.partition('@')[0]}@FILE.")
        reference = parse_reference("frame", text)
        encoder: Encoder = reference.build(device)
        text = reference.base if isinstance(reference, TunedReference) else reference.label
    else:
        if (modality := entry(text).modality) != "frame":
            raise UsageError(
                f"Encoder {text!r} makes {modality!r} streams; only encoders of frames are tuned."
            )
        encoder = build(text, weights=request.weights, device=device)
    tunable_of(encoder)
    return _Base(encoder=encoder, text=text, identity={"name": encoder.name, **encoder.provenance()})


def _clips(request: TuneRequest) -> TuningClips:
    listing = listed(Request(dataset=request.dataset, data=request.data, options=request.options))
    return tuning_clips(listing, use=request.use, labelled=request.labelled)


def _identity(request: TuneRequest, base: _Base, clips: TuningClips) -> str:
    """What the result depends on, as a digest; a tuning of another identity is not continued."""
    states = [[clip, *state_of(source)] for clip, source in clips.sources.items()]
    recipe = asdict(request.recipe)
    head = [request.method, dict(request.settings)] if request.objective == "joint" else []
    parts = [
        request.objective, request.segments, request.seed, recipe, head, dict(base.identity), clips.digest(), states
    ]  # fmt: skip
    return hashlib.sha256(json_text(parts, sort_keys=True).encode()).hexdigest()


def _finished(out: Path, identity: str) -> dict[str, Any] | None:
    """The record of the same tuning where it is finished. Raises UsageError where the folder holds something else."""
    if not (out / RECORD).is_file():
        begun = {WORK, NETWORK, PROJECTION, SUMS}
        if out.exists() and (not out.is_dir() or any(path.name not in begun for path in out.iterdir())):
            raise UsageError(f"{str(out)!r} holds something else than a tuning; give another --out.")
        return None
    record = dict(TunedReference(out).record)
    if record.get("identity") == identity:
        return record
    raise UsageError(
        f"{str(out)!r} holds an encoder that was tuned in another way or on other clips; give another --out."
    )


def _tuned(
    request: TuneRequest, base: _Base, clips: TuningClips, losses: Losses, out: Path, identity: str
) -> TuneReport:
    """Decode, tune and write."""
    work = out / WORK / identity[:16]
    store = decode_clips(
        work / "frames",
        clips.sources,
        base.encoder,
        segments=request.segments,
        workers=request.workers,
        timeout=request.timeout,
    )
    label = None if clips.label is None else clips.label[store.usable]
    tower = tunable_of(base.encoder)
    torch.manual_seed(request.seed)
    objective = _objective(request, base, tower, store, clips, losses).to(tower.device).train()
    weights = _tuned_weights(request, tower)
    batches = Batches(
        store,
        label,
        request.recipe,
        views=objective.views,
        whole=objective.whole,
        episodic=request.objective == "joint",
        seed=request.seed,
    )
    trainer = Trainer(
        tower,
        weights,
        objective,
        batches,
        request.recipe,
        state=work / "state.safetensors",
        identity=identity,
    )
    began = time.perf_counter()
    found = trainer.run(f"tuning {base.encoder.name}")
    seconds = time.perf_counter() - began
    merge_adapters(tower.module)
    about = {
        "identity": identity,
        "loss": curve_of(found),
        "clips": len(store),
        "failed": len(store.failed),
        "head": [request.method, dict(request.settings)] if request.objective == "joint" else None,
    }
    record = _written(request, base, tower, objective, clips, out, about)
    return TuneReport(
        folder=out,
        record=record,
        failed=dict(store.failed),
        seconds=seconds,
        tuning_seconds=seconds,
        was_there=False,
    )


def _objective(
    request: TuneRequest, base: _Base, tower: Tunable, store: ClipStore, clips: TuningClips, losses: Losses
) -> Objective:
    """The objective with what is learned beside the encoder, as the seed draws it."""
    recipe, dim = request.recipe, base.encoder.dim
    if request.objective in ("simclr", "simclrv2"):
        second = request.objective == "simclrv2"
        layers = recipe.layers or (3 if second else 2)
        return Contrast(dim, layers, recipe.kept_layer if second else 0, recipe.temperature, losses)
    if request.objective == "supervised":
        return Supervised(dim, len(clips.classes))
    if request.objective == "joint":
        steps = min(recipe.frames, store.steps)
        given = JointInputs(
            dim=dim, steps=steps, classes=len(clips.classes), way=recipe.n_way, shot=recipe.k_shot
        )
        return Joint(losses.joint(given))
    if sees_patches(tower.module):
        return MaskedPatches(tower, int(store.parts[0].shape[-2]), recipe.mask_share or 0.75, losses)
    if store.steps < 2:
        raise UsageError(
            f"Objective 'mae' hides steps of a clip from {base.encoder.name!r}, and there is one; raise --segments."
        )
    return MaskedSteps(_features(base.encoder, store), recipe.mask_share or 0.5, losses)


def _features(encoder: Encoder, store: ClipStore) -> torch.Tensor:
    """The features [n, T, D] of all clips before the tuning."""
    found = [encoder.encode([store.clip(row)])[0] for row in range(len(store))]
    return torch.from_numpy(np.stack(found))


def _tuned_weights(request: TuneRequest, tower: Tunable) -> list[nn.Parameter]:
    """The weights that are tuned; all others of the network stay as they are.

    Statistics of batch normalisation and dropout stay as they are in evaluation, so that features are those that
    extraction will give.
    """
    recipe = request.recipe
    tower.module.eval().requires_grad_(False)
    low_rank = recipe.adapt == "lora"
    count = recipe.blocks or (len(tower.units) if low_rank else _BLOCKS)
    units = last_units(tower.units, count)
    if low_rank:
        return add_adapters(units, recipe.rank)
    weights = [weight for unit in units for weight in unit.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def _written(
    request: TuneRequest,
    base: _Base,
    tower: Tunable,
    objective: Objective,
    clips: TuningClips,
    out: Path,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write the tuned encoder: its tensors, their digests, and last the record; return the record."""
    save_tensors(out / NETWORK, tower.module.state_dict())
    kept = objective.kept_layers() if isinstance(objective, Contrast) else {}
    if kept:
        save_tensors(out / PROJECTION, kept)
    network = file_sha256(out / NETWORK)
    projection = file_sha256(out / PROJECTION) if kept else ""
    mark = hashlib.sha256((network + projection).encode()).hexdigest()[:_DIGITS]
    record = {
        **about,
        "name": f"tuned-{_slug(base.text)}-{request.objective}-{mark}",
        "encoder": base.text,
        "fsmm": __version__,
        "dim": base.encoder.dim,
        "weights_sha256": network,
        "projection_sha256": projection,
        "kept_layers": request.recipe.kept_layer if kept else 0,
        "tuned_from": base.encoder.name,
        "tuned_from_sha256": base.identity["weights_sha256"],
        "objective": request.objective,
        "tuned_on": f"{clips.dataset}, {_which(request)}",
        "label_set": clips.label_set,
        "base_classes": list(clips.classes),
        "tuned_clips_sha256": clips.digest(),
        "tuned_seed": request.seed,
        "steps": request.recipe.steps,
        "segments": request.segments,
        "recipe": asdict(request.recipe),
    }
    contents = json_text(record, indent=1, sort_keys=True).encode()
    digests = {RECORD: hashlib.sha256(contents).hexdigest(), NETWORK: network}
    write_bytes(out / SUMS, sums_text(digests | ({PROJECTION: projection} if kept else {})).encode())
    write_bytes(out / RECORD, contents)
    return record


def _which(request: TuneRequest) -> str:
    """Which clips of the data set were read, in words."""
    if request.labelled:
        return "base classes"
    return {
        "auto": "unlabelled clips",
        "unlabelled": "unlabelled clips",
        "base": "clips of base classes",
    }.get(request.use, "unlabelled clips and clips of base classes")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-")
