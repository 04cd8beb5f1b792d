"""A classifier made of a user's examples: a head with its supports, calibrated, with a word on what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UsageError
from .auto_method import (
    Selection,
    confused,
    free_candidates,
    modality_worth,
    select,
    try_candidate,
)
from .base_set import BaseSet, base_candidates, learn
from .calibration import Calibration, calibrated, lac_quantile, lac_scores, lac_sets, probabilities
from .class_words import ClassWords, check_words
from .examples import Examples
from .fit_request import AUTO, FitSpec
from .fitted import FittedHead, HeadChoice, supports_of
from .leave_out import can_be_left_out
from .unknowns import Nearness, Threshold, threshold_by_base, threshold_by_examples

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(kw_only=True)
class Classifier:
    """A fitted head with probabilities, sets, and a threshold for clips of no class."""

    fitted: FittedHead
    """The head and its supports."""
    examples: Examples
    """All examples, in all modalities, also those that the head does not read."""
    clips: list[str]
    """The name of each example."""
    calibration: Calibration
    """The temperature and what it is worth."""
    threshold: Threshold
    """The nearness of clips of known classes."""
    means: Mapping[str, Tensor] = field(default_factory=dict)
    """The mean feature [D] of the base set by modality; empty without one."""
    report: dict[str, Any] = field(default_factory=dict)
    """What the fit found, in plain JSON values."""
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The stream and provenance of each modality, for examples that were videos."""
    read_as: str = ""
    """The list of digests of the model's folder that it was read from; "" for one that was made here."""

    def __post_init__(self) -> None:
        own = self.examples.select(self.fitted.choice.modalities)
        self._near = Nearness(own, self.fitted.label, len(self.class_names), self.means)

    @property
    def class_names(self) -> list[str]:
        return list(self.fitted.class_names)

    @property
    def label(self) -> Tensor:
        """The classes of the examples, int64 [n]."""
        return self.fitted.label

    def probabilities(self, clips: Examples) -> np.ndarray:
        """The calibrated probabilities [q, N]; equal ones for a clip that has none of the head's modalities."""
        logits = self.fitted.logits(clips).double().numpy()
        return probabilities(logits, self.calibration.temperature)

    def sets(self, p: np.ndarray, error: float) -> np.ndarray:
        """Whether each class belongs to the set of each clip, bool [q, N], by probabilities [q, N].

        A set misses the true class at most at the rate ``error``. Raises UsageError where there are too few calibration
        clips for it, with their number.
        """
        return lac_sets(p, lac_quantile(np.asarray(self.calibration.scores), error))

    def check_level(self, error: float) -> None:
        """Raise UsageError where there are too few calibration clips for sets that miss at this rate."""
        lac_quantile(np.asarray(self.calibration.scores), error)

    def nearness(self, clips: Examples) -> np.ndarray:
        """How near each clip is to its nearest class, [q]: a cosine, or minus infinity for a clip without modality."""
        return self._near.of(clips.select(self.fitted.choice.modalities))

    def unknown(self, clips: Examples, error: float) -> np.ndarray:
        """Whether each clip counts as one of no class, bool [q], where this share of clips of the classes may do so."""
        return np.asarray(self.nearness(clips) < self.threshold.at(error))


def make_classifier(
    examples: Examples,
    label: Tensor,
    class_names: Sequence[str],
    spec: FitSpec,
    *,
    clips: Sequence[str] | None = None,
    base: BaseSet | None = None,
    words: ClassWords | None = None,
    progress: Progress | None = None,
) -> Classifier:
    """The classifier of labelled examples, int64 [n] in 0..N-1.

    base: clips of other classes that heads may learn from. words: the vectors of class names. progress: called with
    ("try", candidates done, candidates, figures) and as in training. Raises UsageError where there is one class only,
    or a method cannot take the examples.
    """
    check_classes(label, class_names)
    maker = _Maker(examples, label, class_names, spec, base=base, words=words, progress=progress)
    candidates = maker.candidates()
    fits, trials = [], []
    for number, choice in enumerate(candidates):
        fits.append(maker.fit(choice))
        trials.append(try_candidate(fits[-1]))
        if progress is not None:
            progress("try", number + 1, len(candidates), {})
    selection = select(trials)
    fitted = fits[selection.picked]
    calibration = calibrated(trials[selection.picked].logits, trials[selection.picked].label)
    threshold, means = _threshold(maker, fitted.choice)
    return Classifier(
        fitted=fitted,
        examples=examples,
        clips=list(clips if clips is not None else map(str, range(len(examples)))),
        calibration=calibration,
        threshold=threshold,
        means=means,
        report={
            **_about_examples(fitted, selection, calibration),
            **_about_head(selection, threshold, maker),
        },
    )


def check_classes(label: Tensor, class_names: Sequence[str]) -> None:
    """Raise UsageError where examples are not of two classes or more."""
    if len(class_names) < 2 or len(label.unique()) < 2:
        only = f", {class_names[0]!r}" if len(class_names) else ""
        raise UsageError(
            f"The examples are of {len(class_names)} class{only}; a classifier needs examples of at least two classes."
        )


@dataclass
class _Maker:
    """Makes heads of one set of examples."""

    examples: Examples
    label: Tensor
    class_names: Sequence[str]
    spec: FitSpec
    base: BaseSet | None
    words: ClassWords | None
    progress: Progress | None

    def candidates(self) -> list[HeadChoice]:
        """The heads that are tried: the named one, or those that the examples and the base set allow."""
        spec, modalities = self.spec, self.spec.modalities or tuple(self.examples.modalities)
        own = self.examples.select(modalities)
        if spec.method != AUTO:
            return [self._named(tuple(modalities))]
        ordered = any(stream.x.shape[1] > 1 for stream in own.streams.values())
        found = free_candidates(tuple(modalities), ordered=ordered)
        if len(can_be_left_out(self.label, len(self.class_names))) == 0:
            return found[:1]  # Nothing can be left out, so that nothing can be compared.
        return found + (base_candidates(tuple(modalities)) if self.base is not None else [])

    def _named(self, modalities: tuple[str, ...]) -> HeadChoice:
        spec = self.spec
        choice = HeadChoice(
            method=spec.method,
            fusion=spec.fusion,
            modalities=modalities,
            normalise=spec.normalise,
            settings=spec.settings,
        )
        row = choice.row
        check_words(choice, self.examples, self.words, has_base=self.base is not None)
        fits_base = row.fits_base and row.words != "needed"  # Words in the space of the features need no map.
        learns = row.learns(spec.settings)
        if self.base is None and (fits_base or learns or spec.normalise == "centre-l2"):
            what = "learns from" if learns else "takes the mean or other figures of"
            raise UsageError(
                f"Method {spec.method!r} with normalisation {spec.normalise!r} {what} base classes; name a base set as "
                "--base CACHE/DATASET, or choose another method."
            )
        return choice

    def fit(self, choice: HeadChoice) -> FittedHead:
        """The head of a choice with the examples as its supports."""
        means = None if self.base is None else self.base.means()
        fitted = FittedHead.untrained(
            choice,
            self.examples,
            self.label,
            self.class_names,
            means=means,
            words=None if self.words is None else self.words.vectors,
        )
        if self.base is not None:
            learn(fitted, self.base, seed=self.spec.seed, progress=self._training(choice))
        return fitted

    def _training(self, choice: HeadChoice) -> Callable[[int, int, Mapping[str, float]], None] | None:
        progress = self.progress
        if progress is None:
            return None
        return lambda done, total, figures: progress(f"train {choice.method}", done, total, figures)


def _threshold(maker: _Maker, choice: HeadChoice) -> tuple[Threshold, dict[str, Tensor]]:
    """The threshold of unknown clips, and what features are centred by for it."""
    own, ways, base = maker.examples.select(choice.modalities), len(maker.class_names), maker.base
    if base is not None:
        shots = torch.bincount(maker.label, minlength=ways).tolist()
        found = threshold_by_base(base.base.select(choice.modalities), ways=ways, shots=shots)
        if found.known:
            means = base.means()
            return found, {name: means[name] for name in choice.modalities}
    return threshold_by_examples(Nearness(own, maker.label, ways)), {}


def _about_examples(fitted: FittedHead, selection: Selection, calibration: Calibration) -> dict[str, Any]:
    """What a fit found about its examples, in plain JSON values."""
    names = list(fitted.class_names)
    counts = torch.bincount(fitted.label, minlength=len(names)).tolist()
    return {
        "classes": dict(zip(names, counts)),
        "examples": len(fitted.label),
        "selection": selection.to_dict(),
        "confused": [list(pair) for pair in confused(selection.trials[selection.picked], names)],
        "calibration": {
            "temperature": calibration.temperature,
            "error": calibration.error,
            "error_before": calibration.error_before,
            "clips": len(calibration.scores),
        },
    }


def _about_head(selection: Selection, threshold: Threshold, maker: _Maker) -> dict[str, Any]:
    """What a fit found about its head, in plain JSON values."""
    trial = selection.trials[selection.picked]
    worth = modality_worth(trial.choice, maker.fit, trial)
    return {
        "head": str(trial.choice),
        "modalities": {name: {"gain": gain, "interval": half} for name, (gain, half) in worth.items()},
        "unknown": {
            "source": threshold.source,
            "area": threshold.area(),
            "base_clips": len(threshold.unknown),
        },
        "base": None if maker.base is None else maker.base.name,
        "words": None if maker.words is None else maker.words.stream,
    }


def extended(classifier: Classifier, more: Examples, label: Tensor, clips: Sequence[str]) -> Classifier:
    """The classifier with further examples of its classes: head, method and base statistics stay as they are.

    What describes the examples is found anew: the expected accuracy, the calibration, and the threshold where it was
    told by examples. label: int64 [m] in 0..N-1. Raises UsageError where all of them are supports already.
    """
    new = [i for i, clip in enumerate(clips) if clip not in set(classifier.clips)]
    if not new:
        raise UsageError("All of these clips are examples of the model already; nothing was added.")
    more, label = more[new], label[new]
    old = classifier.fitted
    examples = classifier.examples.joined(more.select(classifier.examples.modalities))
    fitted = replace(
        old,
        supports=supports_of(old.choice, old.head, examples),
        label=torch.cat([old.label, label]),
    )
    trial = try_candidate(fitted)
    selection, calibration = select([trial]), calibrated(trial.logits, trial.label)
    threshold = classifier.threshold
    if threshold.source != "base":
        threshold = threshold_by_examples(Nearness(fitted.supports, fitted.label, len(old.class_names)))
    return replace(
        classifier,
        fitted=fitted,
        examples=examples,
        clips=[*classifier.clips, *(clips[i] for i in new)],
        calibration=calibration,
        threshold=threshold,
        report={**classifier.report, **_about_examples(fitted, selection, calibration)},
    )


def with_calibration_clips(classifier: Classifier, clips: Examples, label: np.ndarray) -> Classifier:
    """The classifier whose sets are calibrated by clips that are no examples of it; their guarantee is then exact."""
    scores = lac_scores(classifier.probabilities(clips), label)
    known = replace(classifier.calibration, scores=tuple(np.sort(scores).tolist()))
    return replace(classifier, calibration=known)
