"""Frames follow time where stamps jump (joined segments, counters that run over), repeat, step back or leave gaps."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from fsmm.extract.contract import AudioNeed, Decoded, FrameNeed, Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.decoding.clock import find_jumps, laid_out
from fsmm.extract.decoding.decode import decode

SMALL = FrameNeed(size=64)
SOUND = AudioNeed()
WRAP = (1 << 33) / 90_000  # seconds after which the counter of MPEG-TS begins again


def read(path: Path) -> Decoded:
    return decode(Source(video=path), "clip", (SMALL, SOUND), Sampling())


def shown(makers: ModuleType, decoded: Decoded) -> list[int]:
    return [makers.number(window[0]) for window in decoded.frames[SMALL]]


def joined(
    makers: ModuleType,
    path: Path,
    starts: Sequence[float],
    *,
    frames: int = 40,
    bframes: int = 0,
    **given: object,
) -> Path:
    """Parts of ``frames`` frames at 25 a second, whose clocks begin at ``starts`` (seconds), one after the other."""
    data = b""
    for part, start in enumerate(starts):
        makers.video(
            path,
            fps=25,
            times=[round(1000 * start) + 40 * i for i in range(frames)],
            picture=lambda k, w, h, first=part * frames: makers.numbered(k + first, w, h),
            options={"bf": str(bframes), "g": "12"},
            **given,
        )
        data += path.read_bytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("bframes", [0, 3])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(
    "starts",
    [(0, 1000), (1000, 0), (0, 0), (0, 1000, 3, 90_000), (WRAP - 0.8, 100), (WRAP - 100, 5, WRAP - 0.8)],
    ids=["forward", "backward", "again", "several", "counter", "backward-counter"],
)
def test_joined_segments_follow_each_other(
    makers: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    starts: Sequence[float],
    held: bool,
    bframes: int,
) -> None:
    if not held:
        monkeypatch.setattr("fsmm.extract.decoding.media._HELD_BYTES", 100)
    decoded = read(joined(makers, tmp_path / "joined.ts", starts, bframes=bframes))
    count = 40 * len(starts)
    assert shown(makers, decoded) == [int((part + 0.5) * count / 8) for part in range(8)]
    assert decoded.facts.duration == pytest.approx(count / 25, abs=0.1)
    assert decoded.facts.fps == pytest.approx(25, rel=0.02)
    assert decoded.notes == []


def test_joined_segments_with_sound(makers: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "joined.ts"
    parts = []
    for part in range(2):
        makers.video(
            path,
            frames=50,
            fps=25,
            sound=440.0,
            audio_codec="mp2",
            picture=lambda k, w, h, first=50 * part: makers.numbered(k + first, w, h),
            container_options={"output_ts_offset": str(500 * part)},
        )
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    decoded = read(path)
    assert shown(makers, decoded) == [int((part + 0.5) * 100 / 8) for part in range(8)]
    assert decoded.facts.duration == pytest.approx(4, abs=0.2)
    assert len(decoded.audio[SOUND]) == pytest.approx(4 * 16_000, rel=0.05)


def test_a_pause_in_a_recording_stays_a_pause(makers: ModuleType, tmp_path: Path) -> None:
    """Where the format's clock cannot be set anew, a long gap is a frame that is shown for long."""
    times = [40 * i for i in range(20)] + [60_000 + 40 * i for i in range(20)]
    decoded = read(makers.video(tmp_path / "pause.mkv", times=times))
    assert shown(makers, decoded) == [19] * 8
    assert decoded.facts.duration == pytest.approx(60.8, abs=0.1)


@pytest.mark.parametrize("codec", ["libvpx", "ffv1"])
def test_two_frames_of_one_instant_keep_the_clock(makers: ModuleType, tmp_path: Path, codec: str) -> None:
    """20 frames in the first second, of which the last shares its time with another; then one a second."""
    tenths = [500 * i for i in range(20)] + [9502] + [10_000 * i for i in range(2, 10)]  # of a millisecond
    path = _exact(makers, tmp_path / "rec.mkv", tenths, codec)
    decoded = read(path)
    assert shown(makers, decoded) == [11, 20, 21, 22, 24, 25, 26, 27]
    assert decoded.facts.duration == pytest.approx(9.05, abs=0.1)


@pytest.mark.parametrize("codec", ["libvpx", "ffv1", "libx264"])
def test_a_coarse_clock_counts_within_its_ticks(makers: ModuleType, tmp_path: Path, codec: str) -> None:
    """25 frames a second and later 5, all stamped with the last full second."""
    tenths = [10_000 * (i // 25) for i in range(100)] + [10_000 * (4 + i // 5) for i in range(20)]
    decoded = read(_exact(makers, tmp_path / "rec.mkv", tenths, codec))
    centres = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]  # seconds of eight
    expected = [25 * c if c < 4 else 100 + 5 * (c - 4) for c in centres]
    assert np.abs(np.array(shown(makers, decoded)) - np.floor(expected)).max() <= 1
    assert decoded.facts.duration == pytest.approx(8, abs=0.1)


def _exact(makers: ModuleType, path: Path, tenths: Sequence[int], codec: str) -> Path:
    """A video whose packets are stamped with these tenths of a millisecond, each a key frame without reordering."""
    options = {"libvpx": {"b": "2M"}, "libx264": {"bf": "0", "g": "1"}}.get(codec, {})
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(len(tenths)):
            frame = av.VideoFrame.from_ndarray(makers.numbered(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            _mux(file, stream.encode(frame), tenths)
        _mux(file, stream.encode(None), tenths)
    return path


def _mux(file: av.container.OutputContainer, packets: list[av.Packet], tenths: Sequence[int]) -> None:
    for packet in packets:
        number = round(packet.pts * packet.time_base * 25)
        packet.time_base = Fraction(1, 10_000)
        packet.pts = packet.dts = tenths[number]
        packet.duration = 0
        file.mux(packet)


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("mpeg4", {"bf": "0"}),
        ("mpeg4", {"bf": "2"}),
        ("libx264", {"bf": "0"}),
        ("libx264", {"bf": "2", "b-pyramid": "none"}),
        ("libx264", {"bf": "3"}),
        ("mjpeg", {}),
    ],
)
def test_an_avi_with_empty_places_is_read_by_time(
    makers: ModuleType, tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    """AVI files have no stamps: a variable rate is made of places without a frame."""
    times = [40 * i for i in range(20)] + [800 + 400 * i for i in range(20)]
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = makers.video(
        tmp_path / "vfr.avi", fps=25, times=times, codec=codec, options=options, pixel_format=pixel_format
    )
    decoded = read(path)
    duration = decoded.facts.duration
    assert duration == pytest.approx(times[-1] / 1000 + 0.04, abs=0.9)
    centres = [(part + 0.5) / 8 * duration * 1000 for part in range(8)]
    expected = [sum(t <= centre for t in times) - 1 for centre in centres]
    # With reordered frames, an AVI file tells the times but for a delay of some frames.
    assert np.abs(np.array(shown(makers, decoded)) - expected).max() <= 2
    assert decoded.notes == []


def test_an_avi_whose_end_is_missing_says_so(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.avi", frames=200, fps=25, codec="mjpeg", pixel_format="yuvj420p")
    assert any("of the 200 frames it declares" in note for note in read(makers.cut(path, 0.5)).notes)


def test_useless_stamps_are_told(makers: ModuleType, tmp_path: Path) -> None:
    decoded = read(_exact(makers, tmp_path / "a.mkv", [0] * 40, "ffv1"))
    assert shown(makers, decoded) == [int((part + 0.5) * 5) for part in range(8)]
    assert any("time stamps" in note for note in decoded.notes)


class TestArithmetic:
    """The functions alone; a tick is a frame of 25 a second."""

    def lay(self, stamps: Sequence[int], *, may_jump: bool = True) -> list[int] | None:
        array = np.array(stamps, np.int64)
        laid = laid_out(array, find_jumps(array, 0.04, may_jump=may_jump))
        return None if laid is None else [*laid[0].tolist(), laid[1]]

    def test_jumps_are_closed(self) -> None:
        assert self.lay([0, 1, 2, 3, 1000, 1001, 1002]) == list(range(8))
        assert self.lay([5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6]) == list(range(13))
        assert self.lay([0, 1, 2, 99_999, 3, 4, 5]) == list(range(8))

    def test_gaps_stay(self) -> None:
        assert self.lay([0, 1, 2, 200, 201]) == [0, 1, 2, 200, 201, 202]
        assert self.lay([0, 1, 2, 1000, 1001], may_jump=False) == [0, 1, 2, 1000, 1001, 1002]

    def test_stamps_out_of_order_are_no_jump(self) -> None:
        assert self.lay([0, 2, 1, 4, 3, 6, 5]) == [0, 2, 3, 4, 5, 6, 7, 8]

    def test_equal_stamps_are_drawn_apart(self) -> None:
        assert self.lay([0, 0, 0, 3, 3, 3, 6, 6]) == list(range(9))
        assert self.lay([0, 1, 2, 3, 4, 4, 200, 300, 300]) == [0, 1, 2, 3, 4, 5, 200, 300, 301, 302]

    def test_no_time_at_all(self) -> None:
        assert self.lay([]) is None
        assert self.lay([7, 7, 7]) is None
        assert self.lay([-(1 << 62), 1 << 62]) is None
        assert self.lay([7]) == [0, 1]
