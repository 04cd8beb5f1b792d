"""The rows without training that a study's other rows are judged by, on the same episodes and the same features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

from ...episodes.protocol import Protocol, bounds
from ...runs.job import Job
from ...runs.spec import RunSpec, WhenMissing
from ..task_text import described_task
from .data import DataFacts
from .expand import PlannedRun
from .identity import canonical

FREE_BLOCK = "free rows"
"""The name of the block of rows that need no training, which a study has beside its own."""
_HEADS = ("nearest", "protonet", "ridge")
_WORDS = "ridge-words"
_FILLED = "protonet"  # The head that has a row for each way to fill in what clips lack.


def free_rows(runs: Sequence[PlannedRun], facts_of: Callable[[str | None], DataFacts]) -> list[PlannedRun]:
    """The rows without training for each task of a study: each modality alone, all fused late, and by class words.

    Where a task takes modalities from clips, ProtoNet has a row for each way to fill them in, too.
    runs: the study's own runs, with canonical specifications. A task for which such heads are not made (supports and
    queries of different modalities, several labels a clip, base classes among the choices) has no rows.
    """
    tasks: dict[str, list[PlannedRun]] = {}
    for run in runs:
        spec = run.job.spec
        told = [run.job.place.dataset, spec.protocol, spec.normalise, spec.dtype]
        tasks.setdefault(str(told), []).append(run)
    return [row for group in tasks.values() for row in _rows(group, facts_of)]


def _rows(group: Sequence[PlannedRun], facts_of: Callable[[str | None], DataFacts]) -> Iterator[PlannedRun]:
    """The rows of one task, on the streams of its runs."""
    first = group[0].job
    protocol, facts = first.spec.protocol, facts_of(first.place.dataset)
    if protocol.cross_modal or protocol.generalised or "+" in (protocol.label_set or ""):
        return
    used = {stream for run in group for stream in run.job.spec.streams or ()}
    streams = [str(stream) for stream in facts.held if str(stream) in used]
    named = protocol.support_modalities
    streams = [stream for stream in streams if named is None or stream.partition("/")[0] in named]
    shots, _ = bounds(protocol.k_shot)
    choices: list[tuple[str, ...]] = [(stream,) for stream in streams]
    if len({stream.partition("/")[0] for stream in streams}) == len(streams) > 1:
        choices.append(tuple(streams))
    if shots > 0:
        for method in _HEADS:
            for choice in choices:
                yield _planned(first, facts, method, choice)
        if len(choices) > len(streams) and any(loss.rate > 0 for loss in protocol.missing):
            for rule in get_args(WhenMissing):
                if rule != "auto":
                    yield _planned(first, facts, _FILLED, choices[-1], when_missing=rule)
    if facts.word_streams and first.spec.words is not None:
        yield _planned(first, facts, _WORDS, choices[-1])


def _planned(
    first: Job,
    facts: DataFacts,
    method: str,
    streams: tuple[str, ...],
    *,
    when_missing: WhenMissing = "auto",
) -> PlannedRun:
    """The run of a free head on some streams, on the episodes of another run."""
    modalities = tuple(stream.partition("/")[0] for stream in streams)
    protocol = _within(first.spec.protocol, modalities)
    several: dict[str, Any] = {"fusion": "lf"} if len(streams) > 1 else {}
    spec = RunSpec(
        method=method,
        protocol=protocol,
        streams=streams,
        normalise=first.spec.normalise,
        dtype=first.spec.dtype,
        words=first.spec.words,
        train_seed=protocol.seed,
        when_missing=when_missing,
        **several,
    )
    spec = canonical(spec, facts)
    varies = {"method": method, **several, "modalities": modalities, "k_shot": protocol.k_shot}
    fused = " (LF)" if several and spec.fusion else ""
    filled = "" if when_missing == "auto" else f", {when_missing}"
    if filled:
        varies["when_missing"] = when_missing
    label = f"{method}{fused} on {'+'.join(modalities)}{filled}; {described_task(protocol)}"
    job = replace(first, spec=spec, reliability=False, order_certificate=False)
    return PlannedRun(
        block=FREE_BLOCK, label=label, varies=varies, job=job, trained_as=spec, names_dataset=True
    )


def _within(protocol: Protocol, modalities: tuple[str, ...]) -> Protocol:
    """The protocol for a head of these modalities: nothing of the others is carried or missing."""
    return replace(
        protocol,
        missing=tuple(each for each in protocol.missing if each.modality in modalities),
        noisy=tuple(each for each in protocol.noisy if each.modality in modalities),
        support_modalities=None if protocol.support_modalities is None else modalities,
        query_modalities=None if protocol.query_modalities is None else modalities,
    )
