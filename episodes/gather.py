"""Gathering the features of a batch of episodes, without the modalities that the protocol withholds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..cache.table import Stream, Table
from ..errors import unknown
from . import counter
from .batch import Episodes
from .protocol import Protocol
from .sampler import EpisodeIndex


def materialise(
    bank: FeatureBank, index: EpisodeIndex, protocol: Protocol, unlabelled: FeatureBank | None = None
) -> Episodes:
    """The episodes of ``index`` with their features, on the bank's device.

    Raises UsageError where the protocol names a modality that is not loaded.
    """
    device = bank.device
    support_tables = _tables(bank, protocol.support_modalities)
    query_tables = _tables(bank, protocol.query_modalities)
    support = _side(
        bank=bank, tables=support_tables, index=index, rows=index.support, protocol=protocol, side="support"
    )
    query = _side(
        bank=bank, tables=query_tables, index=index, rows=index.query, protocol=protocol, side="query"
    )
    classes = index.classes.to(device)
    extra = None
    if protocol.unlabelled and unlabelled is not None:
        rows = index.unlabelled.to(device)
        extra = {key: unlabelled.tables[key].gather(rows) for key in {**support_tables, **query_tables}}
    return Episodes(
        support=support,
        query=query,
        query_label=index.query_label.to(device),
        class_id=bank.class_id[classes],
        words=None if bank.words is None else bank.words[classes],
        unlabelled=extra,
    )


def _tables(bank: FeatureBank, modalities: tuple[str, ...] | None) -> dict[str, Table]:
    for name in modalities or ():
        if name not in bank.tables:
            raise unknown("modality", name, bank.tables)
    return {name: bank.tables[name] for name in (modalities or bank.tables)}


def _side(
    bank: FeatureBank,
    tables: Mapping[str, Table],
    index: EpisodeIndex,
    rows: Tensor,
    protocol: Protocol,
    side: str,
) -> dict[str, Stream]:
    """The Streams [..., T, D] of one side by stream key; padding rows (-1) and dropped modalities are absent."""
    padded = rows < 0
    safe = rows.clamp(min=0).to(bank.device)
    streams = {key: table.gather(safe) for key, table in tables.items()}
    absent: dict[str, Tensor] = {}
    if protocol.missing:
        present = {key: s.present.cpu().numpy() for key, s in streams.items()}
        absent = {
            k: torch.from_numpy(lost)
            for k, lost in dropped(
                bank=bank, index=index, rows=rows, protocol=protocol, side=side, present=present
            ).items()
        }
    if padded.any():
        absent = {key: absent.get(key, torch.zeros_like(padded)) | padded for key in streams}
    return {
        key: _without(s, absent[key].to(bank.device)) if key in absent else s for key, s in streams.items()
    }


def dropped(
    bank: FeatureBank,
    index: EpisodeIndex,
    rows: Tensor,
    protocol: Protocol,
    side: str,
    present: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Whether each clip loses a modality, bool of the shape of ``rows`` for each stream key.

    The loss depends on (seed, episode, clip) alone. Unless the protocol allows it, a clip that would lose every
    modality keeps the one whose draw was the furthest above its rate.
    """
    clip = bank.clip_row[rows.clamp(min=0).numpy()].astype(np.uint64)
    lost: dict[str, np.ndarray] = {}
    margin: dict[str, np.ndarray] = {}
    for key, key_present in present.items():
        rate = max(
            (m.rate for m in protocol.missing if m.modality == key and m.side in (side, "both")), default=0.0
        )
        state = counter.states(counter.key(protocol.seed, f"missing/{key}/{side}"), index.episode.numpy())
        state = state.reshape(-1, *[1] * (rows.ndim - 1))
        draw = counter.uniform(counter.bits(state, clip) >> np.uint64(32))
        lost[key] = (draw < rate) & key_present
        margin[key] = np.where(key_present, draw - rate, -np.inf)
    if not protocol.may_lose_all and lost:
        keys = list(lost)
        remains = np.any([present[k] & ~lost[k] for k in keys], axis=0)
        best = np.argmax([margin[k] for k in keys], axis=0)
        for i, key in enumerate(keys):
            lost[key] &= remains | (best != i)
    return lost


def _without(stream: Stream, absent: Tensor) -> Stream:
    keep = ~absent
    return Stream(
        stream.x * keep[..., None, None].to(stream.x.dtype),
        stream.present & keep,
        stream.length * keep.to(stream.length.dtype),
    )
