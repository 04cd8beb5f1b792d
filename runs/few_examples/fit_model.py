"""From the features of labelled clips to a model on disk, and from a model and more of them to a larger one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...cache.clip_streams import ClipStreams
from ...errors import FsmmError, UsageError, unknown
from ..estimator import FewShotClassifier
from .classifier import Classifier, Progress, extended, with_calibration_clips
from .fit_request import FitRequest
from .model_folder import check_free


def check_request(request: FitRequest) -> None:
    """Raise UsageError where a request contradicts itself, or its place is taken, before anything is decoded."""
    if request.add and request.replace:
        raise UsageError("--add extends the model and --replace makes a new one; give one of them.")
    if request.add and request.base is not None:
        raise UsageError("--add leaves the head as it is and takes no --base; fit a new model for that.")
    if request.add and not request.out.is_dir():
        raise UsageError(
            f"There is no model at {str(request.out)!r} that --add could extend; leave out --add."
        )
    if not request.add:
        check_free(request.out, replace=request.replace)


def check_labels(labels: Mapping[str, str], support: Path) -> None:
    """Raise UsageError where examples are of one class, before anything is decoded."""
    names = sorted(set(labels.values()))
    if len(names) < 2:
        raise UsageError(
            f"The examples {str(support)!r} are of one class, {names[0]!r}; a classifier needs examples of at least "
            "two."
        )


def fitted_model(
    request: FitRequest, features: ClipStreams, labels: Mapping[str, str], progress: Progress | None = None
) -> FewShotClassifier:
    """A new classifier of labelled clips. Raises UsageError as ``FewShotClassifier.fit_clips`` does."""
    spec = request.spec
    classifier = FewShotClassifier(
        spec.method,
        streams=request.streams,
        modalities=spec.modalities,
        fusion=spec.fusion,
        normalise=spec.normalise,
        settings=spec.settings,
        words=spec.words,
        base=request.base,
        random_state=spec.seed,
    )
    return classifier.fit_clips(features, labels, progress)


def extended_model(
    held: FewShotClassifier, features: ClipStreams, labels: Mapping[str, str]
) -> FewShotClassifier:
    """A model's classifier with further examples of its classes.

    Raises UsageError for a class that the model does not have, and where no clip is new or can be read.
    """
    clips, label = known_classes(held, features, labels)
    rows = [features.clips.index(clip) for clip in clips]
    more = held.clips_of(features)[rows]
    held.classifier_ = extended(held.classifier_, more, torch.from_numpy(label), clips)
    return held


def calibrated_model(
    held: FewShotClassifier, features: ClipStreams, labels: Mapping[str, str]
) -> FewShotClassifier:
    """A classifier whose sets are calibrated by clips that are no examples of it.

    Raises UsageError for a class that the model does not have, and for clips that are examples.
    """
    clips, label = known_classes(held, features, labels)
    classifier: Classifier = held.classifier_
    if twice := sorted(set(clips) & set(classifier.clips)):
        raise UsageError(
            f"Clip {twice[0]!r} is an example of the model; sets are calibrated by clips that are none."
        )
    rows = [features.clips.index(clip) for clip in clips]
    held.classifier_ = with_calibration_clips(classifier, held.clips_of(features)[rows], label)
    return held


def known_classes(
    held: FewShotClassifier, features: ClipStreams, labels: Mapping[str, str]
) -> tuple[list[str], np.ndarray]:
    """The labelled clips that could be read, and their classes as positions among the model's."""
    names = [str(name) for name in held.classes_]
    clips = [clip for clip in features.clips if clip in labels and clip not in features.failed]
    for clip in clips:
        if labels[clip] not in names:
            raise unknown("class of the model", labels[clip], names)
    if not clips:
        raise FsmmError(
            f"None of the clips could be read; the first reason is: "
            f"{next(iter(features.failed.values()), 'none has a label')}."
        )
    return clips, np.array([names.index(labels[clip]) for clip in clips])


def decisions(
    held: FewShotClassifier, features: ClipStreams, reject: float | None = None
) -> list[dict[str, Any]]:
    """One row for each clip: its class, the probability of every class, and what is uncertain about it.

    reject: the error rate; a clip is then "unknown" unless exactly one class may be its own at this rate and it is as
    near to it as clips of known classes are. At most this share of the clips of the model's classes gets a wrong class.
    Raises UsageError where there are too few calibration clips for it.
    """
    classifier: Classifier = held.classifier_
    clips = held.clips_of(features)
    p = classifier.probabilities(clips)
    readable = clips.select(classifier.fitted.choice.modalities).present.numpy()
    sets = None if reject is None else classifier.sets(p, reject)
    strange = None if reject is None else classifier.unknown(clips, reject)
    rows = []
    for i, path in enumerate(features.clips):
        row: dict[str, Any] = {"path": path, "label": None, "probability": None, "note": ""}
        if path in features.failed:
            row["note"] = f"it cannot be read: {features.failed[path]}"
        elif not readable[i]:
            read = " or ".join(classifier.fitted.choice.modalities)
            row["note"] = f"it has no {read}, which is all that the model reads"
        else:
            best = int(p[i].argmax())
            row |= {"label": classifier.class_names[best], "probability": float(p[i, best])}
            row["probabilities"] = dict(zip(classifier.class_names, p[i].tolist()))
            if sets is not None and strange is not None:
                _reject(row, [n for n, held_ in zip(classifier.class_names, sets[i]) if held_], strange[i])
        rows.append(row)
    return rows


UNKNOWN = "unknown"


def _reject(row: dict[str, Any], may_be: list[str], is_strange: bool) -> None:
    """Make a row unknown where its set is not one class, or the clip is unlike those of all classes."""
    row["set"] = may_be
    if is_strange:
        row |= {"label": UNKNOWN, "note": "it is unlike the examples of every class"}
    elif len(may_be) != 1:
        told = f"it may be {' or '.join(may_be)}" if may_be else "no class is likely enough"
        row |= {"label": UNKNOWN, "note": told}
