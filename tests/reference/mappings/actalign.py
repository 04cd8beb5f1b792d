"""ActAlign: affinities, paths and scores, with and without smoothing."""

from __future__ import annotations

import math

import torch
from case import ONLY, Case
from torch import Tensor

from fsmm.episodes.batch import Stream
from fsmm.heads.head import Inputs
from fsmm.heads.language.actalign import ActAlign, ActAlignSettings, best_paths


def build(case: Case, dim: int, smooth: int = 0) -> ActAlign:
    own = ActAlignSettings(
        scale=math.exp(case.meta["logit_scale_log"]), bias=case.meta["logit_bias"], smooth=smooth
    )
    return ActAlign(Inputs(streams={ONLY: (1, dim)}, word_dim=dim), own).double()


def traced(total: Tensor) -> Tensor:
    """The cells [L, 2] of the path to the last cell of totals [T, M], from its start."""
    t, m = (size - 1 for size in total.shape)
    cells = [(t, m)]
    while t or m:
        ways = [(t - 1, m - 1), (t - 1, m), (t, m - 1)]
        t, m = max((w for w in ways if min(w) >= 0), key=lambda w: float(total[w]))
        cells.append((t, m))
    return torch.tensor(cells[::-1])


def outputs(case: Case) -> dict[str, Tensor]:
    video = case.inputs["video"][None]
    parts = [case.inputs[f"subactions_{c}"] for c in range(len(case.meta["lens"]))]
    words = torch.zeros(1, len(parts), max(map(len, parts)), video.shape[-1]).double()
    for c, part in enumerate(parts):
        words[0, c, : len(part)] = part
    present = torch.ones(video.shape[:2], dtype=torch.bool)
    clips = Stream(video, present, present.long() * video.shape[2])
    plain = build(case, video.shape[-1])
    smooth = build(case, video.shape[-1], case.meta["kernel"])
    found = {"score": plain.scores(clips, words)[0], "score_smoothed": smooth.scores(clips, words)[0]}
    affinity = plain.affinity(video, words)
    totals, _ = best_paths(affinity)
    for c, part in enumerate(parts):
        found[f"affinity_{c}"] = affinity[:, : len(part), 0, 0, c]
        found[f"path_{c}"] = traced(totals[:, : len(part), 0, 0, c])
    return found
