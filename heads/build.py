"""From a method's name and settings to a head ready for given streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..cache.bank import FeatureBank
from ..errors import UsageError
from .head import Head, Inputs
from .multimodal.fusion import EarlyFusion, FusionSettings, LateFusion
from .registry import Method, find
from .settings import Settings, make_settings

DEFAULT_FUSION = "ec"


def inputs_of(bank: FeatureBank, *, base_classes: int = 0, way: int = 5, shot: int | None = None) -> Inputs:
    """What a head over this bank will be given."""
    return Inputs(
        streams={key: (table.steps, table.dim) for key, table in bank.tables.items()},
        word_dim=None if bank.words is None else bank.words.shape[1],
        base_classes=base_classes,
        way=way,
        shot=shot,
    )


def build_head(
    name: str, inputs: Inputs, settings: Mapping[str, str] | None = None, fusion: str | None = None
) -> Head[Any]:
    """The head called ``name``.

    settings: ``key=value`` texts; keys beginning with ``fusion.`` are the wrapper's.
    fusion: "ec", "ea" or "lf" for several modalities (EC where it is not given; ignored for a single modality).
    Raises UsageError for unknown names, keys or values, and where the method cannot take these inputs.
    """
    given = dict(settings or {})
    method, suffix = find(name)
    if fusion and suffix and fusion != suffix:
        raise UsageError(f"--fusion {fusion} contradicts the method's name {name!r}; leave one out.")
    _check_inputs(name, method, inputs)
    cls = method.load()
    own = make_settings(cls.Settings, {k: v for k, v in given.items() if not k.startswith("fusion.")}, name)
    inputs = replace(inputs, branches={branch: _maker(branch) for branch in method.branches})
    if method.modalities != "one" or len(inputs.streams) == 1:
        return cls(inputs, own)
    how = fusion or suffix or DEFAULT_FUSION
    wrapper = {k.removeprefix("fusion."): v for k, v in given.items() if k.startswith("fusion.")}
    outer = make_settings(FusionSettings, wrapper, f"fusion {how}")
    make: Callable[[Inputs], Head[Any]] = lambda inner: cls(inner, own)  # noqa: E731
    if how == "lf":
        return LateFusion(inputs, outer, make)
    if how not in ("ec", "ea"):
        raise UsageError(f"--fusion {how!r} is not known; use ec, ea or lf.")
    return EarlyFusion(inputs, outer, make, reads_time=method.reads_time, attention=how == "ea")


def _check_inputs(name: str, method: Method, inputs: Inputs) -> None:
    if method.words == "needed" and inputs.word_dim is None:
        raise UsageError(
            f"Method {name!r} needs class words; extract a word stream (--streams word), import one (docs/import.md), "
            "or name one with --words."
        )
    if method.modalities == "two" and len(inputs.streams) < 2:
        raise UsageError(f"Method {name!r} needs two modalities and got {', '.join(inputs.streams)}.")


def _maker(name: str) -> Callable[[Inputs], Head[Settings]]:
    """A maker of the method called ``name``, with its default settings."""
    cls = find(name)[0].load()
    return lambda inputs: cls(inputs, cls.Settings())
