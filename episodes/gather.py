"""Gathering the features of a batch of episodes, without the modalities that the protocol withholds or replaces."""

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
        support_row=index.support.clamp(min=0).to(device),
        query_row=index.query.clamp(min=0).to(device),
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
    kept = {
        key: _without(s, absent[key].to(bank.device)) if key in absent else s for key, s in streams.items()
    }
    kept = filled(bank, safe, kept, side)
    if not protocol.noisy:
        return kept
    clip = bank.clip_row[safe.cpu().numpy()].astype(np.uint64)
    return {
        key: _noisy(s, key, clip=clip, index=index, protocol=protocol, side=side) for key, s in kept.items()
    }


def _noisy(
    stream: Stream, key: str, *, clip: np.ndarray, index: EpisodeIndex, protocol: Protocol, side: str
) -> Stream:
    """The Stream with noise of unit length in place of the features of the clips that the protocol chooses.

    The choice and the noise depend on (seed, episode, clip) alone. clip: catalog rows, uint64 of the shape of a side.
    """
    rate = max(
        (m.rate for m in protocol.noisy if m.modality == key and m.side in (side, "both")), default=0.0
    )
    if not rate:
        return stream
    episode = index.episode.numpy()
    state = counter.states(counter.key(protocol.seed, f"noisy/{key}/{side}"), episode)
    state = state.reshape(-1, *[1] * (clip.ndim - 1))
    word = counter.bits(state, clip)
    chosen = torch.from_numpy(counter.uniform(word >> np.uint64(32)) < rate).to(stream.x.device)
    steps, width = stream.x.shape[-2:]
    slots = np.arange(2 * steps * width, dtype=np.uint64)
    draws = counter.uniform(counter.bits(word[..., None], slots) >> np.uint64(32))
    radius, angle = np.split(draws, 2, axis=-1)  # Box and Muller's normal numbers.
    normal = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)
    noise = torch.from_numpy(normal.reshape(*clip.shape, steps, width)).to(stream.x)
    noise = torch.nn.functional.normalize(noise, dim=-1) * stream.mask()[..., None].to(stream.x.dtype)
    return Stream(torch.where(chosen[..., None, None], noise, stream.x), stream.present, stream.length)


def filled(bank: FeatureBank, rows: Tensor, streams: dict[str, Stream], side: str) -> dict[str, Stream]:
    """The streams of the clips at ``rows`` [...] with the bank's substitutes for the modalities that clips lack.

    A modality that ``streams`` does not name is lacked by all of them. A clip that lacks every modality, such as
    padding, stays absent. The streams are changed in place. side: support or query, whichever the clips are.
    """
    substitutes = bank.substitutes.get(side)
    if substitutes is None or len(bank.tables) < 2:
        return streams
    names = list(bank.tables)
    nothing = torch.zeros_like(rows, dtype=torch.bool)
    present = torch.stack([streams[m].present if m in streams else nothing for m in names])
    power = torch.tensor([1 << i for i in range(len(names))], device=rows.device)
    code = (present * power.view(-1, *[1] * rows.ndim)).sum(0)
    found = dict(streams)
    for pattern in code.unique().tolist():
        sources = tuple(m for i, m in enumerate(names) if pattern >> i & 1)
        at = code == pattern
        for target in names if sources else ():
            stand_in = None if target in sources else substitutes.gather(target, sources, rows[at])
            if stand_in is not None:
                found.setdefault(target, _nothing(bank.tables[target], rows, stand_in.x.dtype))
                stream = found[target]
                stream.x[at], stream.present[at] = stand_in.x.to(stream.x.dtype), stand_in.present
                stream.length[at] = stand_in.length
    return {m: found[m] for m in names if m in found}


def _nothing(table: Table, rows: Tensor, dtype: torch.dtype) -> Stream:
    """A modality that all clips at ``rows`` [...] lack."""
    x = torch.zeros((*rows.shape, table.steps, table.dim), dtype=dtype, device=rows.device)
    length = torch.zeros(rows.shape, dtype=torch.int64, device=rows.device)
    return Stream(x, torch.zeros_like(length, dtype=torch.bool), length)


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
