"""Messages name what is at hand, and stay short whatever a stranger's data holds."""

from __future__ import annotations

import time

from fsmm.errors import brief, listed, unknown


def test_a_few_names_are_all_listed_and_the_nearest_is_suggested() -> None:
    assert str(unknown("stream", "fram", ["frame", "audio"])) == (
        "Unknown stream 'fram'. Did you mean 'frame'? Known: audio, frame."
    )


def test_thousands_of_names_are_not_listed() -> None:
    names = [f"v_{i:06d}/c3d_features" for i in range(300_000)]
    began = time.perf_counter()
    said = str(unknown("array", "v_000123/c3d_feature", names))
    assert time.perf_counter() - began < 5.0  # Comparing all of them takes several times as long.
    assert len(said) < 3000
    assert "more" in said


def test_long_names_and_values_are_cut() -> None:
    assert len(str(unknown("array", "x" * 10**6, ["y" * 10**6, "z"]))) < 1000
    assert len(listed(["y" * 10**6] * 5)) < 1000
    assert len(brief({"a": ["b"] * 10**5})) < 300
