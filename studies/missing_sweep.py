"""A missing sweep measures one head, trained once, at rising rates of a missing modality."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ..episodes.protocol import Missing
from ..errors import NoClips
from ..runs.filling_choice import known_base
from ..runs.job import Job
from ..runs.kept_and_lost import KeptAndLost
from ..runs.measure import check_meaning
from ..runs.run import Run, check_modalities, finish, folder_of, load, ready, with_protocol
from ..runs.spec import Progress, RunSpec
from .numbered import numbered

RATES = tuple(i / 10 for i in range(11))


def missing_sweep(job: Job, what: str, progress: Progress | None = None) -> list[Run]:
    """One run at each missing rate 0, 0.1 ... 1 of ``what``, all on the same episodes.

    What is the same for all rates is done once: the training, what fills clips, and for heads that decide each query
    alone their predictions with the modality and without it. Where the number of episodes is not given, each rate draws
    as many as it needs, and all begin with the same ones.
    what: ``modality@side``, such as audio@query; the side defaults to query. Each rate's run is written to a folder of
    its own below the job's folder. Raises UsageError for a modality that is not loaded.
    """
    job, banks = load(job)
    specs = {rate: at_rate(job.spec, what, rate) for rate in RATES}
    for spec in specs.values():
        check_modalities(spec, banks.test)
        check_meaning(spec.protocol, banks.test)
    trained = ready(replace(job, reliability=False, order_certificate=False), banks, progress)
    known, rates, runs = None, KeptAndLost(what.partition("@")[0]), []
    with suppress(NoClips):
        known = known_base(job.spec, banks)
    for number, (rate, spec) in enumerate(specs.items(), 1):
        place = replace(job.place, out=folder_of(job) / f"missing-{rate:g}")
        step = replace(job, spec=spec, place=place, reliability=False, order_certificate=False)
        told = numbered(progress, number, len(specs))
        runs.append(finish(replace(trained, job=step), told, known=known, rates=rates))
    return runs


def at_rate(spec: RunSpec, what: str, rate: float) -> RunSpec:
    """``spec`` with ``what`` (``modality@side``) missing at ``rate``, in place of its other rates of that modality."""
    modality, _, side = what.partition("@")
    others = (m for m in spec.protocol.missing if m.modality != modality)
    return with_protocol(spec, missing=(*others, Missing.parse(f"{modality}={rate:g}@{side or 'query'}")))
