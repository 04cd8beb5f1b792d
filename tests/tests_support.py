"""Synthetic caches with known truth, for tests that need to choose the scope of their fixture."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance, StreamName
from fsmm.cache.stream import StreamWriter
from fsmm.cache.table import TensorTable
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Head


def synthetic_cache(
    root: Path,
    *,
    dataset: str = "toy",
    classes: int = 18,
    clips: int = 24,
    streams: dict[str, tuple[int, int]] | None = None,
    noise: float = 1.0,
    absent: float = 0.0,
    unlabelled: int = 0,
    seed: int = 0,
) -> Path:
    """Write a synthetic dataset (base, val, novel thirds) and return the cache folder.

    streams: per stream name (T, D). absent: share of clips that lack each stream (never all of them).
    """
    streams = streams or {"frame/net": (4, 16), "audio/net": (3, 12)}
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.repeat(np.arange(classes), clips), np.full(unlabelled, -1)])
    names = [f"class {i}" for i in range(classes)]
    codes = np.repeat([1, 2, 3], classes // 3)
    n = len(label)
    ids = [f"clip{i}" for i in range(n)]
    folder = root / dataset
    Catalog(
        dataset,
        ids,
        {"event": LabelSet(names, label, splits={"default": codes})},
        "event",
        attrs={"synthetic": "true"},
    ).write(folder)
    gone = rng.random((n, len(streams))) < absent
    gone[gone.all(1), 0] = False
    for column, (stream, (steps, dim)) in enumerate(streams.items()):
        modality, encoder = stream.split("/")
        means = rng.normal(size=(classes + 1, dim))
        with StreamWriter(
            folder, Provenance(encoder, modality, dim, dtype="float32"), max_clips=100
        ) as writer:
            for i in range(n):
                x = means[label[i]] + noise * rng.normal(size=(steps, dim))
                writer.add(ids[i], None if gone[i, column] else x.astype(np.float32), {"duration": 1.0})
    with StreamWriter(folder, Provenance("toy", "word", 8, axis="class", dtype="float32")) as writer:
        for name in names:
            writer.add(f"event/{name}", rng.normal(size=(1, 8)).astype(np.float32))
    return root


def bank_of(x: torch.Tensor, label: torch.Tensor, length: torch.Tensor | None = None) -> FeatureBank:
    """A bank of novel clips with features x [n, D] or [n, T, D], labels [n] and lengths [n], all in memory."""
    n, classes = len(x), int(label.max()) + 1
    x = x[:, None] if x.ndim == 2 else x
    length = torch.full((n,), x.shape[1]) if length is None else length
    table = TensorTable(x, length, length > 0)
    names = [str(i) for i in range(classes)]
    return FeatureBank(
        "simulated",
        "novel",
        "event",
        "default",
        {"frame": StreamName("frame", "x")},
        {"frame": table},
        label,
        names,
        torch.arange(classes),
        np.arange(n),
    )


def moved_head(method: str, settings: dict[str, str], clips: FeatureBank, by: float = 0.1) -> Head:
    """The head after its closed-form statistics, with every weight moved, so that nothing starts at zero."""
    head = build_head(method, inputs_of(clips), settings).eval()
    head.fit_base(clips)
    with torch.no_grad():
        for weight in head.parameters():
            weight.add_(by * torch.randn_like(weight))
    return head


def flip(path: Path, array: str, byte: int) -> None:
    """Turn one bit of an array of a shard, as a failing disk does; a negative byte counts from the array's end."""
    with h5py.File(path, "r") as file:
        start, size = file[array].id.get_offset(), file[array].nbytes
    content = bytearray(path.read_bytes())
    content[start + byte % size] ^= 1 << (byte % 8)
    path.write_bytes(content)
