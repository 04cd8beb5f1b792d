"""Checks of a planned run by what is known of its data set, so that a wrong name is told before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ...cache.bank import choose_streams
from ...errors import UsageError, unknown
from ...runs.spec import RunSpec
from .data import DataFacts
from .options import OptionError

_SPLITS = ("base", "val", "novel", "all")


def check_names(spec: RunSpec, facts: DataFacts) -> None:
    """Raise OptionError, whose path is the option, for a name that the data set does not have.

    These are the names of the split, label set, class split and modalities. Supports are checked, too: a run without
    any needs a method that works without them.
    """
    protocol = spec.protocol
    _check("split", protocol.split, _SPLITS)
    try:
        labels = facts.labels(protocol.label_set)
    except UsageError as error:
        raise OptionError(("label_set",), str(error)) from None
    if protocol.class_split != "default":
        try:
            labels.codes(protocol.class_split)
        except UsageError as error:
            raise OptionError(("class_split",), str(error)) from None
    loaded = choose_streams(facts.folder, spec.streams or spec.modalities)
    for option, name in _modalities(spec):
        _check(option, name, loaded, what="modality")
    if protocol.k_shot == 0 and not spec.resolved.zero_shot:
        raise OptionError(
            ("k_shot",),
            f"method {spec.method!r} needs supports; zero-shot heads are marked in `fsmm methods`.",
        )


def _check(option: str, name: str, known: Collection[str], what: str = "") -> None:
    if name not in known:
        raise OptionError((option,), str(unknown(what or option.replace("_", " "), name, list(known))))


def _modalities(spec: RunSpec) -> Iterator[tuple[str, str]]:
    """Every option that names modalities, with each name."""
    protocol = spec.protocol
    for option, names in (
        ("support_modalities", protocol.support_modalities),
        ("query_modalities", protocol.query_modalities),
        ("train_modalities", spec.train_modalities),
    ):
        yield from ((option, name) for name in names or ())
    losses = () if spec.train_missing == "auto" else spec.train_missing
    for option, lost in (("missing", protocol.missing), ("noisy", protocol.noisy), ("train_missing", losses)):
        yield from ((option, each.modality) for each in lost)
