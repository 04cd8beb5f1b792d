"""The protocols of training and of validation, derived from the protocol that is evaluated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..cache.bank import FeatureBank
from ..episodes.draw import query_room
from ..episodes.protocol import Missing, Protocol, bounds
from ..heads.settings import Recipe

# These are added to the seeds of training and of the run, so that no two kinds of episodes share their draws.
TRAINING_SEED = 500_009
VALIDATION_SEED = 1_000_003


def training_protocol(
    protocol: Protocol,
    recipe: Recipe,
    base: FeatureBank,
    seed: int,
    *,
    modalities: tuple[str, ...] | None = None,
    missing: tuple[Missing, ...] = (),
) -> Protocol:
    """The protocol of training episodes: the evaluated way and shot on base classes, unless the recipe sets others.

    Where base classes are small, episodes have fewer queries, so that most classes need not be left out.
    """
    way = recipe.way or bounds(protocol.n_way)[1] or len(base.class_names)
    shot = bounds(protocol.k_shot)[1] if recipe.shot is None else recipe.shot
    spare = int(np.quantile(query_room(base, protocol, shot), 0.25))
    return replace(
        protocol,
        split="base",
        n_way=min(way, len(base.class_names)),
        k_shot=protocol.k_shot if recipe.shot is None else recipe.shot,
        n_query=max(min(recipe.query, spare), 1),
        seed=seed + TRAINING_SEED,
        dirichlet=None,
        query_classes=None,
        small_classes="exclude",
        generalised=False,
        retrieval=False,
        unlabelled=0,
        clip_split=None,
        support_modalities=modalities,
        query_modalities=modalities,
        missing=missing,
    )


def validation_protocol(protocol: Protocol, val: FeatureBank) -> Protocol:
    """The protocol of validation: the evaluated task on val classes, with another seed and at most as many ways.

    Where supports and queries share no group, classes cannot be drawn short, so that all have as few queries as the
    smallest gives.
    """
    ways = bounds(protocol.n_way)[1]
    if bounds(protocol.n_way)[0] != ways or ways > len(val.class_names):
        ways = min(ways, len(val.class_names))
    n_query = protocol.n_query
    if not (protocol.shared_group or protocol.cross_group or val.multi):
        n_query = int(np.clip(query_room(val, protocol, bounds(protocol.k_shot)[1]).min(), 1, n_query))
    return replace(
        protocol,
        split="val",
        n_way=ways,
        n_query=n_query,
        seed=protocol.seed + VALIDATION_SEED,
        small_classes="exclude" if val.multi or not protocol.shared_group else "short",
        unlabelled=0,
        generalised=False,
        retrieval=False,
    )
