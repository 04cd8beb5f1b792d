"""The sampler of the temporal-matching benchmark: the steps of clips, and a whole episode."""

from __future__ import annotations

import numpy as np
import torch
from case import Case
from torch import Tensor

from fsmm.episodes.segment_sampler import draw_with_steps, segment_steps


def outputs(case: Case) -> dict[str, Tensor]:
    counts = [int(count) for count in case.inputs["clip_counts"]]
    seed, clips, way, shot, query = (case.meta[key] for key in ("seed", "clips", "way", "shot", "query"))
    generator = np.random.default_rng(seed)
    positions = np.stack([segment_steps(generator, count, clips) for count in counts])
    lengths: dict[str, dict[str, int]] = {}
    for video, count in enumerate(counts):
        lengths.setdefault(f"class{video % 3}", {})[f"video{video:03}"] = count
    file = draw_with_steps(lengths, episodes=1, ways=way, shots=shot, queries=query, steps=clips, seed=seed)
    assert file.support_steps is not None
    assert file.query_steps is not None
    return {
        "positions": torch.from_numpy(positions),
        "episode_support": torch.from_numpy(file.support_steps[0].reshape(way * shot, clips)),
        "episode_query": torch.from_numpy(file.query_steps[0]),
    }
