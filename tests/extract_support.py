"""For tests of the extraction: small real clips, and stand-in encoders that decoding workers can import by name."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import h5py
import numpy as np

import fsmm
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import StreamName, shard_paths
from fsmm.cache.shard import read_shard
from fsmm.errors import DecodeError, WeightsError
from fsmm.extract.contract import FrameNeed, Need, TextNeed
from fsmm.extract.datasets.base import Listing, Source
from fsmm.extract.pipeline.report import ExtractReport

WHITE = 0xFFFF
SOUND = "audio/logmel-mfcc"


def load_makers() -> ModuleType:
    """extract/makers.py, for tests outside that folder."""
    path = Path(__file__).parent / "extract" / "makers.py"
    spec = importlib.util.spec_from_file_location("fsmm_test_makers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def videos(root: Path, count: int, classes: int = 4) -> Path:
    """``count`` different short videos in class folders; every fifth has no sound."""
    makers = load_makers()
    for i in range(count):
        path = root / f"class{i % classes}" / f"{i:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        makers.video(
            path,
            frames=12 + i % 5,
            picture=lambda k, w, h, i=i: makers.numbered((k * 7 + i * 31) % WHITE, w, h),
            sound=None if i % 5 == 4 else 200.0 + 20 * i,
        )
    return root


def film(path: Path, hertz: float) -> Path:
    """A short video whose sound and pictures depend on ``hertz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    makers, pitch = load_makers(), int(hertz)
    makers.video(
        path, frames=8, picture=lambda k, w, h: makers.numbered((k * 9 + pitch) % 0xFFFF, w, h), sound=hertz
    )
    return path


def extracted(data: Path, cache: Path, *streams: str, kind: str = "folder", **given: Any) -> ExtractReport:
    """The report of a quiet extraction with one worker, of the sound if no stream is named."""
    given = {"quiet": True, "workers": 1, **given}
    report: ExtractReport = fsmm.extract(kind, data, cache, streams or [SOUND], **given)
    return report


def spoil_pictures(path: Path) -> Path:
    """Replace all video packets of a file by noise."""
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    data, noise = bytearray(path.read_bytes()), np.random.default_rng(0)
    for place, size in places:
        data[place : place + size] = noise.integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return path


def stills(root: Path, numbers: Sequence[int]) -> Listing:
    """A listing of one-picture clips ``c000`` ..., clip i showing ``numbers[i]`` (WHITE: all white)."""
    makers = load_makers()
    root.mkdir(parents=True, exist_ok=True)
    ids = [f"c{i:03d}" for i in range(len(numbers))]
    sources = {}
    for clip, number in zip(ids, numbers):
        path = makers.image(root / f"{clip}.png", makers.numbered(number, 32, 32))
        sources[clip] = Source(images=(path,))
    labels = LabelSet(["a", "b"], np.arange(len(ids)) % 2)
    return Listing(Catalog("stills", ids, {"class": labels}, "class"), sources, root)


class Tint:
    """Mean colour of each frame [T, 3]. ``on_white`` says how it misbehaves where a clip is all white."""

    modality, dim, batch_clips = "frame", 3, 4
    need: Need = FrameNeed(segments=2, size=16)

    def __init__(self, on_white: str = "", name: str = "tint") -> None:
        self.on_white, self.name = on_white, name
        self.batches: list[int] = []

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        mean = raw.reshape(len(raw), -1, 3).mean(1)
        if mean.min() > 200:
            if self.on_white == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.on_white == "hang":
                time.sleep(600)
            if self.on_white == "refuse":
                raise DecodeError("It is too white.")
            if self.on_white == "err":
                raise ValueError("a slip of the encoder")
        return mean

    def encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        self.batches.append(len(batch))
        if self.on_white == "encode" and any(clip.min() > 200 for clip in batch):
            raise RuntimeError("the network\nfell over")
        if self.on_white == "infinite":
            return [np.where(clip > 200, np.inf, clip).astype(np.float32) for clip in batch]
        return [np.asarray(clip, np.float32) for clip in batch]

    def provenance(self) -> dict[str, str]:
        return {"weights": "", "weights_sha256": "", "preprocessing": "mean colour"}


class Net(Tint):
    """A Tint that says whether it runs on the GPU, and misbehaves when it is loaded, or encodes what is all white."""

    def __init__(self, name: str, *, on_gpu: bool = True, trouble: str = "") -> None:
        super().__init__(name=name)
        self.on_gpu, self.trouble = on_gpu, trouble

    def load(self) -> None:
        if self.trouble == "weights":
            raise WeightsError("They do not fit.")

    def encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        self.batches.append(len(batch))
        if any(clip.min() > 200 for clip in batch):
            if self.trouble == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.trouble == "hang":
                time.sleep(600)
            if self.trouble == "error":
                raise RuntimeError("the network\nfell over")
            if self.trouble == "unusable":
                raise WeightsError("They were damaged meanwhile.")
        return [np.asarray(clip, np.float32) for clip in batch]


class Letters:
    """Words to how often they use a, e and i [1, 3]; words without any are unknown."""

    name, modality, dim, batch_clips = "letters", "word", 3, 4
    need: Need = TextNeed()

    def __init__(self) -> None:
        self.seen: list[str] = []

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        return raw

    def encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        self.seen += batch
        if any(not set(text) & set("aei") for text in batch):
            raise DecodeError("No letter is known.")
        return [np.array([[text.count(c) for c in "aei"]], np.float32) for text in batch]

    def provenance(self) -> dict[str, str]:
        return {"weights": "", "weights_sha256": "", "preprocessing": ""}


def rows(folder: Path, stream: str) -> dict[str, np.ndarray | None]:
    """From key to features [T, D], None where absent, in stored order. A key stored twice fails."""
    found: dict[str, np.ndarray | None] = {}
    for path in shard_paths(folder, StreamName.parse(stream)):
        shard = read_shard(path)
        for i, key in enumerate(shard.key):
            assert key not in found, f"{key} is stored twice"
            found[key] = shard.clip(i) if shard.present[i] else None
    return found


def same_rows(one: dict[str, np.ndarray | None], other: dict[str, np.ndarray | None]) -> bool:
    """Same keys, same presence, same features to the bit."""
    if one.keys() != other.keys():
        return False
    return all(
        (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b))
        for a, b in ((one[key], other[key]) for key in one)
    )


def facts(folder: Path, name: str) -> np.ndarray:
    """One fact of every clip, as the catalog file holds it."""
    with h5py.File(folder / "catalog.h5", "r") as file:
        return np.asarray(file["clips"][name][()])
