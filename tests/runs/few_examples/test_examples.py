"""Examples: the forms in which people have features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fsmm.cache.table import Stream
from fsmm.errors import UsageError
from fsmm.runs.estimator import FewShotClassifier
from fsmm.runs.few_examples.examples import Examples, with_steps


def test_a_clip_of_nan_lacks_the_modality_and_steps_of_nan_at_the_end_do_not_exist() -> None:
    x = np.ones((3, 4, 2))
    x[1, 2:] = np.nan
    x[2] = np.nan
    stream = Examples.of({"frame": x}).streams["frame"]
    assert stream.length.tolist() == [4, 2, 0]
    assert stream.present.tolist() == [True, True, False]
    assert stream.x[1, 2:].abs().sum() == 0


@pytest.mark.parametrize("bad", [np.array([[1.0, np.nan]]), np.array([[np.inf, 1.0]])])
def test_other_numbers_that_are_not_finite_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match="NaN or infinity"):
        Examples.of({"frame": bad})


def test_a_hole_in_the_middle_is_refused() -> None:
    x = np.ones((1, 3, 2))
    x[0, 1] = np.nan
    with pytest.raises(UsageError, match="NaN or infinity"):
        Examples.of({"frame": x})


@pytest.mark.parametrize("scale", [1e-300, 1e-25, 1e30])
@pytest.mark.parametrize("form", [lambda x: x, lambda x: {"frame": x[:, None]}])
def test_examples_of_a_scale_that_float32_loses_are_refused(
    scale: float, form: Callable[[np.ndarray], Any]
) -> None:
    """All clips would be equal, or lengths infinite, and every figure that of chance."""
    rng = np.random.default_rng(0)
    label = np.repeat(["run", "jump"], 6)
    x = (label == "run")[:, None] * np.array([3.0, 0.0]) + rng.normal(size=(12, 2)) + 1
    with pytest.raises(ValueError, match="which is lost in float32; scale its features"):
        FewShotClassifier("protonet").fit(form(x * scale), label)
    fitted = FewShotClassifier("protonet").fit(form(x * 1e-6), label)
    assert (fitted.predict(form(x * 1e-6)) == label).mean() > 0.7
    fitted.predict(form(x[:1] * 1e-30))  # One clip may be as good as nothing.


def test_modalities_of_unequal_numbers_of_clips_are_refused() -> None:
    with pytest.raises(UsageError, match="frame has 2, audio has 3"):
        Examples.of({"frame": np.ones((2, 4)), "audio": np.ones((3, 4))})


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((2, 0)), np.array([["a"]])])
def test_other_shapes_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match="must be numbers of shape"):
        Examples.of(bad)


def test_longer_clips_are_averaged_into_equal_parts_and_shorter_ones_are_padded() -> None:
    x = torch.arange(12.0).reshape(2, 6, 1)
    x[1, 3:] = 0
    stream = Stream(x, torch.tensor([True, True]), torch.tensor([6, 3]))
    halved = with_steps(stream, 3)
    assert halved.x[0, :, 0].tolist() == [0.5, 2.5, 4.5]
    assert halved.x[1, :, 0].tolist() == [6, 7, 8]
    assert with_steps(stream, 8).x.shape == (2, 8, 1)


def test_joined_examples_need_the_same_modalities_and_widths() -> None:
    one = Examples.of({"frame": np.ones((2, 4))})
    assert len(one.joined(Examples.of({"frame": np.ones((3, 2, 4))}))) == 5
    with pytest.raises(UsageError, match="the same modalities"):
        one.joined(Examples.of({"audio": np.ones((2, 4))}))
    with pytest.raises(UsageError, match="width 4 and the new ones of width 5"):
        one.joined(Examples.of({"frame": np.ones((2, 5))}))
