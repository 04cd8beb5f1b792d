"""The baseline of zero-shot runs: an encoder's own space, which it shares with its text tower, without any training."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..cache.schema import StreamName, list_streams
from ..episodes.protocol import bounds
from .banks import Banks
from .extent import Extent
from .job import Place
from .leave_classes_out import chosen_rule, learned_gate, sides_of
from .measure import measure
from .ready import built_head
from .spec import RunSpec

METHOD = "frozen-space"
TEXT = re.compile("-text(-ensemble|-prompts-[0-9a-f]+)?$")
"""What the name of a text tower adds to that of its encoder, with the name of its prompt templates if it has one."""
FIGURES = ("accuracy", "unseen", "seen", "harmonic", "unseen_alone")


def frozen_space(spec: RunSpec, place: Place, folder: Path, episodes: Extent) -> list[dict[str, Any]]:
    """The figures of each encoder of the data set that has a text tower's words, under a zero-shot run's protocol.

    There are none for a run with supports, for the baseline's own, and for one whose protocol names modalities.
    """
    protocol = spec.protocol
    named = (protocol.support_modalities, protocol.query_modalities, protocol.missing)
    if bounds(protocol.k_shot)[1] or spec.method == METHOD or any(named):
        return []
    found = (_figures(spec, place, episodes, *pair) for pair in joint_streams(folder))
    return [figures for figures in found if figures]


def joint_streams(folder: Path) -> list[tuple[StreamName, StreamName]]:
    """The streams of a data set whose encoder has words by its text tower, and those words."""
    held = list_streams(folder)
    # Streams come by name, so that of words by the usual template comes first; it is the last to be put in.
    words = {TEXT.sub("", stream.encoder): stream for stream in reversed(held) if stream.modality == "word"}
    return [(s, words[s.encoder]) for s in held if s.modality != "word" and s.encoder in words]


def _figures(
    spec: RunSpec, place: Place, episodes: Extent, stream: StreamName, words: StreamName
) -> dict[str, Any]:
    """The figures of one encoder; none where its words are not as wide as its features, and so not of its space."""
    own = replace(
        spec,
        method=METHOD,
        streams=(str(stream),),
        modalities=None,
        train_modalities=None,
        train_missing=(),
        fusion=None,
        settings={},
        words=str(words),
    )
    banks = Banks(own, place)
    words_bank = banks.test
    if words_bank.words is None or words_bank.words.shape[1] != words_bank.tables[stream.modality].dim:
        return {}
    torch.manual_seed(own.train_seed)
    head = built_head(own, banks)
    generalised = own.protocol.generalised
    result = measure(
        head,
        banks.test,
        own.protocol,
        episodes,
        sides=sides_of(banks) if generalised else None,
        choice=chosen_rule(own, banks, head) if generalised else None,
        gate=learned_gate(own, sides_of(banks)) if generalised else None,
        transductive=False,
    )
    figures = {name: value for name, value in result.summary().items() if name in FIGURES}
    return {"stream": str(stream), "words": str(words), **figures}
