"""``FewShotClassifier``: fit and predict, for arrays as scikit-learn does, and for videos by their paths."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from ..cache.clip_streams import ClipStreams
from ..cache.schema import StreamName
from ..errors import DecodeError, UsageError
from ..heads.registry import find
from .few_examples.base_set import BaseSet
from .few_examples.class_words import ClassWords, no_tower
from .few_examples.classifier import Classifier, Progress, make_classifier
from .few_examples.examples import Examples, refuse_scale
from .few_examples.fit_request import AUTO, FitSpec, Scaling
from .few_examples.given import BadExamples, are_named, are_paths, has_steps, like
from .few_examples.model_folder import open_model, save_model
from .few_examples.model_streams import (
    check_origins,
    check_passports,
    stream_entries,
    streams_of,
    with_all_modalities,
)
from .spec import Fusion

if TYPE_CHECKING:
    from ..extract.live import LiveReader
    from ..extract.own_clips import CachedReader, OwnClips


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """A classifier from a few examples of each class.

    ``fit(X, y)`` takes an array [n, D] or [n, T, D], a mapping from modality to such arrays (or ``Examples`` of one),
    or a list of paths of videos; ``predict`` and ``predict_proba`` take what ``fit`` took. Features of videos come from
    the cache, and go there unless ``live`` is set. A fitted object may be used by several threads at once.

    >>> x = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]])
    >>> classifier = FewShotClassifier(method="protonet").fit(x, ["up", "up", "right", "right"])
    >>> classifier.predict([[0.9, 0.2], [0.2, 0.8]]).tolist()
    ['right', 'up']
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        streams: Sequence[str] | None = None,
        modalities: Sequence[str] | None = None,
        fusion: Fusion | None = None,
        normalise: Scaling = "l2",
        settings: Mapping[str, str] | None = None,
        words: str | None = None,
        base: str | Path | None = None,
        cache: str | Path | None = None,
        device: str = "auto",
        workers: int | None = None,
        live: bool = False,
        random_state: int = 0,
    ) -> None:
        """The parameters are kept as they are.

        method: a name of ``fsmm methods``, or auto. streams: for videos, modalities or modality/encoder (None: frame,
        flow and audio). modalities: those that the head reads (None: all). fusion, normalise, settings: of a named
        method. words: the encoder of class names for a method that reads them (None: the text tower of the encoder of
        videos). base: CACHE/DATASET with clips of other classes. cache: the cache of videos' features. device, workers:
        for extraction. live: videos are decoded in this process by encoders that stay loaded, and nothing is stored.
        random_state: the seed of a training on the base set.
        """
        self.method = method
        self.streams = streams
        self.modalities = modalities
        self.fusion = fusion
        self.normalise = normalise
        self.settings = settings
        self.words = words
        self.base = base
        self.cache = cache
        self.device = device
        self.workers = workers
        self.live = live
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, progress: Progress | None = None) -> FewShotClassifier:  # noqa: N803
        """Fit the classifier to examples with their classes ``y`` [n].

        A single path is that of a folder with one subfolder a class, or of a CSV file, and needs no ``y``.
        Raises UsageError (a ValueError for arrays) where there is one class only, or a method cannot take the examples;
        DecodeError where a video cannot be read.
        """
        if isinstance(X, (str, Path)) or are_paths(X):
            own = _own_clips(X, y)
            features = self.reader().read(own)
            for path, reason in features.failed.items():
                raise DecodeError(f"Clip {path!r} cannot be read: {reason}.")
            return self.fit_clips(features, own.labels, progress)
        examples, y = self._checked(X, y)
        self.classes_, label = np.unique(y, return_inverse=True)
        try:
            self.classifier_ = self._made(examples, label, progress=progress)
        except UsageError as error:
            raise BadExamples(str(error)) from None
        return self

    def fit_clips(
        self, features: ClipStreams, labels: Mapping[str, str], progress: Progress | None = None
    ) -> FewShotClassifier:
        """Fit the classifier to the features of videos; labels: the class of each clip that is an example.

        Clips that could not be read are left out. Raises UsageError as ``fit`` does, and where a class has none left.
        """
        rows = [i for i, clip in enumerate(features.clips) if clip in labels and clip not in features.failed]
        examples = Examples(dict(features.streams))[rows] if rows and features.streams else None
        lost = sorted(set(labels.values()) - {labels[features.clips[i]] for i in rows})
        if lost or examples is None:
            raise UsageError(
                f"Class {lost[0]!r} has no example that could be read; the first reason is: "
                f"{next(iter(features.failed.values()), 'there are no features')}."
            )
        clips = [features.clips[i] for i in rows]
        self.classes_, label = np.unique([labels[clip] for clip in clips], return_inverse=True)
        names = {m: features.names[m] for m in examples.modalities}
        self.classifier_ = self._made(examples, label, clips=clips, streams=names, progress=progress)
        self.classifier_.streams = stream_entries(names, features.origins, features.passports)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The class of each clip, [q]."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """The calibrated probabilities [q, N] of each clip's classes, in the order of ``classes_``."""
        return self._fitted().probabilities(self.examples_of(X))

    def predict_sets(self, X: Any, error: float) -> list[list[Any]]:  # noqa: N803
        """The classes that each clip may have; its true class is missing at most at the rate ``error``.

        Raises UsageError where there are fewer examples than that needs (19 for 5 %), with their number.
        """
        classifier = self._fitted()
        sets = classifier.sets(self.predict_proba(X), error)
        return [self.classes_[row].tolist() for row in sets]

    def predict_unknown(self, X: Any, error: float) -> np.ndarray:  # noqa: N803
        """Whether each clip is of none of the classes, bool [q]; clips of the classes are so at the rate ``error``."""
        return self._fitted().unknown(self.examples_of(X), error)

    def save(self, folder: Path | str, *, replace: bool = False, unchanged: bool = False) -> None:
        """Write the model's folder. Raises UsageError where there is something at that place, as save_model says.

        unchanged: refuse to replace a model that another process changed since this one was opened (FsmmError).
        """
        classifier = self._fitted()
        if self.classes_.dtype.kind not in "US":
            raise UsageError("A model's classes are texts; fit with the names of the classes to save it.")
        save_model(classifier, Path(folder), replace=replace, unchanged=unchanged)

    @classmethod
    def open(cls, folder: Path | str, **parameters: Any) -> FewShotClassifier:
        """The classifier of a model's folder. parameters: cache, device, workers and live, as in the constructor.

        Raises UsageError or FsmmError where there is no model, or its files are not as they were written.
        """
        classifier = open_model(Path(folder))
        found = cls(classifier.fitted.choice.method, **parameters)
        found.classifier_ = classifier
        found.classes_ = np.array(classifier.class_names)
        return found

    @property
    def report_(self) -> dict[str, Any]:
        """What the fit found: expected accuracy, candidates, confused classes, calibration, in plain JSON values."""
        return self._fitted().report

    def examples_of(self, X: Any) -> Examples:  # noqa: N803
        """Clips in the form that the classifier reads. Raises UsageError where they lack what it was fitted on."""
        classifier = self._fitted()
        if are_paths(X):
            return self._videos([str(path) for path in X])
        if classifier.streams:
            raise UsageError("This classifier was fitted on videos; give paths of videos.")
        if are_named(X):
            return like(Examples.of(X), classifier.examples)
        if len(classifier.examples.modalities) > 1:
            raise UsageError(
                f"This classifier was fitted on {', '.join(classifier.examples.modalities)}; give a mapping from "
                "modality to array."
            )
        array = self._array(X, reset=False)
        (name,) = classifier.examples.modalities
        return like(Examples.of({name: array}), classifier.examples)

    def clips_of(self, features: ClipStreams) -> Examples:
        """The clips of features in the form that the classifier reads.

        Raises FsmmError where the features were made otherwise than those of the examples, or the encoders here do not
        give the same features of fsmm's built-in clips.
        """
        classifier = self._fitted()
        check_origins(classifier.streams, features.origins)
        check_passports(classifier.streams, features.passports)
        widths = {m: s.x.shape[2] for m, s in classifier.examples.streams.items()}
        return with_all_modalities(features.streams, widths, len(features.clips))

    def reader(self) -> CachedReader | LiveReader:
        """What makes features of videos: through the cache, or with ``live`` by encoders that stay loaded."""
        with _LOADING:
            held: CachedReader | LiveReader | None = self.__dict__.get("_reader")
            if held is None:
                held = self.__dict__["_reader"] = self._new_reader()
        return held

    def _new_reader(self) -> CachedReader | LiveReader:
        from ..extract.live import LiveReader
        from ..extract.own_clips import CachedReader

        fitted = getattr(self, "classifier_", None)
        streams = streams_of(fitted.streams) if fitted is not None else self.streams
        if self.live:
            return LiveReader(streams, device=self.device)
        return CachedReader(
            streams,
            cache=None if self.cache is None else Path(self.cache),
            device=self.device,
            workers=self.workers,
            quiet=True,
        )

    def _fitted(self) -> Classifier:
        check_is_fitted(self, "classifier_")
        classifier: Classifier = self.classifier_
        return classifier

    def _spec(self) -> FitSpec:
        return FitSpec(
            method=self.method,
            fusion=self.fusion,
            modalities=None if self.modalities is None else tuple(self.modalities),
            normalise=self.normalise,
            settings=dict(self.settings or {}),
            words=self.words,
            seed=self.random_state,
        )

    def _made(
        self,
        examples: Examples,
        label: np.ndarray,
        *,
        clips: Sequence[str] | None = None,
        streams: Mapping[str, StreamName] | None = None,
        progress: Progress | None = None,
    ) -> Classifier:
        widths = {name: stream.x.shape[2] for name, stream in examples.streams.items()}
        words = self._class_words(streams or {})
        base = None
        if self.base is not None:
            base = BaseSet.load(self.base, streams or {}, widths, None if words is None else words.stream)
        return make_classifier(
            examples,
            torch.from_numpy(np.asarray(label, np.int64)),
            [str(name) for name in self.classes_],
            self._spec(),
            clips=clips,
            base=base,
            words=words,
            progress=progress,
        )

    def _class_words(self, streams: Mapping[str, StreamName]) -> ClassWords | None:
        """The vectors of the class names, where a method is named that needs them or ``words`` asks for them."""
        if self.method == AUTO:
            if self.words is not None:
                raise UsageError("Method auto tries heads without class words; name a method with --words.")
            return None
        if self.words is None and find(self.method)[0].words != "needed":
            return None
        from ..extract.own_words import text_tower, word_vectors

        encoder = self.words or text_tower(streams.values())
        if encoder is None:
            raise no_tower(self.method)
        stream, vectors = word_vectors(encoder, [str(name) for name in self.classes_], device=self.device)
        return ClassWords(str(stream), torch.from_numpy(vectors))

    def _videos(self, paths: Sequence[str]) -> Examples:
        """The videos at these paths, one row each. Raises DecodeError for the first that cannot be read."""
        from ..extract.own_clips import OwnClips

        if not self._fitted().streams:
            raise UsageError("This classifier was fitted on arrays; give arrays of the same features.")
        each = [next(iter(OwnClips.at([Path(path)]).sources)) for path in paths]
        features = self.reader().read(OwnClips.at([Path(path) for path in paths]))
        for path, reason in features.failed.items():
            raise DecodeError(f"Clip {path!r} cannot be read: {reason}.")
        rows = {clip: i for i, clip in enumerate(features.clips)}
        return self.clips_of(features)[[rows[clip] for clip in each]]

    def _checked(self, X: Any, y: Any) -> tuple[Examples, np.ndarray]:  # noqa: N803
        """Examples and classes of arrays, checked as scikit-learn does."""
        if y is None:
            raise BadExamples("This classifier requires y to be passed, but the target y is None.")
        if are_named(X):
            examples, y = Examples.of(X), column_or_1d(y)
            if len(examples) != len(y):
                raise BadExamples(f"There are {len(examples)} clips and {len(y)} classes; each needs one.")
        elif has_steps(X):
            examples, y = Examples.of(self._array(X, reset=True)), column_or_1d(y, warn=True)
        else:
            X, y = validate_data(self, X, y, dtype=np.float64)  # noqa: N806
            examples = Examples.of(X)
        check_classification_targets(y)
        try:
            refuse_scale(X)
        except UsageError as error:
            raise BadExamples(str(error)) from None
        return examples, np.asarray(y)

    def _array(self, X: Any, *, reset: bool) -> np.ndarray:  # noqa: N803
        """An array of features, [n, D] or [n, T, D], checked as scikit-learn does."""
        if has_steps(X):
            array = check_array(X, allow_nd=True, dtype=np.float64)
            if reset:
                self.n_features_in_ = array.shape[2]
            return np.asarray(array)
        return np.asarray(validate_data(self, X, reset=reset, dtype=np.float64))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_reader"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


_LOADING = threading.Lock()


def _own_clips(x: Any, y: Any) -> OwnClips:
    """The clips of a folder or table of examples, or those at some paths, with their classes ``y``."""
    from ..extract.own_clips import OwnClips

    if isinstance(x, (str, Path)):
        return OwnClips.labelled(Path(x))
    if y is None or len(y) != len(x):
        raise UsageError(
            f"There are {len(x)} clips and {0 if y is None else len(y)} classes; each needs one."
        )
    own = OwnClips.at([Path(path) for path in x])
    each = [next(iter(OwnClips.at([Path(path)]).sources)) for path in x]
    return OwnClips(sources=own.sources, labels=dict(zip(each, map(str, y))), unreadable=own.unreadable)
