"""From a study file to its runs: every combination of a block's values, with the places of names filled in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...cache.class_draw import by_each_seed, seed_range
from ...cache.schema import default_cache, list_datasets, list_streams
from ...episodes.protocol import Missing, Protocol, bounds
from ...errors import FsmmError, UsageError
from ...heads.registry import Method, find, methods
from ...runs.job import Job, Place
from ...runs.spec import RunSpec
from .checks import check_names
from .data import DataFacts
from .identity import canonical, check_settings, may_learn
from .optional import lacking
from .options import (
    ALL,
    DEFAULTS,
    EACH,
    JOB_OPTIONS,
    MISSING_OPTIONS,
    MODALITY_OPTIONS,
    SAME,
    SETTINGS,
    SUBSETS,
    OptionError,
)
from .spec import Block, StudyDocument

FIRST = ("first", "second", "third")
"""The names that stand for the data set's modalities in their order: frame, flow, audio, then the others."""
MOST_RUNS = 20_000
"""The number of runs of one study at most: planning them takes about a minute."""
_RUN_FIELDS = {f.name for f in fields(RunSpec)} - {"protocol", "settings"}
_PROTOCOL_FIELDS = {f.name for f in fields(Protocol)}
Choice = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run that a study asks for."""

    block: str
    """The block that asks for it."""
    label: str
    """The text by which a person tells the run from the others of its block."""
    varies: Mapping[str, Any]
    """The options that differ within the block."""
    job: Job
    """The run."""
    trained_as: RunSpec
    """The specification under which its head is trained."""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """The options in which that differs from the run's own."""
    names_dataset: bool = False
    """Whether the file or an override names the run's data set, so that none was asked for it."""


FactsOf = Callable[[str | None], DataFacts]


def expand(
    document: StudyDocument, facts_of: FactsOf, place: Place, overrides: Mapping[str, Any]
) -> list[PlannedRun]:
    """The runs that a study asks for, in the order of its file.

    facts_of: gives what is known of a data set by its name. place: the place of all runs, whose data set is that of
    runs that name none. overrides: options that win over those of the file. Raises UsageError, with the line, for
    options that have no meaning together, and CacheError where the cache does not hold a data set of a block that is
    not optional.
    """
    found, left_out = [], 0
    for number, block in enumerate(document.file.blocks):
        if lacking(document, block, facts_of=facts_of, place=place, overrides=overrides):
            left_out += 1
            continue
        try:
            base = {**document.file.fixed, **block.fixed}
            names = _varying(base, block, overrides)
            for choice, label in _choices(base, block, facts_of=facts_of, place=place, overrides=overrides):
                run = _planned(
                    document, number, choice, label=label, names=names, place=place, overrides=overrides
                )
                facts = facts_of(run.job.place.dataset)
                check_names(run.job.spec, facts)
                job = replace(run.job, spec=canonical(run.job.spec, facts))
                found.append(replace(run, job=job, trained_as=canonical(run.trained_as, facts)))
                refuse_too_many(len(found))
        except OptionError as error:
            raise document.error(_path_of(document, number, error.path[0]), str(error)) from None
        except UsageError as error:
            if document.where in str(error):
                raise
            raise document.error(("blocks", number), str(error)) from None
    if not found and left_out < len(document.file.blocks):
        raise UsageError(f"{document.where}: the study has no run; exclude fewer of them.")
    return found


def refuse_too_many(runs: int) -> None:
    """Raise UsageError for more runs than one study may have."""
    if runs > MOST_RUNS:
        raise UsageError(
            f"the study asks for {runs:,} runs or more, and may have {MOST_RUNS:,}; list fewer values, or make several "
            "studies of it."
        )


def _choices(
    base: Choice, block: Block, *, facts_of: FactsOf, place: Place, overrides: Mapping[str, Any]
) -> Iterator[tuple[Choice, str]]:
    """The options of each run of a block, and its label ("" where the file gives none).

    base: the options that all its runs have. facts_of: gives what is known of a data set. place: the place of all runs.
    """
    rest = {key: values for key, values in block.grid.items() if key not in overrides}
    variants = [_without(variant, overrides) for variant in block.variants] or [{}]
    made: list[Choice] = []
    if block.variants or rest or not block.include:
        refuse_too_many(math.prod(map(len, (variants, *rest.values()))))
        products = itertools.product(variants, *rest.values())
        made = [{**base, **first, **dict(zip(rest, values)), **overrides} for first, *values in products]
    made += [{**base, **_without(entry, overrides), **overrides} for entry in block.include]
    seen: set[str] = set()
    for choice in itertools.chain.from_iterable(_on_each_dataset(choice, place) for choice in made):
        label, facts = str(choice.pop("label", "")), facts_of(choice.get("dataset") or place.dataset)
        for resolved in _resolved(choice, facts):
            excluded = any(_matches(resolved, entry, facts) for entry in block.exclude)
            if not excluded and (text := repr(sorted(resolved.items()))) not in seen:
                seen.add(text)
                yield resolved, label


def _on_each_dataset(choice: Choice, place: Place) -> Iterator[Choice]:
    """The options with a data set in place of ``each``: the one of the place, or every one that holds features."""
    if choice.get("dataset") != EACH:
        yield choice
        return
    cache = default_cache() if place.cache is None else place.cache
    for name in [place.dataset] if place.dataset else list_datasets(cache):
        if list_streams(cache / name):
            yield {**choice, "dataset": name}


def _varying(base: Choice, block: Block, overrides: Mapping[str, Any]) -> list[str]:
    """The names of the options in which a block's runs differ, or may differ where one value stands for several."""
    varying = {key for entry in [*block.variants, *block.include, block.grid] for key in entry}
    varying |= {key for key, value in {**base, **overrides}.items() if _is_spread(key, value)}
    varying -= {"label"} | {key for key in overrides if not _is_spread(key, overrides[key])}
    return sorted(varying, key=lambda key: (_ORDER.index(key) if key in _ORDER else len(_ORDER), key))


_ORDER = (
    *("train_dataset", "dataset", "method", "fusion", "streams", "modalities"),
    *("train_modalities", "support_modalities", "query_modalities", "n_way", "k_shot"),
)


def _losses(value: Sequence[Missing] | str) -> Sequence[Missing]:
    """The modalities that clips lose, as far as a run says it itself: none for the rate that val classes choose."""
    return () if isinstance(value, str) else value


def _without(entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> Choice:
    return {key: value for key, value in entry.items() if key not in overrides}


def _is_spread(key: str, value: Any) -> bool:
    """Whether one value of an option stands for several runs."""
    if key == "method":
        return bool(value == ALL)
    if key in MODALITY_OPTIONS:
        return value in ((EACH,), (SUBSETS,))
    if key in MISSING_OPTIONS:
        return any(m.modality == EACH for m in _losses(value))
    if key == "class_split" and seed_range(value) is not None:
        return True
    return bool(key in ("class_split", "dataset", "train_dataset") and value == EACH)


def _resolved(choice: Choice, facts: DataFacts) -> Iterator[Choice]:
    """The options with names of the data set in place of what stands for them; several where a value is spread."""
    among = _held(choice.get("modalities"), facts)
    spread = {key: [*_values(key, value, facts, among)] for key, value in choice.items() if key != "method"}
    for values in itertools.product(*spread.values()):
        found = dict(zip(spread, values))
        if found.get("query_modalities") == (SAME,):
            found["query_modalities"] = found.get("support_modalities")
        if choice.get("train_dataset") == EACH and not facts.can_train(
            found["train_dataset"], found.get("streams") or found.get("modalities")
        ):
            continue
        if choice.get("method") != ALL:
            yield {**choice, **found}
            continue
        for name, method in methods().items():
            if can_run(method, found, facts):
                yield {**choice, **found, "method": name}


def _held(given: tuple[str, ...] | None, facts: DataFacts) -> tuple[str, ...]:
    """The modalities that clips may lose: those that the run is given by name, or all of the data set."""
    if given is None or given in ((EACH,), (SUBSETS,)):
        return tuple(facts.modalities)
    return tuple(_named(name, facts) for name in given)


def _values(key: str, value: Any, facts: DataFacts, among: Sequence[str]) -> Iterator[Any]:
    """The values that one value of an option stands for; among: the modalities that clips may lose."""
    if key in MODALITY_OPTIONS and value is not None:
        if value == (EACH,):
            yield from ((m,) for m in facts.modalities)
        elif value == (SUBSETS,):
            sizes = range(1, len(facts.modalities) + 1)
            yield from (part for n in sizes for part in itertools.combinations(facts.modalities, n))
        else:
            yield tuple(_named(name, facts) for name in value)
    elif key in MISSING_OPTIONS and isinstance(value, str):
        yield value  # train_missing: auto
    elif key in MISSING_OPTIONS and any(m.modality == EACH for m in value):
        for modality in among:
            yield tuple(replace(m, modality=modality) if m.modality == EACH else m for m in value)
    elif key in MISSING_OPTIONS:
        yield tuple(Missing(_named(m.modality, facts), m.rate, m.side) for m in value)
    elif key == "class_split" and value == EACH:
        yield from facts.class_splits()
    elif key == "class_split":
        yield from _draws(value)
    elif key == "train_dataset" and value == EACH:
        yield from facts.neighbours()
    elif key == "settings.teacher":
        yield _named(value, facts)
    else:
        yield value


def _draws(name: str) -> list[str]:
    """The class splits that a name stands for: itself, or the draw by each seed of its range."""
    seeds = seed_range(name)
    if seeds is not None:
        if not seeds:
            raise UsageError(f"the seeds of {name!r} descend; write the smaller one first.")
        refuse_too_many(seeds[-1] - seeds[0] + 1)
    return by_each_seed(name)


def _named(name: str, facts: DataFacts) -> str:
    """The modality of a name, which may be first, second or third. Raises UsageError where there are not so many."""
    if name not in FIRST or name in facts.modalities:
        return name
    place = FIRST.index(name)
    if place >= len(facts.modalities):
        raise UsageError(
            f"the data set {facts.dataset!r} has no {name} modality; it has {', '.join(facts.modalities)}."
        )
    return facts.modalities[place]


def can_run(method: Method, choice: Mapping[str, Any], facts: DataFacts) -> bool:
    """Whether a method suits the modalities, class words and shots of a run."""
    named = choice.get("modalities") or choice.get("streams") or facts.modalities
    shots = bounds(choice.get("k_shot", Protocol().k_shot))[0]
    if method.modalities == "two" and len(named) < 2:
        return False
    if method.words == "needed" and not facts.word_streams:
        return False
    return shots > 0 or method.zero_shot


def _matches(choice: Mapping[str, Any], entry: Mapping[str, Any], facts: DataFacts) -> bool:
    """Whether a run has all values of an entry of ``exclude``."""
    among = _held(choice.get("modalities"), facts)
    return all(
        choice.get(key, DEFAULTS.get(key)) in [*_values(key, value, facts, among)]
        for key, value in entry.items()
    )


def _planned(
    document: StudyDocument,
    number: int,
    choice: Choice,
    *,
    label: str,
    names: Sequence[str],
    place: Place,
    overrides: Mapping[str, Any],
) -> PlannedRun:
    """The run with these options. Raises UsageError, with the line, where they have no meaning together."""
    block = document.file.blocks[number]
    own = {key: value for key, value in block.trained_as.items() if key not in overrides}
    choice = _without_training(choice, overrides)
    try:
        job = job_of(choice, place)
        trained_as = job_of({**choice, **own}, place).spec
    except FsmmError as error:
        raise document.error(("blocks", number), str(error)) from None
    for key in choice:
        if key.startswith(SETTINGS):
            try:
                check_settings(job.spec, [key.removeprefix(SETTINGS)])
            except UsageError as error:
                raise document.error(_path_of(document, number, key), str(error)) from None
    varies = {key: choice.get(key, DEFAULTS.get(key)) for key in names}
    told = [key for key in names if not label or key in block.grid]
    texts = [label] if label else []
    texts += [f"{short(key)} {value_as_text(key, varies[key])}" for key in told if key in choice]
    return PlannedRun(
        block=block.name,
        label=", ".join(texts) or job.spec.method,
        varies={**({"variant": label} if label else {}), **varies},
        job=job,
        trained_as=trained_as,
        changed=own,
        names_dataset="dataset" in choice,
    )


def _without_training(choice: Choice, overrides: Mapping[str, Any]) -> Choice:
    """The options without those of a recipe that override the file's, where the method has nothing to train."""
    recipe = {key for key in overrides if key.startswith(f"{SETTINGS}train.")}
    if not recipe or "method" not in choice or may_learn(job_of({**choice}, Place()).spec):
        return choice
    return {key: value for key, value in choice.items() if key not in recipe}


def job_of(choice: Mapping[str, Any], place: Place) -> Job:
    """The job with these options. Raises UsageError where a method is missing or a value is out of range."""
    if "method" not in choice:
        raise UsageError("a run names no method; add `method` to fixed, variants or grid.")
    protocol = Protocol(**{key: value for key, value in choice.items() if key in _PROTOCOL_FIELDS})
    settings = {key.removeprefix(SETTINGS): v for key, v in choice.items() if key.startswith(SETTINGS)}
    own = {key: value for key, value in choice.items() if key in _RUN_FIELDS}
    spec = RunSpec(**{"train_seed": protocol.seed, **own}, protocol=protocol, settings=settings)
    find(spec.method)
    more = {key: choice[key] for key in JOB_OPTIONS if key in choice}
    return Job(spec=spec, place=replace(place, dataset=choice.get("dataset") or place.dataset), **more)


def _path_of(document: StudyDocument, number: int, key: str) -> tuple[Any, ...]:
    """The path of the first place of a block that sets an option."""
    block, bare = document.file.blocks[number], key.removeprefix(SETTINGS)
    at = ("blocks", number)
    tables = [(*at, "grid"), (*at, "fixed"), ("fixed",)]
    tables += [(*at, part, i) for part in ("variants", "include") for i in range(len(getattr(block, part)))]
    for table in tables:
        for path in ((*table, key), (*table, bare), (*table, "settings", bare)):
            if path in document.lines:
                return path
    return at


def short(key: str) -> str:
    """The name of an option as a heading shows it.

    >>> short("settings.train.steps"), short("k_shot")
    ('train.steps', 'k_shot')
    """
    return key.removeprefix(SETTINGS)


def value_as_text(key: str, value: Any) -> str:
    """A value of an option as a person reads it.

    >>> value_as_text("modalities", ("frame", "audio")), value_as_text("missing", (Missing("audio", 0.5),))
    ('frame+audio', 'audio=0.5@both')
    >>> value_as_text("modalities", None), value_as_text("dirichlet", None), value_as_text("missing", ())
    ('all', 'none', 'none')
    """
    if value is None:
        return "all" if key in MODALITY_OPTIONS else "none"
    if isinstance(value, tuple):
        ranged = len(value) == 2 and all(isinstance(part, int) for part in value)
        return ("-" if ranged else "+").join(map(str, value)) or "none"
    return str(value)
