"""One stream's way into the cache: batches change nothing, one clip's trouble stays that clip's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from extract_support import Tint, rows

from fsmm.cache.stream import StreamWriter
from fsmm.errors import FsmmError, UsageError, WeightsError
from fsmm.extract.contract import AudioNeed, FrameNeed, Need, Sampling
from fsmm.extract.pipeline.lane import Clock, Lane, provenance_of, sampling_text
from fsmm.extract.pipeline.worker import ABSENT, READY, Part


def run_lane(
    folder: Path, encoder: Tint, parts: dict[str, Part], dtype: str = "float32"
) -> tuple[Lane, list[tuple[str, str, str]]]:
    failed: list[tuple[str, str, str]] = []
    with StreamWriter(folder, provenance_of(encoder, Sampling(), dtype)) as writer:
        lane = Lane(encoder, writer, Clock(), lambda *told: failed.append(told))
        for key, part in parts.items():
            lane.add(key, part, {})
        lane.drain()
    return lane, failed


def some_parts(count: int, absent: int = 0, white: tuple[int, ...] = ()) -> dict[str, Part]:
    """Clips of values below 200, or of 255 where white; every ``absent``-th has none."""
    rng = np.random.default_rng(0)
    return {
        f"k{i}": Part(ABSENT)
        if absent and i % absent == 0
        else Part(READY, np.full((2, 3), 255.0) if i in white else rng.uniform(0, 200, (1 + i % 3, 3)))
        for i in range(count)
    }


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_rows_keep_order_and_values_whatever_the_batch(tmp_path: Path, batch: int) -> None:
    parts = some_parts(11, absent=4)
    encoder = Tint()
    encoder.batch_clips = batch
    lane, failed = run_lane(tmp_path, encoder, parts)
    got = rows(tmp_path, "frame/tint")
    assert list(got) == list(parts)
    for key, part in parts.items():
        if part.state == ABSENT:
            assert got[key] is None
        else:
            assert np.array_equal(got[key], part.value.astype(np.float32))
    assert max(encoder.batches) <= batch
    assert (lane.written, lane.absent, lane.failures, failed) == (8, 3, 0, [])


@pytest.mark.parametrize(
    ("white", "told"), [("encode", "RuntimeError: the network fell over"), ("infinite", "not finite")]
)
def test_a_clip_that_cannot_be_encoded_leaves_the_others(tmp_path: Path, white: str, told: str) -> None:
    lane, failed = run_lane(tmp_path, Tint(white), some_parts(9, white=(2, 7)))
    assert list(rows(tmp_path, "frame/tint")) == [f"k{i}" for i in range(9) if i not in (2, 7)]
    assert [(key, stage) for key, stage, _ in failed] == [("k2", "encode"), ("k7", "encode")]
    assert all(told in reason for _, _, reason in failed)
    assert (lane.written, lane.failures) == (7, 2)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_a_batch_too_large_for_the_memory_is_halved_and_so_are_those_after_it(
    tmp_path: Path, error: Exception
) -> None:
    class Narrow(Tint):
        batch_clips = 8

        def encode(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
            self.batches.append(len(batch))
            if len(batch) > 3:
                raise error
            return [np.asarray(clip, np.float32) for clip in batch]

    encoder, parts = Narrow(), some_parts(20)
    lane, failed = run_lane(tmp_path, encoder, parts)
    assert encoder.batches == [8, 4, 2, 2, 4, 2, 2, *[2] * 6]
    assert (lane.written, failed) == (20, [])
    got = rows(tmp_path, "frame/tint")
    assert all(np.array_equal(got[key], part.value.astype(np.float32)) for key, part in parts.items())


def test_values_beyond_the_stored_type_are_a_failure_of_that_clip(tmp_path: Path) -> None:
    parts = {"a": Part(READY, np.full((1, 3), 1e6)), "b": Part(READY, np.ones((1, 3)))}
    _, failed = run_lane(tmp_path, Tint(), parts, "float16")
    assert list(rows(tmp_path, "frame/tint")) == ["b"]
    assert [key for key, _, _ in failed] == ["a"]


def test_an_encoder_that_always_fails_stops_the_run_and_keeps_what_was_made(tmp_path: Path) -> None:
    parts = some_parts(40, white=tuple(range(4, 40)))
    with pytest.raises(FsmmError, match="'tint' failed on 20 clips in a row"):
        run_lane(tmp_path, Tint("encode"), parts)
    assert list(rows(tmp_path, "frame/tint")) == [f"k{i}" for i in range(4)]


@pytest.mark.parametrize(
    ("raised", "stated"),
    [
        (WeightsError("They do not fit."), WeightsError),
        (ModuleNotFoundError("No module named 'x'"), UsageError),
    ],
)
def test_trouble_with_the_encoder_itself_is_not_blamed_on_clips(
    tmp_path: Path, raised: Exception, stated: type[FsmmError]
) -> None:
    class Broken(Tint):
        def encode(self, batch: object) -> list[np.ndarray]:
            raise raised

    with pytest.raises(stated):
        run_lane(tmp_path, Broken(), some_parts(4))


def test_sampling_is_told_as_far_as_it_matters() -> None:
    class Ear(Tint):
        need: Need = AudioNeed(8000)

    class Fixed(Tint):
        need: Need = FrameNeed(segments=3)

    class Free(Tint):
        need: Need = FrameNeed(segments=None, length=2)

    few, many, other = Sampling(4), Sampling(8), Sampling(8, "random", 5)
    assert sampling_text(Free(), few) != sampling_text(Free(), many)
    assert sampling_text(Free(), many) != sampling_text(Free(), other)
    assert sampling_text(Free(), other) != sampling_text(Free(), Sampling(8, "random", 6))
    assert sampling_text(Fixed(), few) == sampling_text(Fixed(), many)
    assert sampling_text(Ear(), few) == sampling_text(Ear(), other)
    assert sampling_text(Ear(), few) != sampling_text(Ear(), Sampling(max_seconds=3))
