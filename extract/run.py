"""``fsmm extract`` turns a dataset's clips into features in the cache, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..machine.cores import default_workers, half_of_the_cores
from ..machine.memory import keep_freed_memory
from ..machine.progress import silence
from .choose import Chosen, need_extra
from .contract import Sampling
from .datasets.base import DatasetOptions, Listing
from .pipeline.extraction import Extraction
from .pipeline.report import ExtractReport
from .prepared import check, prepare
from .request import FLUSH_SECONDS, TIMEOUT, Engine, Precision, Request, StoredType
from .shards.cluster import extract_on_cluster
from .shards.one import extract_shard
from .shards.plan import Part


def extract(
    dataset: str,
    data: Path | str | None = None,
    cache: Path | str | None = None,
    streams: Sequence[str] | None = None,
    *,
    encoders: Chosen | None = None,
    weights: Mapping[str, Path | str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    compiled: bool = False,
    workers: int | None = None,
    options: DatasetOptions | None = None,
    sampling: Sampling | None = None,
    dtype: StoredType = "float16",
    name: str | None = None,
    into: str | None = None,
    retry_failed: bool = False,
    timeout: float = TIMEOUT,
    flush_seconds: float = FLUSH_SECONDS,
    max_failures: str | None = None,
    shard: str | None = None,
    engine: Engine = "local",
    shards: int | None = None,
    thumbnails: bool = True,
    quiet: bool = False,
) -> ExtractReport:
    """Turn the clips of a dataset into cached features; what the cache holds already is not made again.

    dataset: a name of ``fsmm datasets``; data: its files; cache: ``FSMM_CACHE`` or the user's cache folder where
    None. streams: modalities or ``modality/encoder``; encoders: modality to encoder name or names. With neither:
    frame, flow, audio and word, each by its usual encoder. weights: encoder name to a file of yours.
    device: "auto", "cpu", "cuda". precision: the arithmetic of picture networks, "float32" or "bfloat16"; "auto" for
    bfloat16 on a GPU, or as the stream was begun. compiled: torch compiles picture networks on a GPU, which takes a
    minute or so. workers: processes; None for one a core. name: the dataset's name in
    the cache; into: that of a data set made from other data, which these clips join. retry_failed: try clips again
    that failed before. timeout: seconds a clip may take to decode. flush_seconds: no finished clip waits longer for
    its shard, so that a kill costs no more than that. max_failures: "2%" or a number of clips; more failures end the
    job. shard: "3/16" does the third of sixteen shards alone; engine: "ray" does all shards on the machines of the Ray
    cluster that RAY_ADDRESS names, ``shards`` of them (docs/scale.md). thumbnails: keep a small picture of each
    clip for reports.

    Raises UsageError for a request that cannot be met, WeightsError, CacheError for a cache that cannot be read
    or written, TooManyFailures, and Interrupted after Ctrl-C: in each case all clips finished before are safe, and the
    same call goes on from there. Clips that cannot be read are no error: they are counted, and listed in
    failures.jsonl.
    """
    request = Request(
        dataset=dataset,
        data=None if data is None else Path(data),
        cache=None if cache is None else Path(cache),
        streams=None if streams is None else tuple(streams),
        encoders={
            modality: (names,) if isinstance(names, str) else tuple(names)
            for modality, names in (encoders or {}).items()
        },
        weights={name: Path(path) for name, path in (weights or {}).items()},
        device=device,
        precision=precision,
        compiled=compiled,
        workers=workers,
        options=options or DatasetOptions(),
        sampling=sampling or Sampling(),
        name=name,
        into=into,
        retry_failed=retry_failed,
        timeout=timeout,
        flush_seconds=flush_seconds,
        dtype=dtype,
        max_failures=max_failures,
        shard=shard,
        engine=engine,
        shards=shards,
        thumbnails=thumbnails,
    )
    return carry_out(request, quiet=quiet)


def carry_out(request: Request, *, quiet: bool = False, listing: Listing | None = None) -> ExtractReport:
    """Run the extraction that a request describes. quiet: neither progress nor warnings are shown.

    listing: the clips where they are known already, in place of those of the request's data set.
    """
    need_extra()
    check(request)
    with silence(wanted=quiet):
        return _carried_out(request, listing, quiet=quiet)


def _carried_out(request: Request, listing: Listing | None, *, quiet: bool) -> ExtractReport:
    if request.engine == "ray":
        return extract_on_cluster(request, quiet=quiet)
    prepared = prepare(request, listing)
    keep_freed_memory()
    with half_of_the_cores(of=default_workers(), unless=prepared.device != "cpu"):
        if request.shard is not None:
            return extract_shard(prepared, Part.parse(request.shard), quiet=quiet)
        extraction = Extraction(request, prepared.folder, prepared.listing, prepared.encoders, quiet=quiet)
        return extraction.run(prepared.device)
