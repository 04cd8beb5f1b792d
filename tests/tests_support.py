"""Synthetic caches and banks with known truth, modules with moved weights, refusals, and the scripts, for all tests."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.header import HEADER_BYTES, file_digest
from fsmm.cache.schema import Provenance, StreamName
from fsmm.cache.stream import StreamWriter
from fsmm.cache.table import Table, TensorTable
from fsmm.errors import FsmmError

M = TypeVar("M", bound=nn.Module)
SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def script(name: str) -> ModuleType:
    """A module of scripts/, whose programs look for one another beside them."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


def sentence_of(read: Callable[[Path], object], folder: Path) -> str:
    """The one sentence by which reading a folder fails."""
    with pytest.raises(FsmmError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    groups: int = 0,
    common: float = 0.0,
    seed: int = 0,
) -> Path:
    """Write a synthetic dataset (base, val, novel thirds) and return the cache folder.

    streams: per stream name (T, D). absent: share of clips that lack each stream (never all of them). groups: the
    number of persons, who take turns. common: the size of what is common to all features.
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
        group=[f"p{i % groups}" if groups else "" for i in range(n)],
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
                x = common + means[label[i]] + noise * rng.normal(size=(steps, dim))
                writer.add(ids[i], None if gone[i, column] else x.astype(np.float32), {"duration": 1.0})
    with StreamWriter(folder, Provenance("toy", "word", 8, axis="class", dtype="float32")) as writer:
        for name in names:
            writer.add(f"event/{name}", rng.normal(size=(1, 8)).astype(np.float32))
    return root


def bank_of(
    x: Tensor | Mapping[str, Tensor],
    label: Tensor,
    length: Tensor | Mapping[str, Tensor] | None = None,
    *,
    split: str = "novel",
    class_id: Tensor | None = None,
    words: Tensor | None = None,
) -> FeatureBank:
    """A bank in memory of clips with these features and labels [n].

    x: features [n, D] or [n, T, D] of the modality "frame", or of several by name. length: valid steps [n], 0 for an
    absent clip, in the same form; None for T everywhere. class_id: ids [C]; None for 0 to C - 1. words: vectors [C, E].
    """
    n, classes = len(label), int(label.max()) + 1
    features = x if isinstance(x, Mapping) else {"frame": x}
    lengths = {"frame": length} if isinstance(length, Tensor) else length or {}
    tables: dict[str, Table] = {}
    for modality, values in features.items():
        values = values[:, None] if values.ndim == 2 else values
        steps = lengths.get(modality, torch.full((n,), values.shape[1]))
        tables[modality] = TensorTable(values, steps, steps > 0)
    return FeatureBank(
        dataset="toy",
        split=split,
        label_set="event",
        class_split="default",
        streams={modality: StreamName(modality, "net") for modality in features},
        tables=tables,
        label=label,
        class_names=[str(i) for i in range(classes)],
        class_id=torch.arange(classes) if class_id is None else class_id,
        clip_row=np.arange(n),
        words=words,
    )


def random_bank(
    shapes: Mapping[str, tuple[int, int]],
    *,
    classes: int,
    clips: int,
    word_dim: int | None = None,
    short: bool = True,
    split: str = "novel",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> FeatureBank:
    """A bank of Gaussian classes with unit features a step, and random class words [C, word_dim] if that is given.

    shapes: (T, D) by modality. clips: clips of a class. short: lengths are drawn from 1 to T, else all are T.
    """
    n, chance = classes * clips, torch.Generator().manual_seed(seed)
    label = torch.arange(classes).repeat_interleave(clips)
    features, lengths = {}, {}
    for modality, (steps, dim) in shapes.items():
        centre = torch.randn(classes, 1, dim, generator=chance)[label]
        x = torch.nn.functional.normalize(centre + torch.randn(n, steps, dim, generator=chance), dim=-1)
        length = torch.randint(1 if short else steps, steps + 1, (n,), generator=chance)
        features[modality] = (x * (torch.arange(steps) < length[:, None])[..., None]).to(dtype)
        lengths[modality] = length
    words = None if word_dim is None else torch.randn(classes, word_dim, generator=chance).to(dtype)
    return bank_of(features, label, lengths, split=split, words=words)


def moved(module: M, by: float, *, chance: torch.Generator | None = None, fixed: Collection[str] = ()) -> M:
    """The module after Gaussian noise of this standard deviation on every weight, so that no path starts at zero.

    chance: the source of the noise; None for torch's own. fixed: last parts of the names of weights that stay.
    """
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name.rpartition(".")[2] not in fixed:
                weight.add_(by * torch.randn(weight.shape, generator=chance, dtype=weight.dtype))
    return module


def flip(path: Path, array: str, byte: int) -> None:
    """Turn one bit of an array of a shard, as a failing disk does; a negative byte counts from the array's end."""
    with h5py.File(path, "r") as file:
        start, size = file[array].id.get_offset(), file[array].nbytes
    content = bytearray(path.read_bytes())
    content[start + byte % size] ^= 1 << (byte % 8)
    path.write_bytes(content)


_SINCE_SCHEMA_2 = ("origins", "origin", "listed", "size", "mtime_ns", "part", "group")


def make_older(path: Path) -> None:
    """Take out of a catalog what schema 1 did not have."""
    with h5py.File(path, "r+") as file:
        for name in _SINCE_SCHEMA_2:
            file["clips"].pop(name, None)
        file.attrs["schema"] = 1
    with open(path, "rb+") as raw:
        raw.write(f"fsmm-catalog 1 sha256={file_digest(path)}\n".encode().ljust(HEADER_BYTES, b"\0"))
