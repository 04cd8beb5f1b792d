"""The key of a run is a digest of all that its figures depend on, so that a stored run is used again if it fits.

These are its specification, the extent of its evaluation, the head's settings and recipe with their defaults, the
specification and recipe of its training, the numeric version of the code, and digests of clips, labels and features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..._version import NUMERIC_VERSION
from ...cache.relations.graph import graph_digest
from ...cache.relations.terms import RESERVED
from ...errors import UsageError
from ...heads.build import DEFAULT_FUSION
from ...heads.multimodal.fusion import FusionSettings
from ...heads.registry import Method, base_name, find
from ...heads.settings import Recipe, make_settings, update_settings
from ...runs import filling_choice
from ...runs.digest import digest
from ...runs.job import Job
from ...runs.spec import RunSpec
from .data import DataFacts
from .options import JOB_OPTIONS

_RECIPE, _WRAPPER = "train.", "fusion."
_KEYED_IF_ASKED = ("order_certificate",)
"""The options of a job that are newer than stored runs, whose keys they change only where they are asked for."""


def run_key(job: Job, trained_as: RunSpec, facts: DataFacts) -> str:
    """The key of a run with canonical specifications: ``protonet-0a1b2c3d4e``."""
    chooses = job.spec.when_missing == "auto" and job.spec.protocol.withholds
    content = {
        **({"filling": filling_choice.VERSION} if chooses else {}),
        **_content(job.spec, facts),
        "spec": job.spec.content(),
        "trained_as": trained_as.training_identity() if may_learn(job.spec) else None,
        **{name: str(getattr(job, name)) for name in JOB_OPTIONS if name not in _KEYED_IF_ASKED},
        **{name: True for name in _KEYED_IF_ASKED if getattr(job, name)},
    }
    return f"{job.spec.method}-{digest(content)}"


def head_name(trained_as: RunSpec, facts: DataFacts) -> str | None:
    """The name of the trained head that a run uses, which runs with the same training share; None without training."""
    if not may_learn(trained_as):
        return None
    content = {**_content(trained_as, facts), "training": trained_as.training_identity()}
    return f"{trained_as.method}-{digest(content)}"


def may_learn(spec: RunSpec) -> bool:
    """Whether a run's head may have something to train. Raises UsageError for a setting that it does not have."""
    method, suffix = find(spec.method)
    return method.learns(spec.settings) or "ea" in (spec.fusion, suffix)


def settings_of(spec: RunSpec) -> dict[str, Any]:
    """The settings of a run's head, wrapper and recipe, with their defaults, in plain JSON values.

    Raises UsageError for a setting that the head does not have.
    """
    method, suffix = find(spec.method)
    cls = method.load()
    given = _parts(spec.settings)
    found: dict[str, Any] = {
        "head": asdict(make_settings(cls.Settings, given[""], spec.method)),
        "branches": {name: _defaults(find(name)[0]) for name in method.branches},
    }
    if method.modalities == "one":
        how = spec.fusion or suffix or DEFAULT_FUSION
        found["fusion"] = [how, asdict(make_settings(FusionSettings, given[_WRAPPER], f"fusion {how}"))]
    if may_learn(spec):
        recipe = update_settings(cls.recipe, given[_RECIPE], f"the training of {spec.method}")
        found["recipe"] = asdict(recipe)
    return found


def check_settings(spec: RunSpec, keys: Sequence[str]) -> None:
    """Raise UsageError where the head of a run does not have one of these settings, or not with that value."""
    method, _ = find(spec.method)
    cls, given = method.load(), _parts({key: spec.settings[key] for key in keys})
    make_settings(cls.Settings, given[""], spec.method)
    make_settings(Recipe, given[_RECIPE], f"the training of {spec.method}")
    if given[_RECIPE] and not may_learn(spec):
        raise UsageError(
            f"Method {spec.method!r} has nothing to train; leave out {_RECIPE}{min(given[_RECIPE])}."
        )
    make_settings(FusionSettings, given[_WRAPPER], "fusion")


def _parts(settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The settings of the head (""), the recipe and the wrapper, each by its own key."""
    found: dict[str, dict[str, str]] = {"": {}, _RECIPE: {}, _WRAPPER: {}}
    for key, value in settings.items():
        prefix = next((p for p in (_RECIPE, _WRAPPER) if key.startswith(p)), "")
        found[prefix][key.removeprefix(prefix)] = value
    return found


def _defaults(method: Method) -> dict[str, Any]:
    return asdict(method.load().Settings())


def _content(spec: RunSpec, facts: DataFacts) -> dict[str, Any]:
    """What the figures of any run with this specification depend on beyond its fields."""
    words, streams = None if spec.resolved.words == "no" else spec.words, spec.streams or spec.modalities
    found = {
        "numeric": NUMERIC_VERSION,
        "settings": settings_of(spec),
        "data": facts.digest_of(streams, words, spec.protocol.label_set),
    }
    graph = spec.settings.get("graph", RESERVED[0])
    if spec.resolved.relations and graph not in RESERVED:
        found["relations"] = graph_digest(facts.folder, graph)
    if files := spec.files:
        found["files"] = files
    if spec.train_dataset is not None:
        other = facts.other(spec.train_dataset)
        same = [*map(str, facts.streams(streams))]
        found["training data"] = other.digest_of(same, words, None)
    return found


def canonical(spec: RunSpec, facts: DataFacts) -> RunSpec:
    """The same specification in the one way of writing it: full stream names, label set, and fusion by its own field.

    Runs that differ in spelling alone are then one run, and heads that they train one head.
    """
    streams = facts.streams(spec.streams or spec.modalities)
    method, suffix = find(spec.method)
    how: Any = spec.fusion or suffix or DEFAULT_FUSION
    fuses = method.modalities == "one" and len(spec.modalities or streams) > 1
    label_set = spec.protocol.label_set or facts.catalog.default_label_set
    return replace(
        spec,
        method=base_name(spec.method),
        fusion=how if fuses else None,
        streams=tuple(map(str, streams)),
        modalities=spec.modalities if spec.streams else None,
        protocol=replace(spec.protocol, label_set=label_set),
        train_dataset=None if spec.train_dataset == facts.dataset else spec.train_dataset,
    )
