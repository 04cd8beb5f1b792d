"""From indices to tensors: the features of a batch of episodes, with what the protocol withholds taken away."""

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
    """Episodes with the features of ``index``, on the bank's device.

    Raises UsageError where the protocol names a modality that is not loaded.
    """
    device = bank.device
    support_tables = _tables(bank, protocol.support_modalities)
    query_tables = _tables(bank, protocol.query_modalities)
    support = _side(bank, support_tables, index, index.support, protocol, "support")
    query = _side(bank, query_tables, index, index.query, protocol, "query")
    classes = index.classes.to(device)
    extra = None
    if protocol.unlabelled and unlabelled is not None:
        rows = index.unlabelled.to(device)
        extra = {key: unlabelled.tables[key].gather(rows) for key in {**support_tables, **query_tables}}
    return Episodes(
        support,
        query,
        index.query_label.to(device),
        bank.class_id[classes],
        None if bank.words is None else bank.words[classes],
        extra,
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
    """Streams [..., T, D] of one side; padding rows (-1) and dropped modalities are absent."""
    padded = rows < 0
    safe = rows.clamp(min=0).to(bank.device)
    streams = {key: table.gather(safe) for key, table in tables.items()}
    gone: dict[str, Tensor] = {}
    if protocol.missing:
        present = {key: s.present.cpu().numpy() for key, s in streams.items()}
        gone = {
            k: torch.from_numpy(g) for k, g in dropped(bank, index, rows, protocol, side, present).items()
        }
    if padded.any():
        gone = {key: gone.get(key, torch.zeros_like(padded)) | padded for key in streams}
    return {key: _without(s, gone[key].to(bank.device)) if key in gone else s for key, s in streams.items()}


def dropped(
    bank: FeatureBank,
    index: EpisodeIndex,
    rows: Tensor,
    protocol: Protocol,
    side: str,
    present: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Which clips lose which modality, bool arrays of rows' shape; a function of (seed, episode, clip) alone.

    Unless the protocol allows it, a clip that would lose all it has keeps the modality whose draw was the furthest
    above its rate.
    """
    clip = bank.clip_row[rows.clamp(min=0).numpy()].astype(np.uint64)
    lost: dict[str, np.ndarray] = {}
    margin: dict[str, np.ndarray] = {}
    for key, here in present.items():
        rate = max(
            (m.rate for m in protocol.missing if m.modality == key and m.side in (side, "both")), default=0.0
        )
        state = counter.states(counter.key(protocol.seed, f"missing/{key}/{side}"), index.episode.numpy())
        state = state.reshape(-1, *[1] * (rows.ndim - 1))
        draw = counter.uniform(counter.bits(state, clip) >> np.uint64(32))
        lost[key] = (draw < rate) & here
        margin[key] = np.where(here, draw - rate, -np.inf)
    if not protocol.may_lose_all and lost:
        keys = list(lost)
        remains = np.any([present[k] & ~lost[k] for k in keys], axis=0)
        best = np.argmax([margin[k] for k in keys], axis=0)
        for i, key in enumerate(keys):
            lost[key] &= remains | (best != i)
    return lost


def _without(stream: Stream, gone: Tensor) -> Stream:
    keep = ~gone
    return Stream(
        stream.x * keep[..., None, None].to(stream.x.dtype),
        stream.present & keep,
        stream.length * keep.to(stream.length.dtype),
    )
