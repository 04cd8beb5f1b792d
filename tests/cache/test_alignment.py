"""Streams of different rates on common times, against a slow interpolation by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fsmm.cache.alignment import Alignment
from fsmm.cache.bank import FeatureBank, choose_streams
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.cache.table import Table
from fsmm.errors import CacheError, UsageError

CLIPS = ("both", "silent", "long", "short")
FRAMES = {clip: (np.arange(8) + 0.5) * s / 8 for clip, s in zip(CLIPS, (4.0, 4.0, 60.0, 0.4))}
SOUND = {"both": np.array([0.5, 1.5, 2.0]), "long": np.arange(90) * 0.49 + 0.4, "short": np.array([0.2])}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames whose feature is their own time and its square, and sounds; a third stream knows no times."""
    root = tmp_path_factory.mktemp("cache")
    labels = LabelSet(["x", "y"], np.arange(4) % 2)
    Catalog("toy", [*CLIPS], {"s": labels}, "s").write(root / "toy")
    for modality, times in (("frame", FRAMES), ("audio", SOUND), ("flow", FRAMES)):
        provenance = Provenance("net", modality, 2, dtype="float64")
        with StreamWriter(root / "toy", provenance) as writer:
            for clip in CLIPS:
                at = times.get(clip)
                known = None if modality == "flow" else at
                writer.add(clip, None if at is None else np.stack([at, at**2], 1), None, known)
    return root


def bank(cache: Path, align: str, streams: tuple[str, ...] = ("frame", "audio"), **given: int) -> FeatureBank:
    alignment = Alignment.parse(align, choose_streams(cache / "toy", streams))
    return FeatureBank.load(cache, streams, "all", words=None, dtype=torch.float64, align=alignment, **given)


def clip_of(table: Table, row: int) -> np.ndarray:
    stream = table.gather(torch.tensor([row]))
    return stream.x[0, : int(stream.length[0])].numpy()


def slowly(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(wanted, own, own), np.interp(wanted, own, own**2)], 1)


def common(clip: str, align: str) -> np.ndarray:
    """The times that the page promises."""
    held = [times[clip] for times in (FRAMES, SOUND) if clip in times]
    if align.isdecimal():
        low, high = max(t[0] for t in held), min(t[-1] for t in held)
        return np.linspace(low, high, int(align)) if int(align) > 1 else np.array([(low + high) / 2])
    named = {"frame": FRAMES, "audio": SOUND}.get(align, {})
    return named[clip] if clip in named else min(held, key=len)


@pytest.mark.parametrize("align", ["5", "1", "frame", "audio", "coarsest"])
@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_each_stream_is_interpolated_at_the_clips_common_times(cache: Path, align: str, memory: int) -> None:
    found = bank(cache, align, memory=memory, max_steps=200)
    for modality, times in (("frame", FRAMES), ("audio", SOUND)):
        for row, clip in enumerate(CLIPS):
            got = clip_of(found.tables[modality], row)
            if clip not in times:
                assert not len(got)
                continue
            wanted = common(clip, align)
            np.testing.assert_allclose(got, slowly(times[clip], wanted), rtol=1e-5, atol=1e-5)


def test_long_sequences_are_averaged_down_alike(cache: Path) -> None:
    found = bank(cache, "audio", max_steps=10)
    for modality, times in (("frame", FRAMES), ("audio", SOUND)):
        whole = slowly(times["long"], SOUND["long"])
        expected = [part.mean(0) for part in np.split(whole, 10)]
        np.testing.assert_allclose(clip_of(found.tables[modality], 2), expected, rtol=1e-5)


def test_a_stream_without_times_is_one_sentence_with_the_remedy(cache: Path) -> None:
    with pytest.raises(CacheError, match=r"flow/net does not know.*and 3 more.*leave out --align"):
        bank(cache, "4", ("frame", "flow"))


@pytest.mark.parametrize("align", ["0", "65", "-3", "sound", ""])
def test_what_names_no_times_is_refused(cache: Path, align: str) -> None:
    with pytest.raises(UsageError):
        bank(cache, align)
