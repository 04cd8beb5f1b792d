"""Which streams a run makes of what was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fsmm.cache.schema import Provenance, StreamName
from fsmm.cache.stream import StreamWriter
from fsmm.errors import UsageError
from fsmm.extract.choose import build_encoders, choose_streams
from fsmm.extract.encoders import DEFAULTS
from fsmm.extract.prepared import arithmetic


@pytest.mark.parametrize(
    ("streams", "encoders", "expected"),
    [
        (None, None, [f"{m}/{DEFAULTS[m]}" for m in ("frame", "flow", "audio", "word")]),
        (["audio", "frame"], None, [f"audio/{DEFAULTS['audio']}", f"frame/{DEFAULTS['frame']}"]),
        (None, {"flow": "dis-hof"}, ["flow/dis-hof"]),
        (["frame"], {"frame": "i3d-rgb"}, ["frame/i3d-rgb"]),
        (["audio"], {"frame": "i3d-rgb"}, [f"audio/{DEFAULTS['audio']}", "frame/i3d-rgb"]),
        (None, {"frame": ["i3d-rgb", "x3d-s"]}, ["frame/i3d-rgb", "frame/x3d-s"]),
        (["frame/x3d-s", "flow", "flow"], None, ["frame/x3d-s", "flow/dis-hof"]),
    ],
)
def test_streams(
    streams: list[str] | None, encoders: dict[str, str | list[str]] | None, expected: list[str]
) -> None:
    assert [str(stream) for stream in choose_streams(streams, encoders)] == expected


def test_a_name_that_is_no_modality_is_refused() -> None:
    with pytest.raises(UsageError, match="ask for frame=i3d-rgb"):
        choose_streams(None, {"frames": "i3d-rgb"})


def test_encoders_are_built_in_the_order_of_their_streams() -> None:
    built = build_encoders(choose_streams(None, {"audio": "logmel-mfcc", "flow": "dis-hof"}), {}, "cpu")
    assert [(encoder.modality, encoder.name) for encoder in built] == [
        ("audio", "logmel-mfcc"),
        ("flow", "dis-hof"),
    ]


def test_a_stream_is_continued_in_the_arithmetic_in_which_it_was_begun(tmp_path: Path) -> None:
    stream = StreamName("frame", "net")
    assert arithmetic("auto", "cuda", tmp_path, stream) == "bfloat16"
    assert arithmetic("auto", "cpu", tmp_path, stream) == "float32"
    begun = Provenance("net", "frame", 2, extra={"arithmetic": "bfloat16"})
    with StreamWriter(tmp_path, begun) as writer:
        writer.add("clip", np.zeros((1, 2), np.float32))
    assert arithmetic("auto", "cpu", tmp_path, stream) == "bfloat16"
    assert arithmetic("float32", "cuda", tmp_path, stream) == "float32"
