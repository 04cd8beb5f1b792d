"""A model on disk is a folder of safetensors and JSON, with a list of digests; nothing in it is a pickle.

model.json             head, classes, streams with their provenance, calibration, thresholds, what the fit found
examples.safetensors   the features of the examples, in all modalities
head.safetensors       the weights and base statistics of the head
SHA256SUMS             the digests of the three, written last
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._version import __version__
from ...cache.table import Stream
from ...errors import FsmmError, UsageError
from ...heads.build import build_head
from ...heads.head import Head, Inputs
from ...heads.multimodal.weights import HasWeights, ModalityWeights
from ...machine.digests import SUMS, changed_files, write_sums
from ...machine.files import parsed_json, refuse_special, whole_or_absent, write_json
from ...machine.locks import turn_at
from ...machine.tensors import load_tensors, save_tensors
from ..checkpoint import unfitting
from .calibration import Calibration
from .classifier import Classifier
from .examples import Examples
from .fitted import FittedHead, HeadChoice, supports_of
from .unknowns import Threshold

FORMAT = 1
WORDS = "words"
ABOUT, EXAMPLES, HEAD = "model.json", "examples.safetensors", "head.safetensors"
_FILES = (ABOUT, EXAMPLES, HEAD)


def is_model(folder: Path) -> bool:
    """Whether a folder claims to be a model."""
    return (folder / ABOUT).is_file() or all((folder / name).is_file() for name in (SUMS, EXAMPLES))


def save_model(
    classifier: Classifier, folder: Path, *, replace: bool = False, unchanged: bool = False
) -> None:
    """Write a model's folder, whole or not at all; files of other names in an old one stay.

    unchanged: whether the model that is replaced must be the one that the classifier was read from. Raises UsageError
    where there is something else at that place, or a model and ``replace`` is not given; FsmmError where the head keeps
    more than a model can hold, or the model was changed meanwhile.
    """
    folder = folder.resolve()
    check_free(folder, replace=replace)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    with whole_or_absent(new) as temporary:
        temporary.mkdir()
        _write(classifier, temporary)
        _check_same(classifier, temporary)
    try:
        with turn_at(folder.parent):
            check_free(folder, replace=replace)
            if unchanged and sums_of(folder) != classifier.read_as:
                raise FsmmError(
                    f"Another process changed the model {str(folder)!r} meanwhile; run the same again, so that nothing "
                    "of it is lost."
                )
            _put(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_free(folder: Path, *, replace: bool) -> None:
    """Raise UsageError where no model may be written to a folder."""
    _put_back(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_model(folder):
        raise UsageError(f"{str(folder)!r} exists and is no model; name another place with --out.")
    if not replace:
        raise UsageError(
            f"There is a model at {str(folder)!r} already; name another place with --out, give it more examples with "
            "--add, or have it replaced with --replace."
        )


def open_model(folder: Path) -> Classifier:
    """The classifier of a model's folder, after its digests are compared with the files.

    Raises UsageError where it is no model, FsmmError where a file is gone, changed or of a later format.
    """
    folder = folder.resolve()
    if not folder.parent.is_dir():
        raise _no_model(folder)
    with turn_at(folder.parent, shared=True):
        _put_back(folder)
        return _opened(folder)


def _no_model(folder: Path) -> UsageError:
    return UsageError(f"{str(folder)!r} is no model; `fsmm fit --support DIR --out MODEL` makes one.")


def _opened(folder: Path) -> Classifier:
    if not folder.is_dir() or not is_model(folder):
        raise _no_model(folder)
    for name in (*_FILES, SUMS):
        refuse_special(folder / name, "file of a model", error=FsmmError)
        if not (folder / name).is_file():
            raise FsmmError(
                f"The model {str(folder)!r} lacks its file {name}; copy the whole folder again, or fit it anew."
            )
    if changed := changed_files(folder, _FILES):
        raise FsmmError(
            f"The model {str(folder)!r} is not as it was written: {' and '.join(changed)} changed; copy it again, or "
            "fit it anew."
        )
    try:
        about = parsed_json((folder / ABOUT).read_text("utf-8"))
        if about["format"] > FORMAT:
            raise FsmmError(
                f"The model {str(folder)!r} is of format {about['format']}, which this fsmm ({__version__}) does not "
                "know; open it with a newer one."
            )
        return replace_fields(_read(about, folder), read_as=sums_of(folder))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FsmmError(f"The model {str(folder)!r} cannot be read ({error}); fit it anew.") from None


def sums_of(folder: Path) -> str:
    """The list of digests of a model's folder, which tells it from every other; "" where there is none."""
    path = folder / SUMS
    return path.read_text("utf-8") if path.is_file() else ""


def _put(new: Path, folder: Path) -> None:
    """Put a new model at the place of an old one, which stands beside it until that is done."""
    old = _aside(folder)
    shutil.rmtree(old, ignore_errors=True)  # What an interrupted writer left, whose new model is there.
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    if old.exists():
        for path in old.iterdir():
            if path.name not in (*_FILES, SUMS):
                path.rename(folder / path.name)
        shutil.rmtree(old)


def _put_back(folder: Path) -> None:
    """Put an old model back where a process ended between its removal and the arrival of the new one."""
    if not folder.exists() and is_model(_aside(folder)):
        with suppress(OSError):  # Another process put it back, or this one may not.
            _aside(folder).rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _write(classifier: Classifier, folder: Path) -> None:
    fitted = classifier.fitted
    save_tensors(folder / EXAMPLES, _example_tensors(classifier))
    save_tensors(folder / HEAD, fitted.head.state_dict(), {"inputs": json.dumps(_inputs(fitted.head.inputs))})
    write_json(folder / ABOUT, _about(classifier))
    write_sums(folder, _FILES)


def _about(classifier: Classifier) -> dict[str, Any]:
    fitted = classifier.fitted
    head = fitted.head
    share = dict(head.weights.share) if isinstance(head, HasWeights) else None
    return {
        "format": FORMAT,
        "fsmm_version": __version__,
        "head": {**asdict(fitted.choice), "inputs": _inputs(head.inputs), "modality_weights": share},
        "classes": classifier.class_names,
        "clips": classifier.clips,
        "streams": classifier.streams,
        "calibration": {**asdict(classifier.calibration), "scores": list(classifier.calibration.scores)},
        "threshold": asdict(classifier.threshold),
        "report": classifier.report,
    }


def _example_tensors(classifier: Classifier) -> dict[str, Tensor]:
    found = {"label": classifier.label}
    for name, stream in classifier.examples.streams.items():
        found |= {f"{name}.x": stream.x, f"{name}.length": stream.length}
    found |= {f"{name}.mean": mean for name, mean in classifier.means.items()}
    found |= {f"{name}.head_mean": mean for name, mean in (classifier.fitted.means or {}).items()}
    if classifier.fitted.words is not None:
        found[WORDS] = classifier.fitted.words
    return found


def _inputs(inputs: Inputs) -> dict[str, Any]:
    return {
        "streams": [
            [name, *shape] for name, shape in inputs.streams.items()
        ],  # in the order of a joint feature
        "word_dim": inputs.word_dim,
        "base_classes": inputs.base_classes,
        "way": inputs.way,
        "shot": inputs.shot,
    }


def _read(about: Mapping[str, Any], folder: Path) -> Classifier:
    tensors, _ = load_tensors(folder / EXAMPLES)
    names = [name.removesuffix(".x") for name in tensors if name.endswith(".x")]
    examples = Examples(
        {
            name: Stream(tensors[f"{name}.x"], tensors[f"{name}.length"] > 0, tensors[f"{name}.length"])
            for name in names
        }
    )
    values = dict(about["head"])
    inputs, share = values.pop("inputs"), values.pop("modality_weights")
    choice = HeadChoice(**{**values, "modalities": tuple(values["modalities"])})
    head = _head(choice, inputs, share, folder)
    head_means = {n: tensors[f"{n}.head_mean"] for n in choice.modalities if f"{n}.head_mean" in tensors}
    fitted = FittedHead(
        choice=choice,
        head=head,
        supports=supports_of(choice, head, examples),
        label=tensors["label"],
        class_names=about["classes"],
        means=head_means or None,
        words=tensors.get(WORDS),
    )
    calibration, threshold = about["calibration"], about["threshold"]
    return Classifier(
        fitted=fitted,
        examples=examples,
        clips=list(about["clips"]),
        calibration=Calibration(**{**calibration, "scores": tuple(calibration["scores"])}),
        threshold=Threshold(
            **{**threshold, "known": tuple(threshold["known"]), "unknown": tuple(threshold["unknown"])}
        ),
        means={name: tensors[f"{name}.mean"] for name in names if f"{name}.mean" in tensors},
        report=about["report"],
        streams=about["streams"],
    )


def _head(
    choice: HeadChoice, inputs: Mapping[str, Any], share: Mapping[str, float] | None, folder: Path
) -> Head[Any]:
    given = Inputs(
        streams={name: (steps, dim) for name, steps, dim in inputs["streams"]},
        word_dim=inputs["word_dim"],
        base_classes=inputs["base_classes"],
        way=inputs["way"],
        shot=inputs["shot"],
    )
    settings = {k: v for k, v in choice.settings.items() if not k.startswith("train.")}
    head = build_head(choice.method, given, settings, choice.fusion)
    weights, _ = load_tensors(folder / HEAD)
    if fault := unfitting(head.state_dict(), weights):
        raise FsmmError(f"The head of the model {str(folder)!r} does not fit: {fault}; fit it anew.")
    head.load_state_dict(weights)
    if share is not None and isinstance(head, HasWeights):
        head.weights = ModalityWeights(share=share)
    return head


def _check_same(classifier: Classifier, folder: Path) -> None:
    """Raise FsmmError where the model on disk does not decide as the one in memory does."""
    again = open_model(folder)
    clips = classifier.examples[: min(8, len(classifier.examples))]
    if not torch.allclose(again.fitted.logits(clips), classifier.fitted.logits(clips), atol=1e-5, rtol=1e-4):
        raise FsmmError(
            f"Method {classifier.fitted.choice.method!r} keeps something that a model cannot hold; choose another."
        )
