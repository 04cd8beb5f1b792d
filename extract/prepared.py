"""What an extraction needs before it begins: the clips that it lists, and the encoders that it uses."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from ..cache.origin import Origin
from ..cache.schema import StreamName, check_name, dataset_folder, default_cache
from ..cache.stream import stream_provenance
from ..errors import UsageError
from ..errors import listed as joined
from ..machine.device import pick_device
from .choose import (
    build_encoders,
    choose_streams,
    compile_networks,
    fit_to_sampling,
    fit_to_series,
    references_of,
)
from .contract import Encoder, Position
from .datasets.base import Listing
from .pipeline.budget import Limit
from .request import Precision, Request, StoredType


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request whose data set is listed and whose encoders are loaded."""

    request: Request
    """The request."""
    folder: Path
    """The folder of the data set in the cache."""
    listing: Listing
    """The clips of the data set."""
    encoders: list[Encoder]
    """The encoders of the streams, in their order."""
    device: str
    """The device that encodes."""


def prepare(request: Request, listing: Listing | None = None) -> Prepared:
    """List the clips of a request and load its encoders. Raises UsageError and WeightsError.

    listing: the clips, where they are listed already.
    """
    device = str(pick_device(request.device))
    chosen = choose_streams(
        request.streams, request.encoders
    )  # A wrong name is refused before any folder is read.
    listing = listing or listed(request)
    if request.streams is None and not request.encoders and listing.streams:
        chosen = choose_streams(listing.streams, request.encoders)
    folder = (request.cache or default_cache()) / listing.catalog.dataset
    precision = {stream: arithmetic(request.precision, device, folder, stream) for stream in chosen}
    encoders = build_encoders(
        chosen, request.weights, device, references_of(request.encoders), precision=precision
    )
    if request.compiled:
        compile_networks(encoders, device)
    fit_to_series(encoders, listing.axes, listing.catalog.dataset)
    fit_to_sampling(encoders, request.sampling)
    return Prepared(request=request, folder=folder, listing=listing, encoders=encoders, device=device)


def arithmetic(wanted: Precision, device: str, folder: Path, stream: StreamName) -> str:
    """The arithmetic of a stream's network: what is wanted, or that in which the stream was begun, or the device's."""
    if wanted != "auto":
        return wanted
    begun = stream_provenance(folder, stream)
    if begun is not None:
        return begun.extra.get("arithmetic", "float32")
    return "float32" if device.startswith("cpu") else "bfloat16"


def check(request: Request) -> None:
    """Refuse values that no extraction can have."""
    sampling, dtypes = request.sampling, get_args(StoredType)
    if request.dtype not in dtypes:
        raise UsageError(f"Features are stored as {' or '.join(dtypes)}, not {request.dtype!r}.")
    if request.precision not in get_args(Precision):
        raise UsageError(f"--precision is one of {joined(get_args(Precision))}, not {request.precision!r}.")
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
    if not 0 < sampling.hop <= sampling.window < math.inf:
        raise UsageError(
            f"--window is {sampling.window:g} s and --hop {sampling.hop:g} s; both must be above 0, "
            "and a hop no longer than a window."
        )
    if sampling.position not in get_args(Position):
        raise UsageError(f"--sampling is 'centre' or 'random', not {sampling.position!r}.")
    _check_sharing(request)


def _check_sharing(request: Request) -> None:
    """Refuse values that no shared extraction can have."""
    if request.max_failures is not None:
        Limit.parse(request.max_failures)
    if request.shards is not None and request.shards < 1:
        raise UsageError(f"--shards must be at least 1; it is {request.shards}.")
    if request.shards is not None and request.engine == "local":
        raise UsageError("--shards is for --engine ray; one shard by itself is done by --shard I/N.")
    if request.shard is not None and request.engine != "local":
        raise UsageError("--shard does one shard on this machine; --engine ray does them all: give one.")
    if request.into is not None and (request.shard is not None or request.engine != "local"):
        raise UsageError(
            "--into cannot be used with shards; extract the clips under a --name of their own, and unite the caches by "
            "`fsmm cache merge --any-origin`."
        )


def listed(request: Request) -> Listing:
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
