"""For tests of the Ray engine: real clusters of several nodes on this machine, which tests may kill."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

STORE_BYTES = 80 << 20  # the smallest object store that Ray allows is 75 MiB


@contextmanager
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """A cluster of two nodes with one slot each, and the node that may be killed; its address is in RAY_ADDRESS."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    place = tempfile.mkdtemp(
        prefix="fr", dir="/tmp"
    )  # Ray makes sockets below it, whose paths must be short.
    few = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED")}
    os.environ.update(RAY_TMPDIR=place, RAY_USAGE_STATS_ENABLED="0")
    cluster = Cluster(initialize_head=True, head_node_args=few)
    try:
        second = cluster.add_node(**few)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster, second
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
