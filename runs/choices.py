"""What each choice of a run was made on, so that a reader sees that nothing was chosen on the tested classes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..heads.decided import On
from ..heads.head import Head
from ..heads.multimodal.weights import HasWeights
from .banks import Banks
from .filling_choice import FillingChoice
from .generalised import Generalised
from .job import Job
from .result import Result
from .spec import RunSpec

_RECIPE = "train."


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One choice of a run."""

    what: str
    """What was chosen."""
    value: Any
    """The value, as a plain JSON value."""
    on: On
    """What it was made on: base, val, base and val, supports (each task's own), given (by the user), or none."""


def choices_of(
    job: Job,
    banks: Banks,
    head: Head,
    *,
    stopped: str,
    result: Result | None,
    filling: FillingChoice | None = None,
) -> list[dict[str, Any]]:
    """The choices of the run of a job, as plain JSON values.

    stopped: when and why the training of the head stopped; empty where there was none. result: that of the evaluation,
    or None where there is none yet. filling: what was chosen for modalities that clips lack, or None.
    """
    spec = job.spec
    found = [
        *_of_training(job, banks, stopped),
        _normalisation(spec, banks),
        *_weights(job, head),
        *_settings(job, head, has_val=not banks.method.fits_val or banks.val is not None),
        *_rule(result),
        *_filling(filling),
    ]
    return [asdict(choice) for choice in found]


def _of_training(job: Job, banks: Banks, stopped: str) -> Iterator[Choice]:
    """The recipe, and the state that was kept."""
    if not stopped:
        return
    yield Choice(what="recipe", value="the method's own", on="none")
    yield from _set(job, "recipe", {key for key in job.spec.settings if key.startswith(_RECIPE)})
    by_val = banks.val is not None and "train.steps is 0" not in stopped
    yield Choice(what="state of the training", value=stopped, on="val" if by_val else "none")


def _normalisation(spec: RunSpec, banks: Banks) -> Choice:
    """How features are scaled."""
    on: On = "none" if spec.normalise == RunSpec(method="").normalise else "given"
    if banks.choice is not None:
        has = (banks.choice.base_classes > 0, banks.choice.val_classes > 0)
        on = "base and val" if all(has) else "base" if has[0] else "val"
    return Choice(what="normalisation", value=banks.normalise, on=on)


def _weights(job: Job, head: Head) -> Iterator[Choice]:
    """What the modalities weigh."""
    if not isinstance(head, HasWeights):
        return
    asked = {"weights", "fusion.weights"} & job.spec.settings.keys()
    on: On = "given" if asked and not head.fits_weights else "none"
    if on == "given" and asked & _tuned(job).keys():
        on = job.tuned_on
    if head.weights.gain is not None:
        on = "base"
    yield Choice(what="weights of modalities", value=dict(head.weights.share), on=on)


def _settings(job: Job, head: Head, *, has_val: bool) -> Iterator[Choice]:
    """The settings of the head: those that are set, those that it chose, and what it decides otherwise.

    has_val: whether there are val classes, if the method chooses by them.
    """
    yield Choice(what="settings", value="the method's own", on="none")
    yield from _set(job, "settings", {key for key in job.spec.settings if not key.startswith(_RECIPE)})
    chosen, decided = head.chosen(), _decided(head)
    for key, value in chosen.items():
        name = key.rpartition(".")[2]
        own: On = "val" if name.startswith("val accuracy") else decided.get(name, "base")
        yield Choice(what=key, value=value, on="base" if own == "base and val" and not has_val else own)
    for key, on in decided.items():
        if key not in chosen and on in ("supports", "none"):
            yield Choice(what=key, value="in each task" if on == "supports" else "fixed", on=on)


def _set(job: Job, what: str, keys: Collection[str]) -> Iterator[Choice]:
    """The settings of these keys: those that a tuning chose, with its name, and those that the user gave."""
    values = {key: value for key, value in job.spec.settings.items() if key in keys}
    tuned = {key: value for key, value in _tuned(job).items() if key in keys}
    given = {key.removeprefix(_RECIPE): value for key, value in values.items() if key not in tuned}
    if tuned:
        named = {key.removeprefix(_RECIPE): value for key, value in tuned.items()}
        yield Choice(what=f"{what}, tuned", value={**named, "by": job.tuned_by}, on=job.tuned_on)
    if given:
        yield Choice(what=f"{what}, otherwise", value=given, on="given")


def _tuned(job: Job) -> Mapping[str, str]:
    """The settings that are still as a tuning chose them."""
    return {key: value for key, value in job.tuned_settings.items() if job.spec.settings.get(key) == value}


def _decided(head: Head) -> Mapping[str, On]:
    """What the choices of a head, and of the heads that it is built of, are made on."""
    heads = [module for module in head.modules() if isinstance(module, Head)]
    return {key: decided.on for each in heads for key, decided in each.decided.items()}


def _rule(result: Result | None) -> Iterator[Choice]:
    """What tells seen from unseen classes in a generalised test."""
    if isinstance(result, Generalised):
        rule = {"kind": result.choice.rule.kind, "above": result.cut}
        yield Choice(what="seen or unseen", value=rule, on=result.choice.on)


def _filling(found: FillingChoice | None) -> Iterator[Choice]:
    """What becomes of modalities that clips lack, where that was chosen."""
    if found is None:
        return
    on: On = "base and val" if len(found.parts) > 1 else "none"
    if len(found.parts) == 1:
        on = "base" if found.parts == ["base"] else "val"
    yield Choice(what="what clips lack", value={"support": found.support, "query": found.query}, on=on)


def choices_text(choices: Any) -> str:
    """What choices were made on, as one text; choices: those of metrics.json, which older runs do not have.

    >>> choices_text([{"what": "recipe", "value": {}, "on": "none"}, {"what": "bias", "value": 1, "on": "val"}])
    'val: bias; none: recipe'
    """
    by: dict[str, list[str]] = {}
    for choice in choices or ():
        by.setdefault(str(choice["on"]), []).append(str(choice["what"]))
    order = ("base", "val", "base and val", "supports", "given", "none")
    return "; ".join(f"{on}: {', '.join(by[on])}" for on in order if on in by)
