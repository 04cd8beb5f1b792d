"""From a method's name and settings to a head ready for given streams."""

from __future__ import annotations

from collections.abc import Mapping

from ..cache.bank import FeatureBank
from ..errors import UsageError
from .head import Head, Inputs
from .multimodal.fusion import EarlyFusion, FusionSettings, LateFusion
from .registry import find
from .settings import make_settings

DEFAULT_FUSION = "ec"


def inputs_of(bank: FeatureBank, base_classes: int = 0, way: int = 5, shot: int | None = None) -> Inputs:
    """What a head over this bank will be given."""
    streams = {key: (table.steps, table.dim) for key, table in bank.tables.items()}
    return Inputs(streams, None if bank.words is None else bank.words.shape[1], base_classes, way, shot)


def needs_sequences(name: str) -> bool:
    """Whether the method reads time."""
    return find(name)[0].load().sequences


def build_head(
    name: str, inputs: Inputs, settings: Mapping[str, str] | None = None, fusion: str | None = None
) -> Head:
    """The head called ``name``.

    settings: ``key=value`` texts; keys beginning with ``fusion.`` are the wrapper's.
    fusion: "ec", "ea" or "lf" for several modalities (EC unless told; ignored for a single modality).
    Raises UsageError for unknown names, keys or values, and where the method cannot take these inputs.
    """
    given = dict(settings or {})
    method, suffix = find(name)
    if fusion and suffix and fusion != suffix:
        raise UsageError(f"--fusion {fusion} contradicts the method's name {name!r}; leave one out.")
    cls = method.load()
    wrapper = {k.removeprefix("fusion."): v for k, v in given.items() if k.startswith("fusion.")}
    own = make_settings(
        cls.settings_class, {k: v for k, v in given.items() if not k.startswith("fusion.")}, name
    )
    if method.words == "needed" and inputs.word_dim is None:
        raise UsageError(
            f"Method {name!r} needs class words; extract a word stream or name one with --words."
        )
    if method.modalities != "one":
        if method.modalities == "two" and len(inputs.streams) < 2:
            raise UsageError(f"Method {name!r} needs two modalities and got {', '.join(inputs.streams)}.")
        return cls(inputs, own)
    if len(inputs.streams) == 1:
        return cls(inputs, own)
    how = fusion or suffix or DEFAULT_FUSION
    outer = make_settings(FusionSettings, wrapper, f"fusion {how}")
    if how == "lf":
        return LateFusion(inputs, cls, own, outer)
    if how not in ("ec", "ea"):
        raise UsageError(f"--fusion {how!r} is not known; use ec, ea or lf.")
    return EarlyFusion(inputs, cls, own, outer, attention=how == "ea")
