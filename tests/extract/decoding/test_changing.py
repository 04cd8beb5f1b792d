"""A file that changes while it is read: its features and its digest are those of one state."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fsmm.errors import DecodeError
from fsmm.extract.contract import Decoded, FrameNeed, Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.decoding import decode as module

NEED = FrameNeed(segments=2, size=32)


def changing(monkeypatch: pytest.MonkeyPatch, path: Path, states: list[Path]) -> None:
    """Let the file become the next one of ``states`` each time that it has been read."""
    run = module._Job.run

    def read_then_changed(job: module._Job) -> Decoded:
        try:
            return run(job)
        finally:
            if states:
                os.replace(states.pop(0), path)

    monkeypatch.setattr(module._Job, "run", read_then_changed)


def film(makers: ModuleType, path: Path, first: int) -> Path:
    made: Path = makers.video(path, frames=4, picture=lambda k, w, h: makers.numbered(first + k, w, h))
    return made


def read(path: Path) -> Decoded:
    return module.decode(Source(video=path), "clip", [NEED], Sampling())


@pytest.mark.parametrize("first", ["whole", "broken"])
def test_what_is_told_is_of_the_last_state(
    makers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    path, other = film(makers, tmp_path / "a.mp4", 100), film(makers, tmp_path / "b.mp4", 40_000)
    if first == "broken":
        path.write_bytes(b"the beginning of a copy")
    content = other.read_bytes()
    expected = read(other)
    changing(monkeypatch, path, [other])
    found = read(path)
    assert found.facts.sha256 == hashlib.sha256(content).hexdigest()
    assert np.array_equal(found.frames[NEED], expected.frames[NEED])


def test_a_file_that_does_not_stop_changing_is_a_failure(
    makers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(makers, tmp_path / "a.mp4", 0)
    changing(monkeypatch, path, [film(makers, tmp_path / f"{i}.mp4", 1000 * i) for i in range(1, 4)])
    with pytest.raises(DecodeError, match=r"'a.mp4' was changed each of 3 times that it was read"):
        read(path)
