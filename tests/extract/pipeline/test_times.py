"""The times that extraction stores are those of the frames, patches and windows that were encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from extract_support import extracted, videos

from fsmm.cache.index import stream_index
from fsmm.cache.schema import StreamName
from fsmm.cache.shard import read_shard
from fsmm.cache.times import evened
from fsmm.extract.contract import FrameNeed, Sampling
from fsmm.extract.datasets.base import Source, Span
from fsmm.extract.decoding.decode import decode
from fsmm.extract.encoders import build


def times_in(folder: Path, stream: str) -> dict[str, np.ndarray | None]:
    found: dict[str, np.ndarray | None] = {}
    for path in stream_index(folder, StreamName.parse(stream)).paths:
        shard = read_shard(path)
        found |= {key: shard.clip_times(i) for i, key in enumerate(shard.key)}
    return found


def test_an_extraction_stores_the_times_of_frames_and_sound(tmp_path: Path) -> None:
    data = videos(tmp_path / "data", 5)
    streams = ("flow/dis-hof", "audio/logmel-mfcc")
    folder = Path(extracted(data, tmp_path / "cache", *streams, sampling=Sampling(segments=4)).folder)
    frames, sound = (times_in(folder, stream) for stream in streams)
    facts = decode(Source(data / "class0" / "000.mp4"), "x", [], Sampling()).facts
    for times in frames.values():
        assert times is not None
        assert len(times) == 4
        assert (np.diff(times) > 0).all()
    first = frames["class0/000.mp4"]
    assert first is not None
    middles = (
        (np.arange(4) + 0.5) * facts.duration / 4
    )  # of windows of three frames: within one frame of these
    np.testing.assert_allclose(first, middles, atol=1.01 / facts.fps)
    absent = [clip for clip, times in sound.items() if times is None]
    assert absent == ["class0/004.mp4"]
    heard = sound["class0/000.mp4"]
    assert heard is not None
    assert heard[0] == pytest.approx(0.4875)  # the middle of the first patch of 0.975 s
    assert heard[-1] < facts.duration


def test_times_of_a_part_of_a_file_begin_with_the_part(tmp_path: Path) -> None:
    videos(tmp_path, 1)
    path, need = tmp_path / "class0" / "000.mp4", FrameNeed(segments=2, size=32)
    whole = decode(Source(path), "x", [need], Sampling())
    part = decode(Source(path, span=Span(0.2, 0.4)), "x", [need], Sampling())
    assert whole.times[need][-1] > 0.25
    assert 0 <= part.times[need][0] < part.times[need][-1] < 0.2


@pytest.mark.parametrize("samples", [800, 15_600, 15_601, 40_000, 16_000 * 60])
def test_sound_is_told_the_middles_of_its_patches(samples: int) -> None:
    encoder = build("logmel-mfcc")
    raw = np.zeros(samples, np.float32)
    times = encoder.times(raw, None)
    assert len(times) == len(encoder.prepare(raw)) <= 64
    assert (np.diff(times) > 0).all()
    assert times[0] == pytest.approx(min(samples, 15_600) / 32_000)
    assert times[-1] < samples / 16_000


def test_fewer_steps_than_the_input_had_cover_equal_parts() -> None:
    times = np.arange(32) + 0.5
    found = evened(times, 4)
    assert found is not None
    assert found.tolist() == [4.0, 12.0, 20.0, 28.0]
    assert evened(times, 33) is None
    assert evened(None, 4) is None
    assert evened(np.array([1.0, 0.5]), 2) is None
    assert evened(np.array([1.0, np.nan]), 2) is None
