"""``fsmm extract``: a dataset's clips to features in the cache, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..cache.catalog import Catalog
from ..cache.schema import StreamName, check_name, default_cache, list_streams
from ..errors import UsageError
from ..machine.cores import default_workers, half_of_the_cores
from ..machine.device import pick_device
from ..machine.memory import keep_freed_memory
from .choose import Chosen, build_encoders, choose_streams, need_extra
from .contract import Encoder, Sampling
from .datasets.base import DatasetOptions, Listing
from .pipeline.class_words import Words, embed_words, unknown_words
from .pipeline.clips import FLUSH_SECONDS, Done, Settings, run_clips, writable
from .pipeline.failures import FailureLog
from .pipeline.lane import Clock
from .pipeline.plan import Plan, make_plan
from .pipeline.pool import DEFAULT_TIMEOUT
from .pipeline.progress import make_progress
from .pipeline.report import ExtractReport, StreamReport
from .pipeline.stopping import Interrupted, StopOnSignal
from .pipeline.union import united, with_facts

DTYPES = ("float16", "float32")


def extract(
    dataset: str,
    data: Path | str | None = None,
    cache: Path | str | None = None,
    streams: Sequence[str] | None = None,
    *,
    encoders: Chosen | None = None,
    weights: Mapping[str, Path | str] | None = None,
    device: str = "auto",
    workers: int | None = None,
    options: DatasetOptions | None = None,
    sampling: Sampling | None = None,
    dtype: str = "float16",
    name: str | None = None,
    retry_failed: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
    flush_seconds: float = FLUSH_SECONDS,
    quiet: bool = False,
) -> ExtractReport:
    """Turn the clips of a dataset into cached features; what the cache holds already is not made again.

    dataset: a name of ``fsmm datasets``; data: its files; cache: ``FSMM_CACHE`` or the user's cache folder where
    None. streams: modalities or ``modality/encoder``; encoders: modality to encoder name or names. With neither:
    frame, flow, audio and word, each by its usual encoder. weights: encoder name to a file of yours.
    device: "auto", "cpu", "cuda". workers: decoding processes; None for one a core. name: the dataset's name in
    the cache. retry_failed: try clips again that failed before. timeout: seconds a clip may take to decode.
    flush_seconds: no finished clip waits longer for its shard, so that a kill costs no more than that.

    Raises UsageError for a request that cannot be met, WeightsError, CacheError for a cache that cannot be read
    or written, and Interrupted after Ctrl-C: in each case all clips finished before are safe, and the same call
    goes on from there. Clips that cannot be read are no error: they are counted, and listed in failures.jsonl.
    """
    need_extra()
    sampling = sampling or Sampling()
    _check(dtype, workers, timeout, sampling)
    chosen = choose_streams(streams, encoders)
    device = str(pick_device(device))
    built = build_encoders(chosen, {key: Path(path) for key, path in (weights or {}).items()}, device)
    settings = Settings(sampling, dtype, workers, timeout, flush_seconds)
    listing = _listing(dataset, data, options or DatasetOptions(), name)
    folder = Path(cache) / listing.catalog.dataset if cache else default_cache() / listing.catalog.dataset
    run = _Extraction(folder, listing, built, settings, quiet)
    keep_freed_memory()
    with half_of_the_cores(of=default_workers(), unless=device != "cpu"):
        return run.go(device, retry_failed, _asked_for_split(options))


def _check(dtype: str, workers: int | None, timeout: float, sampling: Sampling) -> None:
    if dtype not in DTYPES:
        raise UsageError(f"Features are stored as {' or '.join(DTYPES)}, not {dtype!r}.")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1; it is {workers}.")
    if not timeout > 0:
        raise UsageError(f"--timeout must be above 0 seconds; it is {timeout:g}.")
    if sampling.segments < 1:
        raise UsageError(f"--segments must be at least 1; it is {sampling.segments}.")
    if sampling.position not in ("centre", "random"):
        raise UsageError(f"--sampling is 'centre' or 'random', not {sampling.position!r}.")


def _listing(dataset: str, data: Path | str | None, options: DatasetOptions, name: str | None) -> Listing:
    from .datasets import load

    listing = load(dataset, Path(data).expanduser() if data is not None else None, options)
    if name is None:
        return listing
    return replace(listing, catalog=replace(listing.catalog, dataset=check_name("Dataset", name)))


def _asked_for_split(options: DatasetOptions | None) -> bool:
    return options is not None and (
        options.split_file is not None or options.split_sizes is not None or options.split_seed != 0
    )


class _Extraction:
    """One run: the catalog first, then words, then clips, then what was learned about the clips."""

    def __init__(
        self, folder: Path, listing: Listing, encoders: Sequence[Encoder], settings: Settings, quiet: bool
    ) -> None:
        self.folder, self.listing, self.settings, self.quiet = folder, listing, settings, quiet
        self.word_encoders = [encoder for encoder in encoders if encoder.modality == "word"]
        self.clip_encoders = [encoder for encoder in encoders if encoder.modality != "word"]
        self.warnings = list(listing.warnings)
        self.words: dict[StreamName, Words] = {}
        self.clock = Clock()

    def go(self, device: str, retry_failed: bool, new_split: bool) -> ExtractReport:
        with StopOnSignal() as stop:
            catalog = self._write_catalog(new_split)
            for encoder in self.word_encoders:
                self._embed(catalog, encoder)
            streams = [StreamName(encoder.modality, encoder.name) for encoder in self.clip_encoders]
            plan = make_plan(self.folder, self.listing, streams, FailureLog(self.folder), retry_failed)
            done = self._run_clips(plan, stop)
            with self.clock("catalog"):
                held = [s for s in list_streams(self.folder) if s.modality != "word"]
                self._write(with_facts(self.folder, catalog, held))
        if done.interrupted:
            raise Interrupted(
                f"Interrupted: {plan.complete + done.done} of {len(self.listing.sources)} clips are in the cache; run "
                "the same command again to continue."
            )
        return self._report(device, plan, done)

    def _write_catalog(self, new_split: bool) -> Catalog:
        catalog = self.listing.catalog
        if (self.folder / "catalog.h5").is_file():
            catalog, notes = united(Catalog.read(self.folder), catalog, new_split)
            self.warnings += notes
        self._write(catalog)
        return catalog

    def _write(self, catalog: Catalog) -> None:
        with writable(self.folder):
            catalog.write(self.folder)

    def _embed(self, catalog: Catalog, encoder: Encoder) -> None:
        stream = StreamName(encoder.modality, encoder.name)
        self.words[stream] = embed_words(self.folder, catalog, encoder, self.settings.dtype, self.clock)
        if sentence := unknown_words(stream, self.words[stream]):
            self.warnings.append(sentence)

    def _run_clips(self, plan: Plan, stop: StopOnSignal) -> Done:
        if self.listing.missing:
            self.warnings.append(_missing_sentence(self.listing))
        with make_progress(len(plan.jobs), self.quiet) as progress:
            if not self.quiet:
                for warning in self.warnings:
                    progress.say(f"warning: {warning}")
            return run_clips(
                self.folder, self.listing, plan, self.clip_encoders, self.settings, progress, stop
            )

    def _report(self, device: str, plan: Plan, done: Done) -> ExtractReport:
        log = FailureLog(self.folder).path
        seconds = {**self.clock.seconds, **done.clock.seconds}
        return ExtractReport(
            self.listing.catalog.dataset,
            str(self.folder),
            device,
            done.workers,
            clips=len(self.listing.sources),
            done=done.done,
            skipped=plan.complete,
            failed=done.failed,
            left_alone=plan.left_alone,
            missing=len(self.listing.missing),
            clips_per_second=round((done.done + done.failed) / done.wall, 3) if plan.jobs else 0.0,
            encoder_busy=round(done.busy, 4) if plan.jobs else 0.0,
            seconds={stage: round(value, 3) for stage, value in seconds.items()},
            streams=[*self._word_reports(), *self._lane_reports(plan, done)],
            warnings=self.warnings,
            failures_file=str(log) if log.is_file() and log.stat().st_size else "",
        )

    def _word_reports(self) -> list[StreamReport]:
        return [
            StreamReport(str(s), encoder.dim, w.written, len(w.unknown), 0, w.held)
            for (s, w), encoder in zip(self.words.items(), self.word_encoders)
        ]

    def _lane_reports(self, plan: Plan, done: Done) -> list[StreamReport]:
        return [
            StreamReport(str(s), lane.encoder.dim, lane.written, lane.absent, lane.failures, held)
            for (s, lane), held in zip(done.lanes.items(), plan.held)
        ]


def _missing_sentence(listing: Listing) -> str:
    shown = ", ".join(listing.missing[:3]) + (", ..." if len(listing.missing) > 3 else "")
    return f"{len(listing.missing)} listed clips have no file ({shown}); they are in failures.jsonl."
