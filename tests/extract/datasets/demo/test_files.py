"""Rendering and writing demo clips: the same always, whole or absent, and with the content they promise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from fsmm.errors import FsmmError
from fsmm.extract.datasets.demo.design import MOTIONS, SOUNDS
from fsmm.extract.datasets.demo.make import make_clips
from fsmm.extract.datasets.demo.plan import Clip, pictures, plan_clips
from fsmm.extract.datasets.demo.render import _MOVES, _path, render
from fsmm.extract.datasets.demo.sound import sound_of

SMALL = plan_clips(small=True)


def frames_of(clip: Clip) -> np.ndarray:
    return np.stack(list(render(clip, pictures()[clip.sample])))


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return frames, None
        return frames, np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.mark.parametrize(
    "clip", [SMALL[0], SMALL[77], *plan_clips()[:400:133]], ids=lambda clip: clip.clip_id
)
def test_rendering_is_repeatable_and_of_the_planned_form(clip: Clip) -> None:
    first = frames_of(clip)
    assert first.shape == (clip.frames, clip.height, clip.width, 3)
    np.testing.assert_array_equal(first, frames_of(clip))
    sound = sound_of(clip)
    np.testing.assert_array_equal(sound, sound_of(clip))
    assert sound.dtype == np.float32
    assert len(sound) == round(clip.seconds * clip.sound_rate)
    assert abs(sound).max() == pytest.approx(clip.gain, rel=1e-5)


def test_clips_of_one_class_differ() -> None:
    one, other = [clip for clip in SMALL if clip.event == 3][:2]
    assert abs(frames_of(one).astype(int) - frames_of(other)).mean() > 5


def test_the_files_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    clips = SMALL[:7]
    ready: list[int] = []
    assert make_clips(clips, tmp_path / "one", workers=1) == 7
    assert make_clips(clips, tmp_path / "three", workers=3, progress=ready.append) == 7
    assert sum(ready) == 7
    for clip in clips:
        one, three = decoded(tmp_path / "one" / clip.path), decoded(tmp_path / "three" / clip.path)
        np.testing.assert_array_equal(one[0], three[0])
        assert (one[1] is None) == (three[1] is None) == (not clip.has_sound)
        if one[1] is not None and three[1] is not None:
            np.testing.assert_array_equal(one[1], three[1])


def test_a_second_call_makes_what_is_missing_and_leaves_the_rest(tmp_path: Path) -> None:
    make_clips(SMALL[:4], tmp_path)
    kept, lost = tmp_path / SMALL[0].path, tmp_path / SMALL[2].path
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    ready: list[int] = []
    assert make_clips(SMALL[:5], tmp_path, progress=ready.append) == 2
    assert (ready[0], sum(ready)) == (3, 5)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content
    assert make_clips(SMALL[:5], tmp_path) == 0


def test_an_interrupted_run_leaves_whole_files_only_and_continues(tmp_path: Path) -> None:
    clips = SMALL[:40]

    def interrupt(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_clips(clips, tmp_path, workers=2, progress=interrupt)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".mp4"}
    for path in files:
        assert len(decoded(path)[0]) == 16
    assert make_clips(clips, tmp_path) == len(clips) - len(files)


def test_a_clip_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """A frame with odd sides cannot be h264 with halved colour: encoding stops in the middle."""
    clip = dataclasses.replace(SMALL[0], width=63)
    with pytest.raises(FsmmError, match="cannot be written"):
        make_clips([clip], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_error_in_a_process_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(FsmmError, match=r"^The demo clips cannot be written to '.*taken'"):
        make_clips(SMALL[:4], tmp_path / "taken", workers=2)


def test_files_are_h264_and_aac_of_the_planned_length(tmp_path: Path) -> None:
    clips = [SMALL[0], *plan_clips()[:500:99]]
    clips.append(next(clip for clip in SMALL if not clip.has_sound))
    make_clips(clips, tmp_path)
    for clip in clips:
        with av.open(str(tmp_path / clip.path)) as container:
            video = container.streams.video[0]
            assert video.codec_context.name == "h264"
            assert (video.width, video.height, video.average_rate) == (clip.width, clip.height, clip.fps)
            assert 2.0 <= container.duration / 1e6 <= 4.1
            kinds = [stream.codec_context.name for stream in container.streams.audio]
            assert kinds == (["aac"] if clip.has_sound else [])
        frames, sound = decoded(tmp_path / clip.path)
        assert len(frames) == clip.frames
        # What is lost in encoding is far less than what tells two clips apart.
        assert abs(frames.astype(int) - frames_of(clip)).mean() < 12
        if sound is not None:
            assert len(sound) / clip.sound_rate == pytest.approx(clip.seconds, abs=0.2)
            assert 0.3 < abs(sound).max() / clip.gain < 2


@pytest.mark.parametrize("motion", MOTIONS)
def test_paths_move_as_their_words_say(motion: str) -> None:
    clip = dataclasses.replace(SMALL[0], motion=motion, frames=80, fps=20)
    x, y, size, angle = _path(clip, (np.arange(80) + 0.5) / 80, clip.draws("frames")).T
    half = len(x) // 2
    words = MOTIONS[motion]
    right, down = x[-1] - x[0], y[-1] - y[0]
    # Paths reach .19 to .25 to either side, so spans are .37 or more; the unsteady hand changes them by .07 at most.
    if "sliding" in words or "rising" in words or "sinking" in words:
        across = ("right" in words.split("to")[-1]) - ("left" in words.split("to")[-1])
        upright = ("sinking" in words or "down" in words) - ("rising" in words or " up " in words)
        assert [np.sign(right) * (abs(right) > 0.2), np.sign(down) * (abs(down) > 0.2)] == [across, upright]
    if motion in ("up-then-down", "down-then-up", "left-then-right", "right-then-left"):
        axis = y if "up" in motion else x
        sign = 1 if motion.split("-")[0] in ("down", "right") else -1
        assert sign * (axis[half] - axis[0]) > 0.25
        assert sign * (axis[half] - axis[-1]) > 0.25
    if "shrink" in motion:
        sign = 1 if motion.startswith("grow") else -1
        # The size changes by 2.4 times a reach of .19 or more times a sign of .52 or more, which makes .23.
        assert sign * (size[half] - size[0]) > 0.15
        assert sign * (size[half] - size[-1]) > 0.15
    if "spin" in motion:
        assert (angle[-1] - angle[0] > 0) == (motion == "spin-clockwise")
    if motion == "circle-clockwise":
        turn = np.unwrap(np.arctan2(y - np.median(y), x - np.median(x)))
        assert turn[-1] - turn[0] > np.pi


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("slide-left", "slide-right"),
        ("slide-up", "slide-down"),
        ("slide-up-left", "slide-down-right"),
        ("slide-up-right", "slide-down-left"),
        ("spin-clockwise", "spin-anticlockwise"),
    ],
)
def test_a_path_and_its_reverse_visit_the_same_places(one: str, other: str) -> None:
    """So the frames of the two, as a set, tell nothing of the direction."""
    moments = (np.arange(64) + 0.5) / 64
    if "spin" in one:
        turns = [
            np.ptp(np.asarray(_MOVES[m](moments, 0.2, np.random.default_rng(0))[3])) for m in (one, other)
        ]
        assert turns[0] == pytest.approx(turns[1])
        return
    a, b = (np.broadcast_arrays(*_MOVES[m](moments, 0.2, np.random.default_rng(0)))[:2] for m in (one, other))
    np.testing.assert_allclose(a, np.asarray(b)[:, ::-1], atol=1e-12)
    assert abs(np.diff(np.asarray(a))).sum() > 0.3  # a reach of .2 makes a line of .4 on each of its axes


def test_a_path_there_and_back_only_changes_its_order() -> None:
    """Its first half is the other's second half, and the other way round."""
    moments = (np.arange(64) + 0.5) / 64
    for one, other in (("up-then-down", "down-then-up"), ("left-then-right", "right-then-left")):
        a, b = (
            np.array(np.broadcast_arrays(*_MOVES[m](moments, 0.2, np.random.default_rng(0))))
            for m in (one, other)
        )
        np.testing.assert_allclose(np.roll(a, 32, 1), b, atol=0.03)


def test_spinning_clockwise_turns_the_picture_clockwise() -> None:
    """The top of the sign comes to the right after a quarter turn."""
    from fsmm.extract.datasets.demo.render import _paste

    sign = np.zeros((128, 128, 4), np.float32)
    sign[:40, 40:88] = (200, 200, 200, 1)
    frame = np.zeros((96, 96, 3), np.float32)
    _paste(frame, sign, np.array([0.0, 0.0, 0.9, 90.0]))
    assert frame[:, 64:].sum() > 0.95 * frame.sum()  # all but the blur at the patch's edge


@pytest.mark.parametrize("sound", SOUNDS)
def test_sounds_are_told_apart_by_their_spectra(sound: str) -> None:
    """The mean log spectra of a sound's takes are nearer to each other than to most other sounds'."""
    others = [other for other in SOUNDS if set(other.split("-")) != set(sound.split("-"))]
    own = np.mean([np.linalg.norm(_spectrum(sound, 0) - _spectrum(sound, take)) for take in (1, 2, 3)])
    away = [np.mean([np.linalg.norm(_spectrum(sound, 0) - _spectrum(o, t)) for t in (1, 2)]) for o in others]
    # If takes of one sound were no nearer than others, half of the comparisons would hold.
    assert np.mean([own < distance for distance in away]) > 0.7


def _spectrum(sound: str, take: int) -> np.ndarray:
    """Log energy in 24 bands of rising width, and how much each varies in time; without its level, [48]."""
    clip = dataclasses.replace(SMALL[0], sound=sound, key=100 + take, frames=24, fps=8)
    wave = sound_of(clip)
    windows = np.lib.stride_tricks.sliding_window_view(wave, 1024)[::512] * np.hanning(1024)
    power = abs(np.fft.rfft(windows)) ** 2
    edges = np.unique(np.geomspace(3, 512, 25).astype(int))
    bands = np.log(np.add.reduceat(power, edges[:-1], 1) + 1e-6)
    return np.concatenate([bands.mean(0) - bands.mean(), bands.std(0)])


def test_a_sound_and_its_reverse_have_the_same_parts_in_another_order() -> None:
    clip = dataclasses.replace(SMALL[0], sound="rise-then-fall", frames=24, fps=8)
    for name, rises_first in (("rise-then-fall", True), ("fall-then-rise", False)):
        wave = sound_of(dataclasses.replace(clip, sound=name, gain=1.0))
        third = len(wave) // 3
        start, middle = (
            np.argmax(abs(np.fft.rfft(part * np.hanning(len(part)))[20:]))
            for part in (wave[: third // 4], wave[third + third // 3 :][: third // 4])
        )
        assert (middle > start) == rises_first


def test_the_digit_is_drawn_upright_and_legible() -> None:
    """A nearest-neighbour reader of scikit-learn's digits reads the ink of rendered signs."""
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    from fsmm.extract.datasets.demo.render import _strokes

    digits = load_digits()
    clips = plan_clips()[:120]
    shown = np.stack(
        [
            cv2.resize(
                _strokes(pictures()[clip.sample], clip.draws("x"))[19:109, 19:109],
                (8, 8),
                interpolation=cv2.INTER_AREA,
            )
            for clip in clips
        ]
    )
    others = np.ones(len(digits.target), bool)
    others[[clip.sample for clip in clips]] = False
    reader = KNeighborsClassifier(3).fit(digits.data[others] / 16, digits.target[others])
    read = reader.predict(shown.reshape(len(clips), -1))
    # Chance is 1/10; the bound allows the reader 18 errors in 120 digits, with a standard error of .03.
    assert np.mean(read == [digits.target[clip.sample] for clip in clips]) > 0.85
