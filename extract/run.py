"""``fsmm extract`` turns a dataset's clips into features in the cache, once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from ..cache.origin import Origin
from ..cache.schema import check_name, dataset_folder, default_cache
from ..errors import UsageError
from ..machine.cores import default_workers, half_of_the_cores
from ..machine.device import pick_device
from ..machine.memory import keep_freed_memory
from ..machine.progress import silence
from .choose import Chosen, build_encoders, choose_streams, need_extra
from .contract import Position, Sampling
from .datasets.base import DatasetOptions, Listing
from .pipeline.extraction import Extraction
from .pipeline.report import ExtractReport
from .request import FLUSH_SECONDS, TIMEOUT, Request, StoredType


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
    dtype: StoredType = "float16",
    name: str | None = None,
    into: str | None = None,
    retry_failed: bool = False,
    timeout: float = TIMEOUT,
    flush_seconds: float = FLUSH_SECONDS,
    quiet: bool = False,
) -> ExtractReport:
    """Turn the clips of a dataset into cached features; what the cache holds already is not made again.

    dataset: a name of ``fsmm datasets``; data: its files; cache: ``FSMM_CACHE`` or the user's cache folder where
    None. streams: modalities or ``modality/encoder``; encoders: modality to encoder name or names. With neither:
    frame, flow, audio and word, each by its usual encoder. weights: encoder name to a file of yours.
    device: "auto", "cpu", "cuda". workers: decoding processes; None for one a core. name: the dataset's name in
    the cache; into: that of a data set made from other data, which these clips join. retry_failed: try clips again
    that failed before. timeout: seconds a clip may take to decode. flush_seconds: no finished clip waits longer for
    its shard, so that a kill costs no more than that.

    Raises UsageError for a request that cannot be met, WeightsError, CacheError for a cache that cannot be read
    or written, and Interrupted after Ctrl-C: in each case all clips finished before are safe, and the same call
    goes on from there. Clips that cannot be read are no error: they are counted, and listed in failures.jsonl.
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
        workers=workers,
        options=options or DatasetOptions(),
        sampling=sampling or Sampling(),
        name=name,
        into=into,
        retry_failed=retry_failed,
        timeout=timeout,
        flush_seconds=flush_seconds,
        dtype=dtype,
    )
    return carry_out(request, quiet=quiet)


def carry_out(request: Request, *, quiet: bool = False) -> ExtractReport:
    """Run the extraction that a request describes. quiet: neither progress nor warnings are shown."""
    need_extra()
    _check(request)
    with silence(wanted=quiet):
        return _carried_out(request, quiet=quiet)


def _carried_out(request: Request, *, quiet: bool) -> ExtractReport:
    chosen = choose_streams(request.streams, request.encoders)
    device = str(pick_device(request.device))
    encoders = build_encoders(chosen, request.weights, device)
    listing = _listing(request)
    folder = (request.cache or default_cache()) / listing.catalog.dataset
    extraction = Extraction(request, folder, listing, encoders, quiet=quiet)
    keep_freed_memory()
    with half_of_the_cores(of=default_workers(), unless=device != "cpu"):
        return extraction.run(device)


def _check(request: Request) -> None:
    """Refuse values that no extraction can have."""
    sampling, dtypes = request.sampling, get_args(StoredType)
    if request.dtype not in dtypes:
        raise UsageError(f"Features are stored as {' or '.join(dtypes)}, not {request.dtype!r}.")
    if request.workers is not None and request.workers < 1:
        raise UsageError(f"--workers must be at least 1; it is {request.workers}.")
    if not request.timeout > 0:
        raise UsageError(f"--timeout must be above 0 seconds; it is {request.timeout:g}.")
    if request.into is not None:
        if request.name is not None:
            raise UsageError(
                "--name gives a data set a name of its own and --into unites it with another; give one."
            )
        dataset_folder(request.cache or default_cache(), request.into)
    if sampling.segments < 1:
        raise UsageError(f"--segments must be at least 1; it is {sampling.segments}.")
    if sampling.position not in get_args(Position):
        raise UsageError(f"--sampling is 'centre' or 'random', not {sampling.position!r}.")


def _listing(request: Request) -> Listing:
    """The clips of the data set, under the requested name."""
    from .datasets import load

    data = None if request.data is None else request.data.expanduser()
    listing = load(request.dataset, data, request.options)
    if listing.origin is None:
        root = "" if data is None else os.path.realpath(data)
        listing = replace(listing, origin=Origin(request.dataset, root, str(listing.root)))
    if (name := request.into or request.name) is None:
        return listing
    return replace(listing, catalog=replace(listing.catalog, dataset=check_name("Dataset", name)))
