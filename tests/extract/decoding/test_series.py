"""Time series: files of every kind, windows, and files that are no series."""

from __future__ import annotations

import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fsmm.errors import DecodeError
from fsmm.extract.contract import AudioNeed, Sampling, SeriesNeed
from fsmm.extract.datasets.base import Series, Source, Span
from fsmm.extract.decoding.decode import decode
from fsmm.extract.decoding.series import cut, read_series, windows_of

OFFICIAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "utd_mhad" / "official_form"


def written(path: Path, text: str) -> Series:
    path.write_text(text)
    return Series("sensor", path)


def test_text_files_with_and_without_header(tmp_path: Path) -> None:
    x, rate = read_series(written(tmp_path / "a.csv", "time,x,y\n0.0,1,2\n0.1,3,4\n0.2,5,6\n"))
    assert rate == pytest.approx(10)
    assert x.tolist() == [[1, 2], [3, 4], [5, 6]]
    bare = written(tmp_path / "b.txt", "1;2;\n3;4;\n")
    assert read_series(Series("sensor", bare.path, 50.0))[0].tolist() == [[1, 2], [3, 4]]
    spaced = written(tmp_path / "c.txt", "1 2\n3 4\n")
    assert read_series(Series("sensor", spaced.path, 50.0))[0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DecodeError, match="--rate"):
        read_series(bare)


def test_numpy_and_matlab_files(tmp_path: Path) -> None:
    x = np.arange(24.0).reshape(6, 4)
    np.save(tmp_path / "a.npy", x)
    assert np.array_equal(read_series(Series("sensor", tmp_path / "a.npy", 10.0))[0], x)
    joints = np.arange(2 * 3 * 5.0).reshape(2, 3, 5)  # joints, coordinates, time
    savemat(tmp_path / "a.mat", {"d_iner": x, "d_skel": joints})
    assert np.array_equal(read_series(Series("s", tmp_path / "a.mat", 10.0, "d_iner"))[0], x)
    found, _ = read_series(Series("s", tmp_path / "a.mat", 10.0, "d_skel"))
    assert np.array_equal(found, [joints[:, :, t].ravel() for t in range(5)])


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="needs ../shared/data/utd_mhad, not part of a clone")
def test_files_of_utd_mhad() -> None:
    x, _ = read_series(Series("sensor", OFFICIAL / "a1_s1_t1_inertial.mat", 50.0, "d_iner"))
    assert x.shape == (160, 6)
    assert 0.5 < np.linalg.norm(x[:, :3], axis=1).mean() < 2  # acceleration in g
    x, _ = read_series(Series("skeleton", OFFICIAL / "a1_s1_t1_skeleton.mat", 30.0, "d_skel"))
    assert x.shape == (48, 60)
    depth = Series("depth", OFFICIAL / "a1_s1_t1_depth.mat", 30.0, "d_depth", (6, 8))
    x, _ = read_series(depth)
    assert x.shape == (48, 48)
    whole, _ = read_series(replace(depth, grid=(1, 1)))
    np.testing.assert_allclose(x.mean(1), whole[:, 0])  # equal blocks


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"1,2\n3\n", "different numbers of columns"),
        ("a.csv", b"1,nan\n2,3\n", "not finite"),
        ("a.csv", b"time,x\n1,2\n1,3\n", "do not ascend"),
        ("a.csv", b"x,y\n1,a\n", "cannot be read"),
        ("a.mat", b"MATLAB 5.0 but not really" * 20, "cannot be read"),
        ("a.mat", b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "cannot be read"),
        ("a.npy", b"\x93NUMPY\x01\x00 broken", "cannot be read"),
        ("a.npy", pickle.dumps([1, 2]), "cannot be read"),
    ],
)
def test_files_that_are_no_series_are_one_sentence(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DecodeError, match=says) as raised:
        read_series(Series("sensor", tmp_path / name, 10.0))
    assert "\n" not in str(raised.value)


def test_what_a_matlab_file_declares_is_not_believed(tmp_path: Path) -> None:
    """Structures and texts are no series; a declared size beyond all bounds is refused before it is read."""
    savemat(tmp_path / "s.mat", {"d_iner": {"a": 1}})
    with pytest.raises(DecodeError, match="no numbers"):
        read_series(Series("s", tmp_path / "s.mat", 10.0, "d_iner"))
    savemat(tmp_path / "t.mat", {"d_iner": "text"})
    with pytest.raises(DecodeError):
        read_series(Series("s", tmp_path / "t.mat", 10.0, "d_iner"))
    with pytest.raises(DecodeError, match="no variable 'd_skel'"):
        read_series(Series("s", tmp_path / "t.mat", 10.0, "d_skel"))
    savemat(tmp_path / "big.mat", {"d": np.zeros((2, 3))})
    raw = bytearray((tmp_path / "big.mat").read_bytes())
    at = raw.find(np.array([2, 3], "<i4").tobytes())
    raw[at : at + 8] = np.array([1 << 20, 1 << 12], "<i4").tobytes()
    (tmp_path / "big.mat").write_bytes(raw)
    with pytest.raises(DecodeError, match="too many"):
        read_series(Series("s", tmp_path / "big.mat", 10.0, "d"))
    bomb = zlib.compress(bytes(1 << 22))
    head = raw[:128] + np.array([15, len(bomb)], "<i4").tobytes() + bomb
    (tmp_path / "bomb.mat").write_bytes(head)
    with pytest.raises(DecodeError):
        read_series(Series("s", tmp_path / "bomb.mat", 10.0, "d"))


def test_windows_lie_hops_apart(tmp_path: Path) -> None:
    x = np.arange(40.0).reshape(20, 2)
    np.save(tmp_path / "a.npy", x)
    series = Series("sensor", tmp_path / "a.npy", 10.0)
    found = windows_of(series, window=1.0, hop=0.5)
    assert found.values.shape == (3, 10, 2)
    for start, window in zip((0, 5, 10), found.values):
        assert np.array_equal(window, x[start : start + 10])
    assert found.middles.tolist() == [0.5, 1.0, 1.5]
    whole = windows_of(series, window=5.0, hop=0.5)  # a series shorter than a window is one
    assert whole.values.shape == (1, 20, 2)
    assert whole.middles.tolist() == [1.0]
    part = windows_of(series, window=0.5, hop=0.5, span=Span(0.5, 1.5)).values
    assert np.array_equal(part[0], x[5:10])
    assert len(part) == 2
    with pytest.raises(DecodeError, match="no step"):
        windows_of(series, window=1.0, hop=1.0, span=Span(7.0, 9.0))


@pytest.mark.parametrize(("n", "length", "step"), [(50, 7, 3), (7, 7, 1), (8, 7, 5), (5, 7, 2)])
def test_cut_is_that_of_a_slow_loop(n: int, length: int, step: int) -> None:
    x = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    slow = [x[at : at + length] for at in range(0, n - length + 1, step)] or [x]
    assert np.array_equal(cut(x, length, step), slow)


def test_a_clip_of_series_alone_decodes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((30, 2)))
    source = Source(series=(Series("sensor", tmp_path / "a.npy", 10.0),))
    need = SeriesNeed("sensor")
    found = decode(source, "a", {need}, Sampling(window=1.0, hop=1.0))
    assert found.series[need].shape == (3, 10, 2)
    assert not found.facts.has_video
    assert len(found.facts.sha256) == 64
    assert not decode(
        source, "a", {AudioNeed()}, Sampling()
    ).audio  # it has nothing to hear, which is no fault
    assert not decode(source, "a", {SeriesNeed("skeleton")}, Sampling()).series
    (tmp_path / "a.npy").write_bytes(b"junk")
    with pytest.raises(DecodeError, match=r"a\.npy"):
        decode(source, "a", {need}, Sampling())
