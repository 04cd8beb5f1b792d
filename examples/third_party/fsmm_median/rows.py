"""The rows that this package adds to fsmm's tables; they are read at every listing, so nothing heavy is imported."""

from __future__ import annotations

from fsmm.extract.datasets import DatasetEntry
from fsmm.extract.encoders import EncoderEntry
from fsmm.heads.registry import Method, Paper

MEDIAN = Method(
    target="fsmm_median.head:Median",
    paper=Paper(
        authors="fsmm's examples", title="Class medians", venue="examples/third_party", year=2026, url=""
    ),
    regime="none",
)

BRIGHTNESS = EncoderEntry(
    target="fsmm_median.encoder:Brightness",
    modality="frame",
    dim=64,
    about="mean brightness of an 8 x 8 grid of every frame",
)

FLAT_NAMES = DatasetEntry(
    name="flat-names",
    module="fsmm_median.dataset",
    expects="a folder of videos named CLASS-ANYTHING.mp4",
)
