"""Training recipes that several temporal methods share."""

from __future__ import annotations

from ..settings import Recipe

RELATION = Recipe(steps=200, tasks=4, query=5, clip_norm=1.0, evaluate_episodes=200, patience=4, mix=0.5)
"""Training of relation networks, whose gradients are clipped."""

ATTENTION = Recipe(
    steps=100,
    tasks=4,
    query=5,
    rate=1e-4,
    weight_decay=5e-4,
    mix=0.5,
    evaluate_every=25,
    evaluate_episodes=60,
)
"""Short training of attention over frames."""
