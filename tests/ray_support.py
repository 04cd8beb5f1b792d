"""For tests of the Ray engine: real clusters on this machine, whose nodes tests may kill."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

FEW: Mapping[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
"""The parameters of a node with one slot; the smallest object store that Ray allows is 75 MiB."""


@contextmanager
def cluster_of(**head: Any) -> Iterator[Any]:
    """A cluster of one node, whose address is in RAY_ADDRESS."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    place = tempfile.mkdtemp(
        prefix="fr", dir="/tmp"
    )  # Ray makes sockets below it, whose paths must be short.
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED")}
    os.environ.update(RAY_TMPDIR=place, RAY_USAGE_STATS_ENABLED="0")
    cluster = Cluster(initialize_head=True, head_node_args={**FEW, **head})
    try:
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(place, ignore_errors=True)
